"""Figures as metrics.json writes them: with 95 % intervals, and paired where two models answered the same problems."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_cot.statistics import bootstrap_interval, detectable_difference, mcnemar, t_interval, wilson_interval

MODELS = ("base", "trained")  # in the order in which differences are taken


def share(verdicts: Sequence[bool]) -> dict[str, float]:
    """A share with Wilson's interval."""
    return wilson_interval(sum(verdicts), len(verdicts))._asdict()


def mean(figures: Sequence[float]) -> dict[str, Any] | None:
    """A mean with its bootstrap interval over problems; None without a figure."""
    return bootstrap_interval(np.mean, figures)._asdict() if figures else None


def paired(before: Sequence[bool], after: Sequence[bool]) -> dict[str, Any]:
    """The difference of two shares on the same problems: interval, p, and `detectable`, the smallest true difference
    that so many problems show with 80 % power at the 5 % level."""
    discordant = sum(first != second for first, second in zip(before, after, strict=True)) / len(before)
    return {**mcnemar(before, after)._asdict(), "detectable": detectable_difference(len(before), discordant)}


def mean_difference(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """The means of two figures of the same problems (`a`, `b`), and their `difference` b minus a with its t interval
    over problems and p; these are None where every problem differs alike."""
    changes = [after - before for before, after in zip(a, b, strict=True)]
    means = {"a": sum(a) / len(a), "b": sum(b) / len(b)}
    if len(set(changes)) == 1:
        return {**means, "difference": changes[0], "low": None, "high": None, "p": None}
    return {**means, **t_interval(changes)._asdict()}


def perplexity(measured: Sequence[tuple[float | None, int | None]]) -> dict[str, Any] | None:
    """Of texts, each with its log-likelihood (nats) and number of tokens: exp(-sum of log-likelihoods / sum of tokens),
    with its bootstrap interval and `tokens`, that sum.

    It is weighted by tokens. The mean of each text's perplexity would be dominated by the short and the unlikely. Texts
    that were not measured (None) or have no token do not count; None where none is left.
    """
    known = [(likelihood, tokens) for likelihood, tokens in measured if likelihood is not None and tokens]
    if not known:
        return None
    likelihoods, tokens = zip(*known, strict=True)
    return {**bootstrap_interval(_perplexity, likelihoods, tokens)._asdict(), "tokens": sum(tokens)}


def _perplexity(log_likelihoods: Any, tokens: Any, axis: int) -> Any:
    return np.exp(-log_likelihoods.sum(axis=axis) / tokens.sum(axis=axis))
