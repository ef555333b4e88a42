"""Grading: what a metric counts, and what is paired with what."""

import pytest

from grpo_cot.files import InputError
from grpo_cot.grading import compare, grade, metrics, read_completion


def answered(text: str, reasoning_tokens: int | None = None, truncated: bool = False) -> dict[str, object]:
    return {"completion": text, "tokens": 7, "reasoning_tokens": reasoning_tokens, "truncated": truncated}


def schema(value: object) -> str:
    return f"<reasoning>\n2 + 3 = 5\n</reasoning>\n<answer>\n{value}\n</answer>"


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


COMPLETIONS = [
    {"id": "a", "set": "test", "base": answered("5"), "trained": answered(schema(5), 6)},
    {"id": "b", "set": "test", "base": answered("4", truncated=True), "trained": answered(schema(5), 8)},
    {"id": "c", "set": "test", "base": answered("nothing"), "trained": answered(schema(6), 7)},
]
GOLDS = {("test", "a"): "5", ("test", "b"): "5", ("test", "c"): "5"}


def test_metrics_count_what_they_say() -> None:
    result = metrics(grade(COMPLETIONS, GOLDS, "en"))
    assert result["n"] == 3
    assert result["base"]["strict_accuracy"]["value"] == 0
    assert result["base"]["lenient_accuracy"]["value"] == pytest.approx(1 / 3)
    assert result["base"]["truncated"] == pytest.approx(1 / 3)
    assert result["base"]["reasoning_tokens"] == {"mean": None, "n": 0}
    assert result["trained"]["strict_accuracy"]["value"] == pytest.approx(2 / 3)
    assert result["trained"]["format_adherence"]["value"] == 1
    assert result["trained"]["reasoning_tokens"] == {"mean": 7, "n": 3}
    assert result["paired"]["strict_accuracy"]["difference"] == pytest.approx(2 / 3)
    assert result["paired"]["lenient_accuracy"]["difference"] == pytest.approx(1 / 3)


def test_a_completion_without_its_prompt_is_named() -> None:
    with pytest.raises(InputError, match="completion of 'a' in the set 'test' has no prompt"):
        grade(COMPLETIONS, {}, "en")


def test_comparing_pairs_rows_by_id_whatever_their_order() -> None:
    first = grade(COMPLETIONS, GOLDS, "en")
    better = grade([{**row, "trained": answered(schema(5), 6)} for row in COMPLETIONS], GOLDS, "en")
    result = compare(first, better[::-1])
    assert result["n"] == 3
    assert result["strict_accuracy"]["difference"] == pytest.approx(1 / 3)
    assert result["strict_accuracy"]["a"]["value"] == pytest.approx(2 / 3)


def test_runs_on_different_rows_are_not_compared() -> None:
    rows = grade(COMPLETIONS, GOLDS, "en")
    with pytest.raises(InputError, match=r"different rows \(1 unpaired, 'c' first\)"):
        compare(rows, rows[:2])
