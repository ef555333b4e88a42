"""The share of texts that a judge gives one class, before and after training, and whether two judges part on it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grpo_cot.common.errors import InputError
from grpo_cot.statistics import bootstrap_interval, detectable_difference, in_points, mcnemar, wilson_interval

Verdicts = Sequence[str | None]  # None: a text without words, which is of no class


def refuse_silence(texts: Sequence[str], who: str) -> None:
    """Stop where a model wrote nothing: nothing can be judged, and every measure of its texts would be of no text.

    Raises:
        InputError: there is no text, or every text is empty.
    """
    if not any(text.strip() for text in texts):
        raise InputError(
            f"{who} generates nothing: all {len(texts)} of its texts are empty; look whether it ends at once, and give "
            "it more tokens, or a smaller learning rate"
        )


def share(verdicts: Verdicts, label: str) -> dict[str, Any]:
    """The share of texts that are judged `label`, with Wilson's 95 % interval; texts without words count against it."""
    hits = sum(verdict == label for verdict in verdicts)
    return {
        **wilson_interval(hits, len(verdicts))._asdict(), "n": len(verdicts),
        "without_words": sum(verdict is None for verdict in verdicts),
    }  # fmt: skip


def change(before: Verdicts, after: Verdicts, label: str) -> dict[str, Any]:
    """The change of that share on the same prompts: difference, 95 % interval, McNemar's p, and the smallest true
    difference that so many prompts show (`grpo_cot.statistics`)."""
    first, second = ([verdict == label for verdict in verdicts] for verdicts in (before, after))
    discordant = sum(one != other for one, other in zip(first, second, strict=True)) / len(first)
    return {**mcnemar(first, second)._asdict(), "detectable": detectable_difference(len(first), discordant)}


def agreement(first: Verdicts, second: Verdicts) -> dict[str, Any]:
    """How often two judges say the same of a text, and Cohen's kappa (1960).

    With p the share of equal verdicts and e the share that two judges with the same class shares, but independent of
    each other, would have: kappa = (p - e) / (1 - e). None where both always give one class.
    """
    n = len(first)
    equal = sum(one == other for one, other in zip(first, second, strict=True))
    one, other = Counter(first), Counter(second)
    expected = sum(one[label] * other[label] for label in one) / n**2
    kappa = (equal / n - expected) / (1 - expected) if expected < 1 else None
    return {"agreement": wilson_interval(equal, n)._asdict(), "kappa": kappa, "n": n}


def compare_judges(
    reward_model: tuple[Verdicts, Verdicts], judge: tuple[Verdicts, Verdicts], label: str
) -> dict[str, Any]:
    """Whether the rise of the share that the reward model sees is also there for an independent judge.

    Args:
        reward_model: its verdicts before and after training, on the same prompts in the same order.
        judge: the independent judge's verdicts on the same texts.
        label: the class that training rewards.

    Returns:
        The change that each sees, `gap` (by how much more the reward model's share rose, with a bootstrap interval over
        prompts), the judges' agreement before and after, and warnings: a sentence where the two part.
    """
    changes = {name: change(*verdicts, label) for name, verdicts in (("reward_model", reward_model), ("judge", judge))}
    gains = [_gains(*verdicts, label) for verdicts in (reward_model, judge)]
    gap = bootstrap_interval(np.mean, gains[0] - gains[1])
    return {
        **changes, "gap": gap._asdict(),
        "agreement": {
            when: agreement(one, other)
            for when, one, other in zip(("before", "after"), reward_model, judge, strict=True)
        },
        "warnings": _warnings(changes["reward_model"], changes["judge"], gap.low, label),
    }  # fmt: skip


def _gains(before: Verdicts, after: Verdicts, label: str) -> NDArray[np.float64]:
    """For each prompt 1 where its text became one of the class, -1 where it ceased to be, else 0."""
    first, second = (np.array([verdict == label for verdict in verdicts], dtype=float) for verdicts in (before, after))
    gains: NDArray[np.float64] = second - first
    return gains


def _warnings(reward_model: dict[str, Any], judge: dict[str, Any], gap: float | None, label: str) -> list[str]:
    if reward_model["low"] <= 0 or gap is None or gap <= 0:
        return []
    figures = (
        f"the share judged {label} changes by {in_points(reward_model)} for the reward model and by "
        f"{in_points(judge)} for the independent judge"
    )
    if judge["low"] <= 0:
        return [
            f"the reward is hacked: {figures}; the policy learned what the reward model pays, not what it stands for"
        ]
    if judge["difference"] < reward_model["difference"] / 2:
        return [f"the reward may be hacked in part: {figures}, less than half as much"]
    return []
