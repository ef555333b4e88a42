"""Pairs of a chosen and a rejected answer: worked by hand, and against the statistics of other tests."""

import math
from typing import Any

import pytest
from scipy.stats import binomtest

from grpo_cot.common.errors import InputError
from grpo_cot.grading.comparison import compare
from grpo_cot.grading.grade import grade, metrics
from grpo_cot.grading.pairs import pair_figures


def prediction(*, base: tuple[float | None, float], trained: tuple[float, float]) -> dict[str, Any]:
    names = ("gold_log_likelihood", "rejected_log_likelihood")
    return {model: dict(zip(names, pair, strict=True)) for model, pair in (("base", base), ("trained", trained))}


def test_figures_equal_those_worked_by_hand() -> None:
    figures = pair_figures(
        [
            prediction(base=(-3.0, -4.0), trained=(-2.0, -6.0)),  # right, and right by more
            prediction(base=(-5.0, -4.0), trained=(-4.0, -4.5)),  # wrong, then right
            prediction(base=(-4.0, -4.0), trained=(-9.0, -8.5)),  # equal counts as wrong; then wrong
            prediction(base=(None, -1.0), trained=(-1.0, -1.0)),  # longer than the model's positions: none
        ]
    )
    assert figures
    assert [figures[model]["pair_accuracy"]["value"] for model in ("base", "trained")] == pytest.approx([1 / 3, 2 / 3])
    assert figures["base"]["pair_margin"]["value"] == pytest.approx(0)
    assert figures["trained"]["pair_margin"]["value"] == pytest.approx((4 + 0.5 - 0.5) / 3)
    reward = figures["implicit_reward"]
    assert (reward["n"], reward["accuracy"]["value"]) == (3, pytest.approx(2 / 3))
    assert reward["margin"]["value"] == pytest.approx((3 + 1.5 - 0.5) / 3)
    assert figures["paired"]["difference"] == pytest.approx(1 / 3)


def test_the_change_is_paired_and_has_mcnemars_p() -> None:
    won = [prediction(base=(-2.0, -1.0), trained=(-1.0, -2.0))] * 12
    lost = [prediction(base=(-1.0, -2.0), trained=(-2.0, -1.0))] * 3
    figures = pair_figures([*won, *lost])
    assert figures
    assert figures["paired"]["p"] == pytest.approx(binomtest(12, 15).pvalue)
    assert figures["paired"]["difference"] == pytest.approx(9 / 15)
    assert 0 < figures["paired"]["low"] < 9 / 15 < figures["paired"]["high"] < 1


def completion(gold: float, **more: float) -> dict[str, Any]:
    return {
        "completion": "<reasoning>\n1 + 1 = 2\n</reasoning>\n<answer>\n2\n</answer>", "thought": None, "tokens": 9,
        "reasoning_tokens": 5, "truncated": False, "gold_log_likelihood": gold, "gold_tokens": 9, "samples": None,
        **more,
    }  # fmt: skip


@pytest.mark.parametrize("pairs", [True, False])
def test_metrics_have_the_figures_of_pairs_where_rows_are_pairs(pairs: bool) -> None:
    rejected = [{"rejected_log_likelihood": value, "rejected_tokens": 8} if pairs else {} for value in (-3.0, -5.0)]
    rows = [
        {"id": f"test-{n}", "set": "test", "before": None, "base": completion(-4.0, **rejected[0]),
         "trained": completion(-2.0, **rejected[1])}
        for n in range(4)
    ]  # fmt: skip
    problem: dict[str, Any] = {"gold": "2", "locale": "en", "solution": None}
    figures = metrics(grade(rows, {("test", row["id"]): problem for row in rows}))
    assert figures["trained"]["strict_accuracy"]["value"] == 1
    assert figures["trained"]["perplexity"]["value"] == pytest.approx(math.exp(2 / 9))
    if not pairs:
        assert "implicit_reward" not in figures and "pair_accuracy" not in figures["base"]
        return
    assert [figures[model]["pair_accuracy"]["value"] for model in ("base", "trained")] == [0, 1]
    assert figures["paired"]["pair_accuracy"]["difference"] == 1
    assert figures["implicit_reward"]["margin"]["value"] == pytest.approx(4)


def test_rows_without_final_answers_are_ranked_and_compared_and_have_no_accuracy() -> None:
    def predictions(trained: float) -> list[dict[str, Any]]:
        rows = [
            {"id": f"test-{n}", "set": "test", "before": None,
             "base": completion(-4.0, rejected_log_likelihood=-3.0, rejected_tokens=8),
             "trained": completion(trained, rejected_log_likelihood=-3.0, rejected_tokens=8)}
            for n in range(8)
        ]  # fmt: skip
        problem: dict[str, Any] = {"gold": None, "locale": "en", "solution": None}
        return grade(rows, {("test", row["id"]): problem for row in rows})

    better, worse = predictions(-2.0), predictions(-5.0)
    figures = metrics(better)
    assert [figures["trained"][name] for name in ("strict_accuracy", "unread", "harness", "pass_at")] == [None] * 4
    assert set(figures["paired"]) == {"pair_accuracy"} and figures["warnings"] == []
    assert figures["trained"]["completion_tokens"]["value"] == 9
    result = compare(worse, better)
    assert "strict_accuracy" not in result and result["unread"] is None
    assert (result["pair_accuracy"]["a"]["value"], result["pair_accuracy"]["b"]["value"]) == (0, 1)
    assert result["pair_accuracy"]["difference"] == 1 and result["pair_accuracy"]["p"] == pytest.approx(2 / 2**8)
    for rows in (worse, better):
        rows[0]["trained"] = rows[0]["trained"] | {"rejected_log_likelihood": None}  # longer than the positions
    assert compare(worse, better)["pair_accuracy"]["n"] == metrics(better)["implicit_reward"]["n"] == 7
    for row in better:
        row["trained"] = row["trained"] | {"rejected_log_likelihood": None}
    with pytest.raises(InputError, match="the set 'test' has no final answers, and none of its rows is a pair"):
        metrics(better)
    with pytest.raises(InputError, match=r"different rows \(1 unpaired, 'test-7' first\)"):
        compare(worse, better[:7])
