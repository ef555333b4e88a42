"""Difficulty, and length against accuracy."""

from typing import Any

import pytest
from scipy.stats import mannwhitneyu

from grpo_cot.common.files import Row
from grpo_cot.grading.comparison import compare
from grpo_cot.grading.grade import grade, metrics
from grpo_cot.grading.lengths import by_difficulty, difficulty, length_and_accuracy
from grpo_cot.statistics import concordance


def prediction(level: int | None, base: tuple[bool, int], trained: tuple[bool, int], gold: str | None = "5") -> Row:
    models = {
        name: {"strict_correct": right, "lenient_correct": right, "tokens": tokens}
        for name, (right, tokens) in (("base", base), ("trained", trained))
    }
    return {"gold": gold, "difficulty": level, **models}


def test_difficulty_counts_the_calculations_that_a_solution_shows() -> None:
    assert difficulty("He has 48/2 = <<48/2=24>>24 clips.\n48+24 = <<48+24=72>>72") == 2  # not the equals signs beside
    assert difficulty("17 * 3 = 51\n51 - 15 = 36\n36 + 1 = 37") == 3
    assert [difficulty(text) for text in ("The answer is 5.", "", None)] == [None, None, None]


def test_each_difficulty_has_its_own_figures_and_problems_without_one_are_in_none() -> None:
    rows = [
        prediction(2, (False, 10), (True, 30)), prediction(1, (True, 8), (True, 12)),
        prediction(2, (False, 20), (True, 40)), prediction(None, (True, 99), (False, 99)),
    ]  # fmt: skip
    easy, hard = by_difficulty(rows) or []
    assert (easy["difficulty"], easy["n"], hard["difficulty"], hard["n"]) == (1, 1, 2, 2)
    assert (hard["base"]["strict_accuracy"]["value"], hard["trained"]["strict_accuracy"]["value"]) == (0, 1)
    assert (hard["base"]["completion_tokens"]["value"], hard["trained"]["completion_tokens"]["value"]) == (15, 35)
    assert hard["paired"]["strict_accuracy"]["difference"] == 1
    assert by_difficulty([prediction(None, (True, 1), (True, 1))]) is None


def test_length_that_goes_with_difficulty_alone_tells_nothing_within_one_difficulty() -> None:
    """Easy problems: short, mostly right. Hard ones: long, mostly wrong. At one difficulty both are alike."""
    rows = [
        prediction(1, (right, tokens), (right, tokens)) for right in (True, True, True, False) for tokens in (10, 12)
    ]
    rows += [prediction(3, (right, tokens), (right, tokens)) for right in (True, False, False) for tokens in (40, 44)]
    figures = (length_and_accuracy(rows) or {})["trained"]
    assert figures["within"]["value"] == 0.5 and figures["within"]["pairs"] == 6 * 2 + 2 * 4
    assert figures["pooled"]["value"] < 0.4


def test_length_and_accuracy_are_of_rows_with_final_answers_and_need_both_verdicts() -> None:
    assert length_and_accuracy([prediction(1, (True, 5), (True, 5), gold=None)]) is None
    figures = length_and_accuracy([prediction(1, (True, 5), (True, 5)), prediction(1, (False, 4), (True, 9))]) or {}
    assert figures["trained"] == {"pooled": None, "within": None}
    assert figures["base"]["pooled"]["value"] == 1.0


def test_concordance_is_the_mann_whitney_statistic_with_delongs_interval() -> None:
    first, second = [1.0, 2.0, 2.0, 5.0, 7.0], [2.0, 3.0, 5.0, 8.0, 9.0, 9.0]
    figure = concordance([(first, second)]) or {}
    assert figure["value"] == pytest.approx(mannwhitneyu(second, first).statistic / 30)
    # By hand: shares of first figures below each second one (ties one half), and the other way round.
    above = [sum((a < b) + 0.5 * (a == b) for a in first) / 5 for b in second]
    below = [sum((a < b) + 0.5 * (a == b) for b in second) / 6 for a in first]

    def variance(shares: list[float]) -> float:
        middle = sum(shares) / len(shares)
        return sum((one - middle) ** 2 for one in shares) / (len(shares) - 1) / len(shares)

    reach = 1.959964 * (variance(above) + variance(below)) ** 0.5
    assert figure["low"] == pytest.approx(figure["value"] - reach) and figure["high"] == pytest.approx(
        min(figure["value"] + reach, 1)
    )


def test_strata_are_weighted_by_their_pairs_and_an_empty_one_has_none() -> None:
    figure = concordance([([1, 2], [3]), ([5, 5, 5], [4]), ([], [1, 2])]) or {}
    assert (figure["value"], figure["pairs"]) == (pytest.approx((2 * 1 + 3 * 0) / 5), 5)
    assert concordance([([], [1])]) is None
    assert (concordance([([1, 1], [2, 2])]) or {})["low"] is None  # all pairs alike: no spread to judge by


def graded(tokens: list[int], form: bool) -> list[Row]:
    text = "<reasoning>\n2 + 3 = 5\n</reasoning>\n<answer>\n5\n</answer>" if form else "5"
    answer: dict[str, Any] = {
        "completion": text, "reasoning_tokens": None, "truncated": False, "gold_log_likelihood": None,
        "gold_tokens": None, "samples": None,
    }  # fmt: skip
    rows = [
        {
            "id": str(n),
            "set": "test",
            "before": None,
            "base": answer | {"tokens": 1},
            "trained": answer | {"tokens": size},
        }
        for n, size in enumerate(tokens)
    ]
    problems = {("test", row["id"]): {"gold": "5", "locale": "en", "solution": "2 + 3 = 5"} for row in rows}
    return grade(rows, problems)


def test_two_runs_are_compared_in_format_and_in_length_as_well() -> None:
    comparison = compare(graded([10, 20, 30], form=False), graded([4, 10, 28], form=True))
    assert comparison["format_adherence"]["difference"] == 1
    length = comparison["completion_tokens"]
    assert (length["a"], length["b"], length["difference"]) == (20, 14, -6)
    assert length["low"] < -6 < length["high"]
    assert compare(graded([3, 4], form=True), graded([5, 6], form=True))["completion_tokens"]["low"] is None


def test_metrics_carry_both() -> None:
    figures = metrics(graded([10, 20], form=True))
    assert figures["by_difficulty"][0]["difficulty"] == 1
    assert figures["length_and_accuracy"]["base"] == {"pooled": None, "within": None}
