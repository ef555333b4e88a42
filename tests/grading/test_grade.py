"""Grading: what a metric counts, and what is paired with what."""

import json
import math
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from grade import main as grade_step
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu
from support import ROOT

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, read_json, read_jsonl, write_json, write_jsonl
from grpo_cot.grading import grade as grading
from grpo_cot.grading.comparison import compare
from grpo_cot.grading.grade import grade, metrics, read_completion, read_samples, unread_warnings


def answered(text: str, reasoning_tokens: int | None = None, truncated: bool = False, **more: Any) -> Row:
    return {
        "completion": text, "tokens": 7, "reasoning_tokens": reasoning_tokens, "truncated": truncated,
        "gold_log_likelihood": None, "gold_tokens": None, "samples": None, **more,
    }  # fmt: skip


def schema(value: object, reasoning: str = "2 + 3 = 5") -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{value}\n</answer>"


def problem(gold: str = "5", locale: str = "en", solution: str | None = None) -> Row:
    return {"gold": gold, "locale": locale, "solution": solution, "messages": []}


def test_strict_needs_the_schema_and_lenient_does_not() -> None:
    bare = read_completion("The answer is 5.", "5", "en")
    assert (bare["strict_correct"], bare["lenient_correct"], bare["format"], bare["numeric"]) == (
        False,
        True,
        False,
        "5",
    )
    inside = read_completion(schema("$5.00"), "5", "en")
    assert (inside["strict_correct"], inside["lenient_correct"], inside["format"]) == (True, True, True)
    silent = read_completion("", "5", "en")
    assert (silent["strict"], silent["lenient"], silent["strict_correct"], silent["lenient_correct"]) == (
        None,
        None,
        False,
        False,
    )


def test_a_right_answer_with_a_false_line_is_not_sound_and_prose_is_not_judged() -> None:
    def graded(base: str, trained: str, solution: str) -> dict[str, Any]:
        row = {"id": "0", "set": "test", "before": None, "base": answered(base), "trained": answered(trained)}
        return metrics(grade([row], {("test", "0"): problem("14", solution=solution)}))

    solution = "12 + 7 = 19\n19 - 5 = 14"
    figures = graded(schema(14, "12 + 7 = 18\n18 - 5 = 14"), schema(14, solution), solution)
    assert [figures[model]["strict_accuracy"]["value"] for model in ("base", "trained")] == [1, 1]
    assert [figures[model]["sound_accuracy"]["value"] for model in ("base", "trained")] == [0, 1]
    assert graded("14", schema(15, solution), solution)["trained"]["sound_accuracy"]["value"] == 0  # sound, and wrong
    endless = schema(14, f"{'1' * 5000} + 1 = 2\n{solution}")
    assert graded("14", endless, solution)["trained"]["sound_accuracy"]["value"] == 0
    spaced = schema(14, solution.replace("\n", "\n\n"))
    assert graded("14", spaced, solution)["trained"]["sound_accuracy"]["value"] == 1
    prose = "He has 12 + 7 = 19 apples.\n19 - 5 = <<19-5=14>>14"
    assert graded("14", schema(14, solution), prose)["trained"]["sound_accuracy"] is None


def test_the_harness_reads_by_its_own_rules() -> None:
    own = read_completion("so\n#### 5", "5", "en")
    assert (own["strict_match"], own["flexible_extract"], own["strict_correct"]) == (True, True, False)
    ours = read_completion(schema("5.0"), "5", "en")
    assert (ours["strict_match"], ours["flexible_extract"], ours["strict_correct"]) == (False, False, True)


def test_samples_vote_by_value_and_those_outside_the_schema_do_not_vote() -> None:
    read = read_samples([schema("5"), schema("6"), "The answer is 6.", schema("$5.00"), schema("6 or 7")], "5", "en")
    assert read["samples_correct"] == [True, False, False, True, False]
    assert read["samples_strict"] == ["5", "6", None, "5", "6 or 7"]
    assert read["majority"] is True
    assert read_samples([schema("6"), schema("5")], "5", "en")["majority"] is False  # a tie: what came first
    assert read_samples(["5", ""], "5", "en")["majority"] is False
    assert set(read_samples(None, "5", "en").values()) == {None}


