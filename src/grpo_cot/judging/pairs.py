"""How well scores tell the chosen answer of a pair from the rejected one: a reward model's, or a policy's implicit
reward, β (log π(answer) - log π_ref(answer)) (Rafailov et al., 2023)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grpo_cot.statistics import bootstrap_interval, detectable_difference, mcnemar, wilson_interval


def pair_figures(chosen: Sequence[float], rejected: Sequence[float]) -> dict[str, Any]:
    """The share of pairs whose chosen answer has the higher score, and the mean of the scores' differences.

    A pair whose scores are equal counts against the accuracy.

    Returns:
        n, ties, accuracy with Wilson's 95 % interval, margin with a bootstrap interval over pairs.

    Raises:
        ValueError: there is no pair, a side is longer than the other, or a score is not finite.

    >>> figures = pair_figures([2.0, 1.0, 0.5, 3.0], [1.0, 1.0, 1.5, 0.0])
    >>> figures["accuracy"]["value"], figures["margin"]["value"], figures["ties"]
    (0.5, 0.75, 1)
    """
    margins = _margins(chosen, rejected)
    return {
        "n": len(margins), "ties": int((margins == 0).sum()),
        "accuracy": wilson_interval(int((margins > 0).sum()), len(margins))._asdict(),
        "margin": bootstrap_interval(np.mean, margins)._asdict(),
    }  # fmt: skip


def pair_changes(
    before: tuple[Sequence[float], Sequence[float]], after: tuple[Sequence[float], Sequence[float]]
) -> dict[str, Any]:
    """The change of both on the same pairs: of the accuracy with McNemar's p, of the margin with a bootstrap interval.

    Args:
        before: the scores of the chosen and the rejected answers before training.
        after: and after it, of the same pairs in the same order.

    Raises:
        ValueError: as `pair_figures`, or the numbers of pairs differ.
    """
    first, second = _margins(*before), _margins(*after)
    if len(first) != len(second):
        raise ValueError(f"expected the same pairs, found {len(first)} before and {len(second)} after")
    discordant = float(np.mean((first > 0) != (second > 0)))
    test = mcnemar((first > 0).tolist(), (second > 0).tolist())._asdict()
    return {
        "accuracy": test | {"detectable": detectable_difference(len(first), discordant)},
        "margin": bootstrap_interval(np.mean, second - first)._asdict(),
    }


def _margins(chosen: Sequence[float], rejected: Sequence[float]) -> NDArray[np.float64]:
    one, other = np.asarray(chosen, dtype=float), np.asarray(rejected, dtype=float)
    if not len(one) or one.shape != other.shape:
        raise ValueError(f"expected a score of both answers of at least one pair, found {len(one)} and {len(other)}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("a score is not a finite number")
    margins: NDArray[np.float64] = one - other
    return margins
