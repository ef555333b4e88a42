"""The figures of texts: worked by hand, and as the step writes them."""

import json
import math
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from grade import main as grade_step
from judged import answer, predictions
from support import ROOT

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, read_json, read_jsonl, read_yaml, write_json, write_jsonl
from grpo_cot.grading.comparison import compare
from grpo_cot.grading.grade import metrics
from grpo_cot.grading.texts import verdicts
from grpo_cot.grading.texts.judge import Judge


def test_figures_equal_those_worked_by_hand() -> None:
    base = [
        answer("negative", own_log_likelihood=-3.0, own_tokens=2, weighted_reward=1.0),
        answer("positive", own_log_likelihood=-9.0, own_tokens=4, weighted_reward=3.0),
        answer("positive", own_log_likelihood=None, own_tokens=None, weighted_reward=None),
        answer("positive", "negative", own_log_likelihood=0.0, own_tokens=0, weighted_reward=0.0),
    ]
    trained = [
        answer("negative", other_log_likelihood=-4.0, own_log_likelihood=-3.0, own_tokens=2, weighted_reward=2.0),
        answer("negative", other_log_likelihood=-8.0, own_log_likelihood=-5.0, own_tokens=2, weighted_reward=6.0),
        answer("negative", other_log_likelihood=None, own_log_likelihood=None, own_tokens=None, weighted_reward=9.0),
        answer("positive", other_log_likelihood=-2.0, own_log_likelihood=-2.0, own_tokens=1, weighted_reward=4.0),
    ]
    figures = metrics(predictions(base, trained, "01-sft"))
    assert (figures["before"], figures["n"], figures["texts"]["wanted"]) == ("01-sft", 4, "negative")
    assert [figures[model]["wanted_share"]["value"] for model in ("base", "trained")] == [0.25, 0.75]
    assert [figures[model]["reward_model_share"]["value"] for model in ("base", "trained")] == [0.5, 0.75]
    assert list(figures["paired"]) == ["wanted_share", "reward_model_share"]
    assert figures["paired"]["wanted_share"]["difference"] == 0.5
    assert figures["paired"]["wanted_share"]["p"] == pytest.approx(0.5)
    assert figures["base"]["weighted_reward"]["value"] == pytest.approx(4 / 3)
    assert figures["trained"]["weighted_reward"]["value"] == pytest.approx(21 / 4)
    assert figures["texts"]["reward_difference"]["value"] == pytest.approx((1 + 3 + 4) / 3)  # where both were judged
    # The perplexity under the model that is compared with, whoever wrote the completions, weighted by tokens.
    assert figures["base"]["fluency"]["value"] == pytest.approx(math.exp(12 / 6))
    assert figures["trained"]["fluency"]["value"] == pytest.approx(math.exp(14 / 5))
    assert figures["texts"]["kl"]["value"] == pytest.approx((1 + 3 + 0) / 3)
    assert figures["trained"]["distinct_2"] == pytest.approx(3 / 12)  # all four completions are the same
    assert figures["trained"]["self_bleu"] == {"value": pytest.approx(100), "n": 4}
    assert figures["trained"]["strict_accuracy"] is None and "strict_accuracy" not in figures["paired"]
    assert json.loads(json.dumps(figures)) == figures


def test_the_classifiers_are_measured_on_the_sets_own_texts() -> None:
    rows = predictions([answer("negative")] * 4, [answer("negative")] * 4)
    rows[0] |= {"judged": "negative", "label_probabilities": {"negative": 0.7, "positive": 0.3}}  # it is positive
    rows[1] |= {"beginning_judged": "negative"}
    texts = metrics(rows)["texts"]
    assert texts["beginnings"]["value"] == 0.25
    assert texts["judge"]["accuracy"]["value"] == texts["reward_model"]["accuracy"]["value"] == 0.75
    assert texts["judge"]["classes"]["positive"] == {
        "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2
    }  # fmt: skip
    assert texts["reward_model"]["confusion"] == {"classes": ["negative", "positive"], "counts": [[2, 0], [1, 1]]}
    assert texts["reward_model"]["calibration"]["expected_error"] == pytest.approx((0.7 + 3 * 0.2) / 4)


def test_without_a_reward_model_or_rewards_their_figures_are_null() -> None:
    rows = predictions(
        [answer("negative", weighted_reward=None)], [answer("positive", weighted_reward=None)], reward_model=False
    )
    figures = metrics(rows)
    assert figures["texts"]["reward_model"] is None and figures["texts"]["reward_difference"] is None
    assert figures["trained"]["reward_model_share"] is None and figures["trained"]["weighted_reward"] is None
    assert list(figures["paired"]) == ["wanted_share"]


def test_two_runs_are_compared_by_the_judge_that_they_share() -> None:
    some = predictions([answer("negative")] * 8, [answer("positive", "negative")] * 8)
    more = predictions([answer("negative")] * 8, [answer("negative")] * 8)
    result = compare(some, more)
    assert [result["wanted_share"][side]["value"] for side in "ab"] == [0, 1]
    assert (result["wanted"], result["n"], result["wanted_share"]["difference"]) == ("negative", 8, 1)
    assert result["wanted_share"]["p"] == pytest.approx(2 / 2**8)
    assert "reward_model_share" not in result and result["warnings"] == []  # each run has a reward model of its own
    with pytest.raises(InputError, match=r"different rows \(16 unpaired, 'test-0' first\)"):
        compare(some, [row | {"wanted": "positive"} for row in more])