COMPLETIONS = [
    {"id": "a", "set": "test", "before": None, "base": answered("5"), "trained": answered(schema(5), 6)},
    {"id": "b", "set": "test", "before": None, "base": answered("4", truncated=True),
     "trained": answered(schema(5), 8)},
    {"id": "c", "set": "test", "before": None, "base": answered("nothing"), "trained": answered(schema(6), 7)},
]  # fmt: skip
PROBLEMS = {("test", identifier): problem() for identifier in "abc"}


def test_metrics_count_what_they_say() -> None:
    result = metrics(grade(COMPLETIONS, PROBLEMS))
    assert result["n"] == 3
    assert result["base"]["strict_accuracy"]["value"] == 0
    assert result["base"]["lenient_accuracy"]["value"] == pytest.approx(1 / 3)
    assert result["base"]["harness"]["flexible_extract"]["value"] == pytest.approx(1 / 3)
    assert result["base"]["truncated"] == pytest.approx(1 / 3)
    assert result["base"]["reasoning_tokens"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert result["trained"]["strict_accuracy"]["value"] == pytest.approx(2 / 3)
    assert result["trained"]["format_adherence"]["value"] == 1
    lengths = result["trained"]["reasoning_tokens"]
    assert (lengths["mean"], lengths["n"]) == (7, 3)
    assert 6 <= lengths["low"] < 7 < lengths["high"] <= 8
    assert result["paired"]["strict_accuracy"]["difference"] == pytest.approx(2 / 3)
    assert result["paired"]["lenient_accuracy"]["difference"] == pytest.approx(1 / 3)


def test_what_was_not_measured_is_null() -> None:
    trained = metrics(grade(COMPLETIONS, PROBLEMS))["trained"]
    missing = {name for name, figure in trained.items() if figure is None}
    assert missing == {
        "sound_accuracy",
        "perplexity",
        "sacrebleu",
        "rouge1",
        "rouge2",
        "rougeL",
        "pass_at",
        "majority_at",
        "noise",
    }


def test_a_completion_without_its_prompt_is_named() -> None:
    with pytest.raises(InputError, match="completion of 'a' in the set 'test' has no prompt"):
        grade(COMPLETIONS, {})


def test_each_row_is_read_in_its_own_locale() -> None:
    rows = [
        {"id": name, "set": "s", "before": None, **dict.fromkeys(("base", "trained"), answered(schema("70.000")))}
        for name in "ab"
    ]
    problems = {("s", "a"): problem("70000", "vi"), ("s", "b"): problem("70000", "en")}
    vietnamese, english = grade(rows, problems)
    assert (vietnamese["locale"], vietnamese["trained"]["strict_correct"]) == ("vi", True)
    assert (english["locale"], english["trained"]["strict_correct"]) == ("en", False)


def test_every_set_has_its_figures_and_the_first_one_stands_on_top() -> None:
    other = [{**row, "set": "other", "trained": answered("5")} for row in COMPLETIONS[:2]]
    problems = {**PROBLEMS, **{("other", row["id"]): problem() for row in other}}
    result = metrics(grade([*COMPLETIONS, *other], problems))
    assert result["set"] == "test" and list(result["sets"]) == ["test", "other"]
    assert {key: figure for key, figure in result.items() if key not in ("set", "before", "best_prompt", "sets")} == (
        result["sets"]["test"]
    )
    assert result["sets"]["other"]["n"] == 2
    assert result["sets"]["other"]["trained"]["strict_accuracy"]["value"] == 0


def test_perplexity_weighs_tokens_and_not_problems() -> None:
    likelihoods = ((-2.0, 2), (-90.0, 30), (None, None))
    rows = [
        {**row, "base": answered("5", gold_log_likelihood=likelihood, gold_tokens=tokens)}
        for row, (likelihood, tokens) in zip(COMPLETIONS, likelihoods, strict=True)
    ]
    found = metrics(grade(rows, PROBLEMS))["base"]["perplexity"]
    assert (found["value"], found["tokens"]) == (pytest.approx(math.exp(92 / 32)), 32)
    assert (found["low"], found["high"]) == (
        pytest.approx(math.e),
        pytest.approx(math.exp(3)),
    )  # the two problems alone


def test_similarity_compares_the_reasoning_with_the_solution() -> None:
    solutions = ["He has 2 + 3 = 5 apples", "There are 4 + 1 = 5 of them", None]
    problems = {("test", name): problem(solution=text) for name, text in zip("abc", solutions, strict=True)}
    texts = [schema(5, "He had 2 + 3 = 5 apples"), "There are 4 and 1 of them, which is 5", schema(5)]
    rows = [{**row, "trained": answered(text)} for row, text in zip(COMPLETIONS, texts, strict=True)]
    compared, references = ["He had 2 + 3 = 5 apples", texts[1]], solutions[:2]
    trained = metrics(grade(rows, problems))["trained"]
    assert trained["sacrebleu"]["value"] == pytest.approx(corpus_bleu(compared, [references]).score, abs=1e-9)
    assert "tok:13a" in trained["sacrebleu"]["signature"]
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    scores = [scorer.score(*pair)["rougeL"].fmeasure for pair in zip(references, compared, strict=True)]
    assert trained["rougeL"]["value"] == pytest.approx(sum(scores) / 2, abs=1e-9)


def test_pass_and_majority_go_by_powers_of_two_over_the_problems_that_have_samples() -> None:
    samples = [[schema(5), schema(6), schema(6), schema(7), ""], [schema(5)] * 5, None]
    rows = [{**row, "base": answered("5", samples=texts)} for row, texts in zip(COMPLETIONS, samples, strict=True)]
    base = metrics(grade(rows, PROBLEMS))["base"]
    assert list(base["pass_at"]) == list(base["majority_at"]) == ["1", "2", "4"]
    assert [base["pass_at"][k]["value"] for k in "124"] == pytest.approx([(0.2 + 1) / 2, (0.4 + 1) / 2, (0.8 + 1) / 2])
    # Of the first problem's pairs, 5 wins alone with the silent sample and ties with three others.
    assert base["majority_at"]["2"]["value"] == pytest.approx(((1 + 3 / 2) / 10 + 1) / 2, abs=0.04)
    assert base["majority_at"]["1"] == pytest.approx(base["pass_at"]["1"])
    assert base["pass_at"]["1"]["low"] == pytest.approx(0.2) and base["pass_at"]["1"]["high"] == 1
    assert base["noise"]["prediction"] == pytest.approx((0.2 * 0.8 * 5 / 4 / 2 / 2) ** 0.5)


def test_samples_of_both_models_are_paired_at_the_largest_k_that_they_have() -> None:
    drawn = {"a": [4, 4, 4], "b": [5, 5, 4], "c": [4, 4, 4]}
    rows = [
        {
            **row, "base": answered("5", samples=[schema(5 if row["id"] == "a" else 4), *[schema(4)] * 4]),
            "trained": answered("5", samples=[schema(value) for value in drawn[row["id"]]]),
        }
        for row in COMPLETIONS
    ]  # fmt: skip
    figures = metrics(grade(rows, PROBLEMS))
    paired = figures["paired_samples"]
    assert (paired["k"], paired["n"]) == (2, 3)
    assert paired["base"]["value"] == pytest.approx(0.4 / 3) and paired["trained"]["value"] == pytest.approx(1 / 3)
    assert paired["difference"] == pytest.approx(0.6 / 3) and paired["low"] < 0 < paired["high"] and paired["p"] > 0.05
    assert metrics(grade(COMPLETIONS, PROBLEMS))["paired_samples"] is None


def test_the_note_on_power_says_what_this_many_problems_show() -> None:
    rows = [{**COMPLETIONS[0], "id": str(number)} for number in range(400)]
    problems = {("test", str(number)): problem() for number in range(400)}
    paired = metrics(grade(rows, problems))["paired"]
    assert paired["strict_accuracy"]["detectable"] == pytest.approx(0.1397, abs=1e-3)  # all verdicts differ
    assert paired["lenient_accuracy"]["detectable"] < 0.03  # none does


def test_several_processes_grade_as_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {**row, "id": f"{row['id']}{number}", "base": answered(f"It is {number}", samples=[schema(number % 7)] * 3)}
        for number in range(40) for row in COMPLETIONS
    ]  # fmt: skip
    problems = {("test", row["id"]): problem() for row in rows}
    alone = grade(rows, problems)
    monkeypatch.setattr(grading, "_ONE_PROCESS", 0)
    assert grade(rows, problems) == alone


