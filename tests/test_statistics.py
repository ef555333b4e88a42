"""Intervals and tests against published figures, and at the edges."""

import doctest

import pytest

from grpo_cot import statistics
from grpo_cot.statistics import mcnemar, wilson_interval


def paired(both: int, lost: int, gained: int, neither: int) -> tuple[list[bool], list[bool]]:
    base = [True] * (both + lost) + [False] * (gained + neither)
    trained = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return base, trained


def test_doctests() -> None:
    assert doctest.testmod(statistics).failed == 0


@pytest.mark.parametrize(
    ("successes", "low", "high"), [(47, 0.375, 0.567), (67, 0.573, 0.754), (0, 0, 0.037), (100, 0.963, 1)]
)
def test_wilson_interval(successes: int, low: float, high: float) -> None:
    assert wilson_interval(successes, 100) == pytest.approx((successes / 100, low, high), abs=6e-4)


def test_confidence_widens_the_interval() -> None:
    narrow, wide = wilson_interval(47, 100, confidence=0.9), wilson_interval(47, 100, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError):
        wilson_interval(successes, n)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ((20, 2, 12, 16), (0.200, 0.056, 0.329, 0.0129)),  # Altman et al., Statistics with Confidence, 2nd ed., p. 52
        ((1, 1, 7, 12), (0.286, 0.026, 0.507, 0.0703)),  # Fagerland, Lydersen, Laake, Stat. Med. 33 (2014), table 1
    ],
)
def test_mcnemar_reproduces_published_examples(
    table: tuple[int, int, int, int], expected: tuple[float, float, float, float]
) -> None:
    assert mcnemar(*paired(*table)) == pytest.approx(expected, abs=6e-4)


def test_exchanging_the_models_changes_the_sign_only() -> None:
    base, trained = paired(20, 2, 12, 16)
    forth, back = mcnemar(base, trained), mcnemar(trained, base)
    assert (back.difference, back.low, back.high, back.p) == pytest.approx(
        (-forth.difference, -forth.high, -forth.low, forth.p)
    )


@pytest.mark.parametrize("table", [(5, 0, 0, 5), (10, 0, 0, 0), (0, 0, 0, 10)])
def test_identical_verdicts_show_no_difference(table: tuple[int, int, int, int]) -> None:
    result = mcnemar(*paired(*table))
    assert result.difference == 0
    assert result.p == 1
    assert result.low <= 0 <= result.high


def test_a_complete_change() -> None:
    result = mcnemar(*paired(0, 0, 10, 0))
    assert result.difference == result.high == 1
    assert result.p == pytest.approx(2 / 2**10)


@pytest.mark.parametrize(("base", "trained"), [([], []), ([True], [True, False])])
def test_verdicts_must_pair_up(base: list[bool], trained: list[bool]) -> None:
    with pytest.raises(ValueError):
        mcnemar(base, trained)