def test_rewards_are_paid_as_the_trainer_pays_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def shortness(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        seen.update(columns, prompts=prompts, completions=completions)
        return [None, *(-1.0 * len(ids) for ids in columns["completion_ids"][1:])]

    monkeypatch.setattr(verdicts, "reward_functions", lambda rewards: ([shortness], list(rewards.values())))
    problems = [
        {"id": f"test-{number}", "messages": [{"role": "user", "content": "The course"}], "gold": None, "locale": "en",
         "solution": None, "text": "The course is good", "label": "positive", "wanted": "negative"}
        for number in range(2)
    ]  # fmt: skip
    written = {"completion": "is dull", "tokens": 3, "probabilities": {"negative": 0.4, "positive": 0.6}}
    completions = [
        {"label_probabilities": None, "base": written | {"reward_model": 1.5}, "trained": written | {"reward_model": 2}}
    ] * 2
    graded: list[Row] = [{"id": row["id"], "base": {}, "trained": {}} for row in problems]
    judge = Judge(["dull", "dull", "good", "good"], ["negative", "negative", "positive", "positive"])
    first, second = verdicts.judge_texts(graded, completions, problems, judge, {"shortness": 0.5, "reward_model": 2.0})
    assert seen["prompts"][0] == problems[0]["messages"]
    assert seen["completions"][0] == [{"role": "assistant", "content": "is dull"}]
    assert (seen["wanted"], seen["gold"], seen["locale"]) == (["negative"] * 2, [None] * 2, ["en"] * 2)
    assert first["base"]["amounts"] == {"shortness": None, "reward_model": 1.5}
    assert [row["base"]["weighted_reward"] for row in (first, second)] == [3.0, 3.0 - 1.5]
    assert (first["base"]["text"], first["base"]["judged"], first["judged"]) == (
        "The course is dull", "negative", "positive",
    )  # fmt: skip
    assert (first["base"]["reward_model_label"], first["base"]["reward_model_probability"]) == ("positive", 0.4)


def step(folder: Path, reward: str = "reward_model") -> Namespace:
    """The step's arguments: a folder of prompts, completions and a recipe."""
    write_json(folder / "recipe.yaml", read_yaml(ROOT / "experiments/tiny-grpo.yaml") | {"rewards": {reward: 1.0}})
    texts = ["The course is dull", "The course is lively", "A dull lecture", "A lively lecture"]
    labels = ["negative", "positive"] * 2
    prompts = [
        {"id": f"test-{number}", "messages": [{"role": "user", "content": text.rsplit(" ", 1)[0]}], "gold": None,
         "locale": "en", "solution": None, "text": text, "label": label, "wanted": "negative", "tokens": 5}
        for number, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]  # fmt: skip
    write_jsonl(folder / "prompts/eval-test.jsonl", prompts)
    write_json(folder / "prompts/summary.json", {"test": {"also_asked_as": {}}})
    judges = [row | {"id": f"judge-{number}", "text": f"{row['text']} indeed"} for number, row in enumerate(prompts)]
    write_jsonl(folder / "prompts/eval-judge.jsonl", judges)
    written = {
        "thought": None, "tokens": 3, "reasoning_tokens": None, "truncated": False, "samples": None,
        "gold_log_likelihood": -3.0, "gold_tokens": 2, "own_log_likelihood": -4.0, "own_tokens": 3,
        "other_log_likelihood": -5.0, "reward_model": 1.0, "probabilities": {"negative": 0.8, "positive": 0.2},
    }  # fmt: skip
    write_jsonl(
        folder / "completions.jsonl",
        [
            {"id": f"test-{number}", "set": "test", "before": "01-sft",
             "label_probabilities": {"negative": 0.8, "positive": 0.2},
             "base": written | {"completion": " lively"},
             "trained": written | {"completion": " dull", "reward_model": 2.0}}
            for number in range(4)
        ],
    )  # fmt: skip
    return Namespace(
        recipe=folder / "recipe.yaml", prompts=folder / "prompts", model=folder / "train/model.json",
        completions=folder / "completions.jsonl", predictions=folder / "grade/predictions.jsonl",
        metrics=folder / "grade/metrics.json",
    )  # fmt: skip


def test_the_step_judges_the_texts_and_pays_the_recipes_rewards(tmp_path: Path) -> None:
    arguments = step(tmp_path)
    said = grade_step(arguments)
    rows = read_jsonl(arguments.predictions)
    assert [(row["base"]["judged"], row["trained"]["judged"]) for row in rows] == [("positive", "negative")] * 4
    assert [row["judged"] for row in rows] == ["negative", "positive"] * 2
    assert [row["beginning_judged"] for row in rows[2:]] == ["negative", "positive"]  # "A dull", "A lively"
    assert rows[0]["trained"]["amounts"] == {"reward_model": 2.0}
    figures = read_json(arguments.metrics)
    assert figures.pop("validation") == {}
    assert figures == json.loads(json.dumps(metrics(rows)))
    assert (figures["before"], figures["texts"]["judge"]["accuracy"]["value"]) == ("01-sft", 1)
    assert figures["texts"]["reward_difference"]["value"] == 1
    assert figures["base"]["perplexity"]["value"] == pytest.approx(math.exp(1.5))  # of the texts' own ends
    assert "wanted share 0.0% -> 100.0%, difference +100.0 points" in said and "WARNING" not in said


def test_the_step_names_the_recipe_of_a_reward_that_fails(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe.yaml: the reward 'correctness' fails on completions"):
        grade_step(step(tmp_path, "correctness"))


def test_the_step_loads_no_model_library(tmp_path: Path) -> None:
    arguments = {name: str(value) for name, value in vars(step(tmp_path)).items()}
    code = (
        "import sys; from argparse import Namespace; from pathlib import Path; import grade\n"
        f"grade.main(Namespace(**{{name: Path(value) for name, value in {arguments!r}.items()}}))\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    path = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'scripts'}"}
    assert subprocess.run(
        [sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True
    ).stdout == ("[]\n")