def test_the_step_writes_predictions_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [{"id": identifier, **problem(solution="2 + 3 = 5")} for identifier in "abc"]
    write_jsonl(tmp_path / "prompts/eval-test.jsonl", prompts)
    write_jsonl(tmp_path / "completions.jsonl", COMPLETIONS)
    write_jsonl(tmp_path / "prompts/eval-validation.jsonl", prompts)
    write_json(tmp_path / "prompts/summary.json", {"test": {"also_asked_as": {}}})
    answer = {"step": 10, "id": "b", "text": "The answer is 5.", "tokens": 6, "truncated": False}
    write_jsonl(tmp_path / "train/01-grpo/validation.jsonl", [answer, {**answer, "step": 20, "text": schema(5)}])
    said = grade_step(
        Namespace(
            recipe=ROOT / "experiments/tiny-grpo.yaml", prompts=tmp_path / "prompts",
            model=tmp_path / "train/model.json",
            completions=tmp_path / "completions.jsonl", predictions=tmp_path / "grade/predictions.jsonl",
            metrics=tmp_path / "grade/metrics.json",
        )
    )  # fmt: skip
    predictions = read_jsonl(tmp_path / "grade/predictions.jsonl")
    assert [(row["id"], row["set"], row["gold"], row["locale"]) for row in predictions] == [
        (identifier, "test", "5", "en") for identifier in "abc"
    ]
    result = read_json(tmp_path / "grade/metrics.json")
    validation = result.pop("validation")["01-grpo"]
    assert result == json.loads(json.dumps(metrics(predictions)))
    assert [(row["step"], row["n"]) for row in validation] == [(10, 1), (20, 1)]
    shares = [[row[f"{name}_accuracy"]["value"] for name in ("strict", "lenient")] for row in validation]
    assert shares == [[0, 1], [1, 1]] and validation[1]["format_adherence"]["value"] == 1
    assert "strict accuracy 0.0% -> 66.7%, difference +66.7 points" in said and "(set test, n = 3, paired" in said


