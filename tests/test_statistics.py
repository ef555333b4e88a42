"""Intervals, tests and estimators against published figures, other libraries and brute force, and at the edges."""

import doctest
import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, ttest_rel
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from grpo_cot import statistics
from grpo_cot.statistics import (
    bootstrap_interval,
    detectable_difference,
    in_points,
    majority_at,
    mcnemar,
    pass_at,
    t_interval,
    wilson_interval,
)


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


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 1), (47, 100), (659, 1319), (7473, 7473)])
def test_wilson_interval_is_statsmodels(successes: int, n: int) -> None:
    expected = proportion_confint(successes, n, alpha=0.05, method="wilson")
    assert wilson_interval(successes, n)[1:] == pytest.approx(expected, abs=1e-9)


def test_confidence_widens_the_interval() -> None:
    narrow, wide = wilson_interval(47, 100, confidence=0.9), wilson_interval(47, 100, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    pair = paired(20, 2, 12, 16)
    narrow, wide = mcnemar(*pair, confidence=0.9), mcnemar(*pair, confidence=0.99)
    assert wide.low < narrow.low < mcnemar(*pair).difference < narrow.high < wide.high
    figures = np.arange(100)
    half, most = (bootstrap_interval(np.mean, figures, confidence=confidence) for confidence in (0.5, 0.99))
    assert most.low < half.low < half.high < most.high


@pytest.mark.parametrize(
    ("successes", "n", "says"), [(0, 0, "expected at least one question"), (3, 2, None), (-1, 2, None)]
)
def test_impossible_counts(successes: int, n: int, says: str | None) -> None:
    with pytest.raises(ValueError, match=says):
        wilson_interval(successes, n)


def test_a_correlation_that_one_question_makes_is_corrected_away() -> None:
    """Method 10 takes half the number of questions from a positive covariance, at most all of it."""
    limits = wilson_interval(1, 2)
    result = mcnemar(*paired(1, 0, 0, 1))
    assert (-result.low, result.high) == pytest.approx([math.hypot(0.5 - limits.low, limits.high - 0.5)] * 2)


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
    # No correlation can be told from verdicts that never vary: both limits count in full.
    for confidence in (0.95, 0.8):
        limits = wilson_interval(10, 10, confidence).low, wilson_interval(0, 10, confidence).high
        low = mcnemar(*paired(0, 0, 10, 0), confidence).low
        assert low == pytest.approx(1 - math.hypot(1 - limits[0], limits[1]))
    assert result.p == pytest.approx(2 / 2**10)


@pytest.mark.parametrize(("base", "trained"), [([], []), ([True], [True, False])])
def test_verdicts_must_pair_up(base: list[bool], trained: list[bool]) -> None:
    with pytest.raises(ValueError):
        mcnemar(base, trained)


@pytest.mark.parametrize(
    "table", [(20, 2, 12, 16), (1, 1, 7, 12), (5, 0, 3, 2), (400, 90, 130, 699), (0, 4000, 4100, 0)]
)
def test_mcnemar_is_statsmodels_exact_test(table: tuple[int, int, int, int]) -> None:
    both, lost, gained, neither = table
    expected = statsmodels_mcnemar([[both, lost], [gained, neither]], exact=True).pvalue
    assert mcnemar(*paired(*table)).p == pytest.approx(expected, abs=1e-9)


def test_bootstrap_resamples_whole_problems_and_takes_percentiles() -> None:
    rng = np.random.default_rng(7)
    likelihoods, tokens = -rng.uniform(10, 90, 300), rng.integers(5, 60, 300)

    def perplexity(likelihoods: np.ndarray, tokens: np.ndarray, axis: int) -> np.ndarray:
        return np.exp(-likelihoods.sum(axis=axis) / tokens.sum(axis=axis))

    drawn = np.random.default_rng(0).integers(0, 300, (1000, 300))
    resampled = [math.exp(-likelihoods[rows].sum() / tokens[rows].sum()) for rows in drawn]
    interval = bootstrap_interval(perplexity, likelihoods, tokens)
    assert interval.value == pytest.approx(math.exp(-likelihoods.sum() / tokens.sum()), abs=1e-9)
    assert (interval.low, interval.high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=1e-9)


def test_bootstrap_of_many_problems_agrees_with_the_normal_interval() -> None:
    figures = np.random.default_rng(1).uniform(0, 1, 20_000)
    interval = bootstrap_interval(np.mean, figures)
    error = 1.96 * figures.std() / math.sqrt(len(figures))
    assert (interval.low, interval.high) == pytest.approx((figures.mean() - error, figures.mean() + error), abs=3e-4)
    assert bootstrap_interval(np.mean, figures) == interval  # seeded


def test_one_problem_has_no_interval_and_two_have_one() -> None:
    assert bootstrap_interval(np.mean, [3]) == (3, None, None)
    assert bootstrap_interval(np.mean, [0, 1]) == (0.5, 0, 1)


def test_verdicts_are_resampled_as_numbers() -> None:
    """NumPy subtracts no truth values."""
    before, after = [True] * 30 + [False] * 70, [True] * 60 + [False] * 40

    def gain(before: np.ndarray, after: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(after - before, axis=axis)

    assert bootstrap_interval(gain, before, after) == pytest.approx((0.3, 0.21, 0.39), abs=0.03)


@pytest.mark.parametrize(("problems", "limit"), [(20_000, statistics._RESAMPLED_AT_ONCE), (150, 100)])
def test_resampling_needs_little_memory_however_many_problems_there_are(
    monkeypatch: pytest.MonkeyPatch, problems: int, limit: int
) -> None:
    monkeypatch.setattr(statistics, "_RESAMPLED_AT_ONCE", limit)
    sizes = []

    def mean(figures: np.ndarray, axis: int) -> np.ndarray:
        sizes.append(figures.size)
        return np.mean(figures, axis=axis)

    bootstrap_interval(mean, np.arange(problems))
    assert max(sizes) == max(limit, problems)  # no less than one resample


@pytest.mark.parametrize(("n", "discordant"), [(30, 0.5), (100, 0.4), (500, 0.3), (1319, 0.1), (1319, 1.0)])
def test_a_detectable_difference_needs_as_many_questions_as_there_are(n: int, discordant: float) -> None:
    d = detectable_difference(n, discordant)
    assert d is not None and d < discordant
    needed = (1.959964 * math.sqrt(discordant) + 0.841621 * math.sqrt(discordant - d**2)) ** 2 / d**2
    assert needed == pytest.approx(n, rel=1e-5)


def test_a_detectable_difference_is_detected_four_times_in_five() -> None:
    """The exact test's power, summed over all outcomes: a little below that of the formula's large-sample test."""
    n, discordant = 1000, 0.3
    d = detectable_difference(n, discordant)
    assert d is not None
    differing = np.arange(n + 1)
    gained_share = (discordant + d) / (2 * discordant)
    least = binom.ppf(0.025, differing, 0.5)  # with fewer on one side, p is below 0.05
    critical = np.where(2 * binom.cdf(least, differing, 0.5) <= 0.05, least, least - 1)
    rejected = binom.cdf(critical, differing, 1 - gained_share) + binom.cdf(critical, differing, gained_share)
    power = float((binom.pmf(differing, n, discordant) * rejected).sum())
    assert 0.77 < power < 0.81


def test_few_differing_answers_leave_no_room_for_a_difference() -> None:
    """With almost none observed, the least difference is one that would make all differing answers go one way."""
    least = detectable_difference(500, 0.0)
    assert least == detectable_difference(500, 0.001) and 0.01 < least < 0.02
    assert detectable_difference(4, 0.5) is not None and detectable_difference(3, 0.5) is None


def test_t_interval_is_scipys_paired_test() -> None:
    trained, placebo = [0.71, 0.66, 0.74, 0.69], [0.30, 0.33, 0.28, 0.36]
    found = t_interval([after - before for after, before in zip(trained, placebo, strict=True)])
    expected = ttest_rel(trained, placebo)
    interval = expected.confidence_interval(0.95)
    assert found == pytest.approx((np.mean(trained) - np.mean(placebo), *interval, expected.pvalue), abs=1e-9)


def test_two_runs_that_differ_have_an_interval() -> None:
    found = t_interval([0.1, 0.3])
    assert (found.difference, (found.high - found.low) / 2) == pytest.approx((0.2, 12.7062 * 0.1), abs=1e-4)


@pytest.mark.parametrize("differences", [[], [0.2], [0.2, 0.2, 0.2]])
def test_runs_without_a_spread_have_no_t_interval(differences: list[float]) -> None:
    with pytest.raises(ValueError, match="two runs that differ"):
        t_interval(differences)


def subsets_mean(k: int, samples: Sequence[str | None], verdict: str) -> float:
    """The mean over all k-subsets: a right one among them (`pass`), or the vote's expected verdict (`majority`)."""
    total = 0.0
    for subset in combinations(samples, k):
        if verdict == "pass":
            total += "right" in subset
        elif votes := Counter(answer for answer in subset if answer):
            leading = [answer for answer in votes if votes[answer] == max(votes.values())]
            total += ("right" in leading) / len(leading)
    return total / math.comb(len(samples), k)


def draws() -> list[tuple[int, int, list[int], int]]:
    """k, right, wrong, silent: all of them at once, none at all, and at random up to eleven samples."""
    rng = random.Random(0)
    cases = [(1, 1, [], 0), (5, 0, [3, 2], 0), (3, 0, [], 3), (4, 2, [2], 0), (6, 2, [2, 2], 0), (9, 3, [1] * 6, 0)]
    for _ in range(200):
        right, wrong, silent = (
            rng.randint(0, 5),
            [rng.randint(1, 3) for _ in range(rng.randint(0, 2))],
            rng.randint(0, 2),
        )
        if n := right + sum(wrong) + silent:
            cases.append((rng.randint(1, n), right, wrong, silent))
    return cases


def test_pass_at_k_is_the_mean_over_all_subsets() -> None:
    for k, right, wrong, silent in draws():
        samples = ["right"] * right + ["wrong"] * (sum(wrong) + silent)
        assert pass_at(k, len(samples), right) == pytest.approx(subsets_mean(k, samples, "pass"), abs=1e-9)


def test_pass_at_k_is_the_published_formula_and_stays_exact_for_many_samples() -> None:
    for n, right, k in [(100, 37, 10), (1000, 3, 500), (5000, 20, 100)]:
        expected = 1 - math.comb(n - right, k) / math.comb(n, k)  # exact integers, which the formula's floats are not
        assert pass_at(k, n, right) == pytest.approx(expected, abs=1e-9)


def test_majority_at_k_is_the_mean_over_all_subsets() -> None:
    errors = []
    for k, right, wrong, silent in draws():
        answers = [f"wrong {number}" for number, count in enumerate(wrong) for _ in range(count)]
        samples = ["right"] * right + answers + [None] * silent
        expected = subsets_mean(k, samples, "majority")
        found = majority_at(k, right, wrong, silent)
        errors.append(found - expected)
        assert found == pytest.approx(expected, abs=0.064), (k, right, wrong, silent)  # four standard errors
    assert abs(np.mean(errors)) < 0.002


def test_a_sets_majority_is_off_by_less_than_its_interval_shows() -> None:
    """Each problem has draws of its own, so that their errors average out."""
    from grpo_cot.grading.grade import metrics

    figures = metrics([prediction(number, right=1 + number % 7) for number in range(200)])["trained"]["majority_at"]
    for k in (2, 4):
        exact = [
            subsets_mean(k, ["right"] * (1 + number % 7) + ["wrong"] * (7 - number % 7), "majority")
            for number in range(7)
        ]
        expected = np.mean([exact[number % 7] for number in range(200)])
        assert figures[str(k)]["value"] == pytest.approx(expected, abs=0.004)


def prediction(number: int, right: int) -> dict[str, Any]:
    """A graded problem with eight samples, the first of them right."""
    answers = ["5"] * right + ["6"] * (8 - right)
    model = {
        "completion": "5", "strict_correct": True, "lenient_correct": True, "numeric": "5", "format": True,
        "strict_match": False, "flexible_extract": True, "tokens": 1, "reasoning_tokens": None,
        "truncated": False, "sound": None, "rouge": None, "gold_log_likelihood": None, "gold_tokens": None,
        "samples_strict": answers, "majority": right > 4, "samples_correct": [answer == "5" for answer in answers],
    }  # fmt: skip
    row = {"id": str(number), "set": "test", "before": None, "gold": "5", "solution": None, "difficulty": None}
    return row | {"base": model, "trained": model}


def test_majority_at_k_of_two_answers_is_hypergeometric() -> None:
    """Where all samples give one of two answers, the vote is a hypergeometric tail with half of the tie."""
    n, right, k = 400, 190, 100
    shares = [math.comb(right, v) * math.comb(n - right, k - v) / math.comb(n, k) for v in range(k + 1)]
    assert majority_at(k, right, [n - right]) == pytest.approx(sum(shares[51:]) + shares[50] / 2, abs=0.064)


@pytest.mark.parametrize(("k", "right", "wrong"), [(0, 1, [1]), (3, 1, [1]), (1, 0, [])])
def test_more_samples_than_there_are_cannot_be_drawn(k: int, right: int, wrong: list[int]) -> None:
    with pytest.raises(ValueError):
        majority_at(k, right, wrong)
    with pytest.raises(ValueError):
        pass_at(k, right + sum(wrong), right)


@pytest.mark.parametrize("right", [-1, 5])
def test_more_right_samples_than_there_are_is_an_error(right: int) -> None:
    with pytest.raises(ValueError, match=f"0 <= right <= n, found k = 2, n = 4, right = {right}"):
        pass_at(2, 4, right)


def test_a_vote_repeats_with_its_seed_and_another_seed_draws_anew() -> None:
    draws = [majority_at(9, 40, [30, 20], seed=seed) for seed in (3, 3, 4, 5)]
    assert draws[0] == draws[1] and len(set(draws)) > 1


def test_a_difference_is_told_in_points() -> None:
    told = in_points({"difference": 0.2, "low": -0.0561, "high": 0.329, "p": 0.01292})
    assert told == "+20.0 points [-5.6, +32.9], p = 0.013"
