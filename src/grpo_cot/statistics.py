"""Intervals, tests and estimators: one model's figures, two models' on the same problems, several runs', many samples'.

Nothing here knows a metric's name. Confidence is 95 % unless asked otherwise.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 1000  # of every bootstrap
_RESAMPLED_AT_ONCE = 1_000_000  # numbers, so that memory stays flat however many problems there are


class Proportion(NamedTuple):
    """A proportion and its confidence interval."""

    value: float
    low: float
    high: float


class Interval(NamedTuple):
    """A figure over problems and its confidence interval, which one problem alone does not have."""

    value: float
    low: float | None
    high: float | None


class PairedDifference(NamedTuple):
    """A difference of two figures (trained minus base), its confidence interval, and p of the test that it is 0."""

    difference: float
    low: float
    high: float
    p: float


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Proportion:
    """A proportion with Wilson's score interval (1927), which keeps its coverage near 0 and 1 and for small samples.

    Raises:
        ValueError: n is 0, or successes are not within 0..n.

    >>> [round(figure, 3) for figure in wilson_interval(47, 100)]
    [0.47, 0.375, 0.567]
    """
    from scipy.stats import binomtest  # here, because importing it takes a second

    if n < 1:
        raise ValueError("expected at least one question, found none")
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Proportion(successes / n, float(interval.low), float(interval.high))


def bootstrap_interval(
    statistic: Callable[..., Any], *columns: ArrayLike, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """A figure with its percentile bootstrap interval over problems (Efron, 1979): 1,000 seeded resamples.

    Args:
        statistic: of columns and `axis`, vectorised: `numpy.mean`, for example.
        columns: one number a problem each, in the same order; a resample takes whole problems.

    >>> [round(figure, 3) for figure in bootstrap_interval(np.mean, [0, 1] * 50)]
    [0.5, 0.4, 0.6]
    """
    from scipy.stats import bootstrap

    arrays = [np.asarray(column, dtype=float) for column in columns]
    value, n = float(statistic(*arrays, axis=-1)), len(arrays[0])
    if n < 2:
        return Interval(value, None, None)
    interval = bootstrap(
        arrays, statistic, paired=True, vectorized=True, method="percentile", confidence_level=confidence,
        n_resamples=RESAMPLES, batch=max(_RESAMPLED_AT_ONCE // n, 1), rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(value, float(interval.low), float(interval.high))


def mcnemar(base: Sequence[bool], trained: Sequence[bool], confidence: float = 0.95) -> PairedDifference:
    """Whether training changed the accuracy, from both models' verdicts on the same questions in the same order.

    p is McNemar's exact two-sided binomial test on the questions where the verdicts differ, whatever their number. The
    interval is Newcombe's hybrid score interval for paired proportions (Statistics in Medicine 17, 1998, 2635-2650,
    method 10): with Wilson limits l, u of the two accuracies and the verdicts' correlation φ,

        low  = difference - √((t - l_t)² - 2φ (t - l_t)(u_b - b) + (u_b - b)²)
        high = difference + √((u_t - t)² - 2φ (u_t - t)(b - l_b) + (b - l_b)²)

    Raises:
        ValueError: the sequences are empty or differ in length.

    >>> verdicts = [(True, True)] * 20 + [(True, False)] * 2 + [(False, True)] * 12 + [(False, False)] * 16
    >>> [round(figure, 3) for figure in mcnemar(*zip(*verdicts))]
    [0.2, 0.056, 0.329, 0.013]
    """
    from scipy.stats import binomtest

    counts = Counter((bool(before), bool(after)) for before, after in zip(base, trained, strict=True))
    both, lost, gained, neither = (counts[before, after] for before in (True, False) for after in (True, False))
    n = both + lost + gained + neither
    b, b_low, b_high = wilson_interval(both + lost, n, confidence)
    t, t_low, t_high = wilson_interval(both + gained, n, confidence)

    covariance = float(both * neither - lost * gained)
    if covariance > 0:  # method 10's continuity correction
        covariance = max(covariance - n / 2, 0.0)
    variances = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    correlation = covariance / math.sqrt(variances) if variances else 0.0

    def distance(of_trained: float, of_base: float) -> float:
        return math.sqrt(max(of_trained**2 - 2 * correlation * of_trained * of_base + of_base**2, 0.0))

    difference = (gained - lost) / n
    return PairedDifference(
        difference,
        difference - distance(t - t_low, b_high - b),
        difference + distance(t_high - t, b - b_low),
        float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
    )


def detectable_difference(n: int, discordant: float, power: float = 0.8, level: float = 0.05) -> float | None:
    """The smallest true difference of two models' accuracies that n paired questions show with this power.

    With a share ψ of questions on which the verdicts differ, McNemar's two-sided test at this level needs

        n = (z_level √ψ + z_power √(ψ - d²))² / d²

    questions to show the difference d (Connor, Biometrics 43, 1987, 207-211; normal approximation, so that the exact
    test needs a few more). Solved for d, that is √ψ r with

        r = (z_level √n + z_power √(n - z_level² + z_power²)) / (n + z_power²)

    A difference cannot exceed ψ: where √ψ r does, the least detectable one is r², with ψ = d.

    Args:
        n: questions.
        discordant: ψ, between 0 and 1: the observed share is the best guess there is.

    Returns:
        The difference, between 0 and 1; None where no difference would do (n below 4).

    >>> round(detectable_difference(500, 0.3), 4), detectable_difference(3, 0.3)
    (0.0685, None)
    """
    from scipy.special import ndtri

    z_level, z_power = float(ndtri(1 - level / 2)), float(ndtri(power))
    under_root = n - z_level**2 + z_power**2
    if under_root < 0:
        return None
    root = (z_level * math.sqrt(n) + z_power * math.sqrt(under_root)) / (n + z_power**2)
    return root * max(math.sqrt(discordant), root)


def t_interval(differences: Sequence[float], confidence: float = 0.95) -> PairedDifference:
    """The mean of several runs' figures with Student's t interval, and p of the t test that it is 0.

    For runs with several seeds: give each seed's difference of two figures (the paired t test). Unlike `mcnemar`, which
    sees one run's problems, it counts the change by another seed.

    Raises:
        ValueError: all runs are alike, or there is only one: no spread to judge by.

    >>> [round(figure, 3) for figure in t_interval([0.58, 0.518, 0.598])]
    [0.565, 0.461, 0.67, 0.002]
    """
    from scipy.stats import ttest_1samp

    if len(set(differences)) < 2:
        raise ValueError(f"expected at least two runs that differ, found {len(differences)} without a spread")
    test = ttest_1samp(differences, 0)
    interval = test.confidence_interval(confidence)
    return PairedDifference(float(np.mean(differences)), float(interval.low), float(interval.high), float(test.pvalue))


def pass_at(k: int, n: int, right: int) -> float:
    """The probability that k of a problem's n samples, drawn without replacement, hold a right one: pass@k.

    1 - C(n - right, k) / C(n, k), the unbiased estimator, as the numerically stable product of Chen et al. (2021,
    arXiv:2107.03374, figure 3).

    Raises:
        ValueError: k is not within 1..n, or right not within 0..n.

    >>> round(pass_at(1, 10, 3), 4), round(pass_at(5, 10, 3), 4)
    (0.3, 0.9167)
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"expected 1 <= k <= n and 0 <= right <= n, found k = {k}, n = {n}, right = {right}")
    return 1 - math.prod(1 - k / i for i in range(n - right + 1, n + 1))