def test_grading_loads_no_model_library() -> None:
    libraries = "{'torch', 'transformers', 'scipy', 'nltk'}"
    code = f"import sys, grpo_cot.grading.grade; print(sorted({libraries} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_comparing_pairs_rows_by_id_whatever_their_order() -> None:
    first = grade(COMPLETIONS, PROBLEMS)
    better = grade([{**row, "trained": answered(schema(5), 6)} for row in COMPLETIONS], PROBLEMS)
    result = compare(first, better[::-1])
    assert result["n"] == 3
    assert result["strict_accuracy"]["difference"] == pytest.approx(1 / 3)
    assert result["strict_accuracy"]["a"]["value"] == pytest.approx(2 / 3)


def test_sets_are_compared_apart() -> None:
    other = [{**row, "set": "other"} for row in COMPLETIONS]
    problems = {**PROBLEMS, **{("other", identifier): problem() for identifier in "abc"}}
    first = grade([*COMPLETIONS, *other], problems)
    second = grade([*COMPLETIONS, *({**row, "trained": answered("5")} for row in other)], problems)
    result = compare(first, second)
    assert result["set"] == "test" and result["n"] == 3
    assert result["strict_accuracy"] == result["sets"]["test"]["strict_accuracy"]
    assert result["strict_accuracy"]["difference"] == 0
    assert result["sets"]["other"]["strict_accuracy"]["difference"] == pytest.approx(-2 / 3)
    assert list(compare(first, grade(COMPLETIONS, problems))["sets"]) == ["test"]  # the one that both have
    with pytest.raises(InputError, match="no evaluation set in common"):
        compare(grade(other, problems), grade(COMPLETIONS, problems))


def test_runs_on_different_rows_are_not_compared() -> None:
    rows = grade(COMPLETIONS, PROBLEMS)
    with pytest.raises(InputError, match=r"different rows \(1 unpaired, 'c' first\)"):
        compare(rows, rows[:2])


