"""Intervals and tests for accuracies: one model's, and two models' on the same questions."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Proportion(NamedTuple):
    """A proportion and its confidence interval."""

    value: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """Trained minus base accuracy on the same questions, its confidence interval, and the exact McNemar p value."""

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


def mcnemar(base: Sequence[bool], trained: Sequence[bool], confidence: float = 0.95) -> PairedDifference:
    """Whether training changed the accuracy, from both models' verdicts on the same questions in the same order.

    p is McNemar's exact two-sided binomial test on the questions where the verdicts differ. The interval is Newcombe's
    hybrid score interval for paired proportions (Statistics in Medicine 17, 1998, 2635-2650, method 10): with Wilson
    limits l, u of the two accuracies and the verdicts' correlation φ,

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
