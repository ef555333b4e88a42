"""A study's claims: every outcome, from data that lead to it."""

from typing import Any

import pytest
from graded import metrics

from grpo_cot.params import Run
from grpo_cot.reporting.claims import claims
from grpo_cot.reporting.tables import Result

COST = "Does the length reward cost accuracy?"
SHORTER = "Does the length reward shorten completions?"
LONGER = "At one difficulty, are the longer completions right more often?"
STRUCTURE = "Does the training improve the structure of the answers?"


def result(arm: str, seed: int, family: str = "tiny-", **figures: Any) -> Result:
    line = Run(recipe=f"{family}{arm}", dataset="generated", base="tiny", image="cpu", seed=seed)
    return Result(f"{family}{arm}-{seed}", line, None, None, {**metrics(0.2, 0.5), **figures})


def compared(changes: list[float], measure: str = "strict_accuracy") -> tuple[list[Result], list[dict[str, Any]]]:
    """length-cosine minus length-standard, one difference a seed."""
    results = [result(arm, seed) for seed in range(len(changes)) for arm in ("length-standard", "length-cosine")]
    comparisons = [
        {
            "a": f"tiny-length-standard-{seed}", "b": f"tiny-length-cosine-{seed}",
            measure: {"difference": change, "low": change - 0.05, "high": change + 0.05},
        }
        for seed, change in enumerate(changes)
    ]  # fmt: skip
    return results, comparisons


def entry(question: str, results: list[Result], comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    [found] = [claim for claim in claims(results, comparisons) if claim["question"] == question]
    return found


@pytest.mark.parametrize(
    ("changes", "outcome", "words"),
    [
        ([-0.06, -0.05, -0.07], "holds", "6.0 points lower than with tiny-length-standard"),
        ([0.06, 0.05, 0.07], "contradicted", "6.0 points higher than with tiny-length-standard"),
        ([-0.06, 0.05, 0.02], "undecided", "includes no difference, and excludes more than"),
        ([-0.06], "holds", "Over one seed"),  # by the interval over problems
        ([-0.04], "undecided", "95 % interval -9.0 to +1.0"),
        ([-0.06, -0.06], "undecided", "the seeds do not differ"),
    ],
)
def test_the_numbers_decide_a_claim(changes: list[float], outcome: str, words: str) -> None:
    claim = entry(COST, *compared(changes))
    assert (claim["outcome"], claim["recipes"]) == (outcome, ("tiny-length-standard", "tiny-length-cosine"))
    assert words in claim["sentence"]


def test_lengths_are_in_tokens() -> None:
    claim = entry(SHORTER, *compared([-20.0, -22.0, -24.0], "completion_tokens"))
    assert claim["outcome"] == "holds" and "22.0 tokens shorter" in claim["sentence"]


def test_a_claim_without_runs_is_not_run_and_one_with_two_families_is_decided_twice() -> None:
    assert {claim["outcome"] for claim in claims([], [])} == {"not run"}
    results, comparisons = compared([-0.06, -0.05])
    other = [result(arm, 0, family="laptop-") for arm in ("length-standard", "length-cosine")]
    more = {**comparisons[0], "a": "laptop-length-standard-0", "b": "laptop-length-cosine-0"}
    found = [claim for claim in claims([*results, *other], [*comparisons, more]) if claim["question"] == COST]
    assert [claim["recipes"][0] for claim in found] == ["laptop-length-standard", "tiny-length-standard"]


def test_arms_of_two_seeds_or_two_families_are_not_compared() -> None:
    results, [comparison] = compared([-0.06])
    strangers = [result("length-cosine", 7), result("length-cosine", 0, family="laptop-")]
    for stranger in strangers:
        mixed = {**comparison, "b": stranger.name}
        assert entry(COST, [*results, *strangers], [mixed])["outcome"] == "not run"
    assert (
        entry(COST, [result("length-cosine-g6", 0), *results], [{**comparison, "b": "tiny-length-cosine-g6-0"}])[
            "outcome"
        ]
        == "not run"
    )  # another arm


@pytest.mark.parametrize(
    ("values", "outcome", "words"),
    [
        ([0.7, 0.72, 0.74], "holds", "22.0 points above one half"),
        ([0.3, 0.28, 0.26], "contradicted", "22.0 points below one half"),
        ([0.4, 0.6, 0.5], "undecided", "includes no difference, and excludes more than"),
    ],
)
def test_length_and_accuracy_are_decided_within_a_difficulty(values: list[float], outcome: str, words: str) -> None:
    results = [
        result("length-standard", seed, length_and_accuracy={
            "trained": {"pooled": None, "within": {"value": value, "low": value - 0.1, "high": value + 0.1, "pairs": 9}}
        })
        for seed, value in enumerate(values)
    ]  # fmt: skip
    claim = entry(LONGER, results, [])
    assert claim["outcome"] == outcome and words in claim["sentence"]
    assert entry(LONGER, [result("length-standard", 0, length_and_accuracy=None)], [])["outcome"] == "not run"


@pytest.mark.parametrize(("after", "outcome"), [(0.99, "holds"), (0.3, "contradicted"), (0.62, "undecided")])
def test_the_gain_in_structure_is_trained_minus_base(after: float, outcome: str) -> None:
    figures = metrics(0.2, 0.5)
    figures["base"]["format_adherence"] = {"value": 0.6, "low": 0.55, "high": 0.65}
    figures["trained"]["format_adherence"] = {"value": after, "low": after - 0.02, "high": after + 0.01}
    claim = entry(STRUCTURE, [result("length-standard", 0, **figures)], [])
    assert claim["outcome"] == outcome