def sampling_noise(draws: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Where the standard error of an accuracy comes from that is measured with one draw of each problem.

    `draws` has of each problem the number of completions and how many of them are right, at least two completions each.
    With p of a problem its share, k its completions and n problems, the law of total variance gives (Miller, 2024,
    "Adding Error Bars to Evals", arXiv:2411.00640)

        prediction² = mean(p (1 - p) k / (k - 1)) / n        data² = (var(p) - mean(p (1 - p) / (k - 1))) / n

    Returns:
        `data` (which problems were asked; 0 where it is estimated below) and `prediction` (what chance made of them).

    >>> {name: round(value, 4) for name, value in sampling_noise([(2, 2), (2, 0)] * 50).items()}
    {'data': 0.0503, 'prediction': 0.0}
    """
    n = len(draws)
    shares = np.array([right / count for count, right in draws])
    within = np.array([share * (1 - share) / (count - 1) for share, (count, _) in zip(shares, draws, strict=True)])
    prediction = float(np.mean(within * [count for count, _ in draws])) / n
    data = (float(np.var(shares, ddof=1)) - float(np.mean(within))) / n if n > 1 else 0.0
    return {"data": math.sqrt(max(data, 0.0)), "prediction": math.sqrt(prediction)}


def majority_at(k: int, right: int, wrong: Sequence[int], silent: int = 0, seed: int = 0) -> float:
    """The probability that k of a problem's samples, drawn without replacement, vote for the right answer: majority@k.

    The mean over 1,000 seeded draws, whose standard error for one problem is 0.016 at most. A tie is broken uniformly
    among the answers that lead; samples without an answer do not vote, and a draw without a vote is wrong.

    Args:
        k: samples drawn.
        right: samples with the right answer.
        wrong: how many samples each wrong answer has.
        silent: samples without an answer.

    Raises:
        ValueError: k is not within 1..n, n being the sum of all samples.

    >>> majority_at(1, 2, [1]), majority_at(3, 2, [1])
    (0.6666666666666666, 1.0)
    """
    counts = [right, *wrong, silent]
    n = sum(counts)
    if not 1 <= k <= n:
        raise ValueError(f"expected 1 <= k <= {n} samples, found k = {k}")
    if k == 1:
        return right / n
    votes = np.random.default_rng(seed).multivariate_hypergeometric(counts, k, RESAMPLES)[:, :-1]
    leading = votes == votes.max(axis=1, keepdims=True)
    return float(np.mean((leading[:, 0] & (votes[:, 0] > 0)) / leading.sum(axis=1)))


def concordance(strata: Sequence[tuple[Sequence[float], Sequence[float]]]) -> dict[str, Any] | None:
    """The probability that a second figure exceeds a first one of its stratum, ties counting one half (AUC).

    Over all pairs of all strata, with the interval of DeLong et al. (Biometrics 44, 1988, 837-845): a stratum's
    variance is that of each figure's mean outcome against the other side; strata are weighted by their pairs. The
    interval is normal, cut off at 0 and 1, and None where a side of every stratum has one figure or all pairs have one
    outcome.

    Args:
        strata: the first and the second figures of each stratum.

    Returns:
        `value`, `low`, `high` and `pairs`; None where no stratum has both.

    >>> figure = concordance([([1, 2, 3, 4], [3, 4, 5, 6])])
    >>> round(figure["value"], 3), round(figure["low"], 3), figure["pairs"]
    (0.875, 0.63, 16)
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    total = sum(len(first) * len(second) for first, second in strata)
    if not total:
        return None
    value = variance = 0.0
    for first, second in strata:
        pairs = len(first) * len(second)
        if not pairs:
            continue
        ranks = rankdata([*first, *second])
        # Of each second figure the share of first ones below it, and of each first one the share of second ones above.
        above = (ranks[len(first) :] - rankdata(second)) / len(first)
        below = 1 - (ranks[: len(first)] - rankdata(first)) / len(second)
        value += float(above.mean()) * pairs / total
        spread = sum(float(side.var(ddof=1)) / len(side) for side in (above, below) if len(side) > 1)
        variance += spread * (pairs / total) ** 2
    reach = float(ndtri(0.975)) * math.sqrt(variance)
    low, high = (max(value - reach, 0.0), min(value + reach, 1.0)) if variance else (None, None)
    return {"value": value, "low": low, "high": high, "pairs": total}


def in_points(paired: Mapping[str, float]) -> str:
    """A paired difference of shares in percentage points, with its 95 % interval and p."""
    return (
        f"{100 * paired['difference']:+.1f} points [{100 * paired['low']:+.1f}, {100 * paired['high']:+.1f}], "
        f"p = {paired['p']:.2g}"
    )