def test_unread_completions_are_counted_and_a_difference_that_they_could_carry_is_warned_of() -> None:
    answers = {"base": answered("It has 5 apples in 2 bags."), "trained": answered(schema(5))}
    rows = [{**COMPLETIONS[0], "id": str(number), **answers} for number in range(30)]
    problems = {("test", str(number)): problem() for number in range(30)}
    predictions = grade(rows, problems)
    result = metrics(predictions)
    assert (result["base"]["unread"]["value"], result["trained"]["unread"]["value"]) == (1, 0)
    (warning,) = result["warnings"]
    assert warning.startswith(
        "the lenient difference may be one of reading: 100.0% of the completions of base and 0.0%"
    )
    wrong = [{**row, "base": answered("It has 6 apples.")} for row in rows]
    assert metrics(grade(wrong, problems))["warnings"] == []
    compared = compare(grade(wrong, problems), grade([{**row, "trained": row["base"]} for row in rows], problems))
    assert (compared["unread"]["a"]["value"], compared["unread"]["b"]["value"]) == (0, 1)
    assert "of the completions of a and 100.0% of those of b" in compared["warnings"][0]


@pytest.mark.parametrize(
    ("base", "trained", "low", "high", "warned"),
    [
        (0.31, 0.1, 0.2, 0.4, True),
        (0.3, 0.11, 0.2, 0.4, False),
        (0.1, 0.3, 0.2, 0.4, False),
        (0.1, 0.31, -0.4, -0.2, True),
        (0.3, 0.1, -0.4, -0.2, False),
        (0.9, 0.0, -0.1, 0.2, False),
    ],
)
def test_only_a_difference_beyond_chance_can_be_carried(
    base: float, trained: float, low: float, high: float, warned: bool
) -> None:
    unread = {"base": {"value": base}, "trained": {"value": trained}}
    assert bool(unread_warnings(unread, {"difference": (low + high) / 2, "low": low, "high": high})) == warned


def test_samples_outside_the_schema_outvote_nobody_however_many_they_are() -> None:
    read = read_samples(["", "5", schema(5), "The answer is 6.", schema("")], "5", "en")
    assert read["samples_strict"] == [None, None, "5", None, None] and read["majority"] is True
    rows = [{**COMPLETIONS[0], "base": answered("5", samples=[schema(5), "", "5", ""])}]
    base = metrics(grade(rows, PROBLEMS))["base"]
    assert base["majority_at"]["4"]["value"] == 1  # one vote, for the right answer
    assert base["majority_at"]["1"]["value"] == base["pass_at"]["1"]["value"] == 0.25  # silence is no right answer


def test_a_wrong_answer_in_two_spellings_is_one_vote_each() -> None:
    read = read_samples([schema("6"), schema(5), schema("6.0"), schema("$6")], "5", "en")
    assert read["majority"] is False and read["samples_strict"] == ["6", "5", "6", "6"]


def test_the_base_is_also_held_against_at_the_prompt_at_which_it_does_best() -> None:
    """Bare answers are right leniently alone; the base uses the schema at one prompt of three."""
    said = {
        "test": (["4", "4", "4", "4"], [schema(5), schema(5), schema(5), schema(4)]),
        "test-with-0": ([schema(5), schema(4), schema(4), schema(4)], [schema(4)] * 4),
        "test-with-nothing": (["5", "5", "4", "4"], [schema(4)] * 4),
        "test-with-hints": (["5"] * 4, ["5"] * 4),  # a set of the data set's own
    }
    rows = [
        {"id": str(number), "set": name, "before": None, "base": answered(base), "trained": answered(trained)}
        for name, (first, second) in said.items()
        for number, (base, trained) in enumerate(zip(first, second, strict=True))
    ]
    variants = ["test-with-0", "test-with-1", "test-with-nothing"]
    found = metrics(grade(rows, {(row["set"], row["id"]): problem() for row in rows}), variants)["best_prompt"]
    assert found["tried"] == ["test", "test-with-0", "test-with-nothing"]
    strict, lenient = found["strict_accuracy"], found["lenient_accuracy"]
    assert (strict["set"], strict["base"]["value"], strict["difference"]["difference"]) == ("test-with-0", 0.25, 0.5)
    assert (lenient["set"], lenient["base"]["value"], lenient["difference"]["difference"]) == (
        "test-with-nothing", 0.5, 0.25,
    )  # fmt: skip
    assert metrics(grade(rows, {(row["set"], row["id"]): problem() for row in rows}))["best_prompt"] is None
