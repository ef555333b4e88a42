"""What rewards pay for sampled groups: the figures that the audit and a training judge before a phase's first step."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo_cot.common.errors import InputError
from grpo_cot.rewards.ours import correctness
from grpo_cot.rewards.promise import Reward
from grpo_cot.rewards.registry import Measure, reward_functions

COLUMNS = ("gold", "locale", "id", "wanted")  # of a row, for the rewards, where it has them
# Above this share of the groups in which rewards vary, those without a right completion are worth a sentence.
MOSTLY = 0.5


def amounts(
    name: str, function: Reward, rows: Sequence[Mapping[str, Any]], completions: Sequence[str], lengths: Sequence[int]
) -> list[float | None]:
    """The amounts that a reward pays for completions, which it gets as the trainer hands them over: as messages.

    None is no judgement, which is not an amount of 0: the trainer leaves such a completion out.

    Raises:
        InputError: it fails, pays an amount that is not finite, or returns another number of amounts.
    """
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS if name in rows[0]}
    columns["completion_ids"] = [list(range(length)) for length in lengths]
    messages = [[{"role": "assistant", "content": text}] for text in completions]
    try:
        paid = function(prompts=[row["messages"] for row in rows], completions=messages, **columns)
        numbers = [None if amount is None else float(amount) for amount in paid]
    except Exception as error:  # of a user's own code
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"the reward {name!r} fails on completions: {reason}") from error
    if not all(math.isfinite(number) for number in numbers if number is not None):
        raise InputError(
            f"the reward {name!r} pays an amount that is not finite: return a number, or None for no judgement"
        )
    if len(numbers) != len(rows):
        raise InputError(f"the reward {name!r} returns {len(numbers)} amounts for {len(rows)} completions")
    return numbers


def group_statistics(
    rewards: Mapping[str, float], prompts: Sequence[Mapping[str, Any]], completions: Sequence[str],
    token_counts: Sequence[int], group: int, reward_model: Reward | None = None, measure: Measure | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How each reward, and the weighted sum of the paid ones, behaves on a model's samples.

    Args:
        prompts: one row a completion, with `messages`, `gold`, `locale` and `id`; `group` neighbours share a prompt.
        reward_model: the reward of that name, where `rewards` has it.
        measure: what rewards on length read, where `rewards` has any.

    Returns:
        For each reward and for `weighted_sum`: mean and largest of what it judged (None where it judged nothing), and
        `varies`, the share of groups in which it varies. For `weighted_sum` also `phantom`, the share of groups in
        which it varies though no completion is right, as `correctness` reads the only `<answer>`: what such a group
        teaches is not the answer. It is None where rows have no final answers.
    """
    functions, weights = reward_functions(rewards, reward_model, measure)
    values = {
        name: amounts(name, function, prompts, completions, token_counts)
        for name, function in zip(rewards, functions, strict=True)
    }
    sums = [weighted_sum(judgements, weights) for judgements in zip(*values.values(), strict=True)]
    figures = {name: _figures(column, group) for name, column in {**values, "weighted_sum": sums}.items()}
    figures["weighted_sum"]["phantom"] = None
    if has_golds(prompts):
        right = amounts("correctness", correctness, prompts, completions, token_counts)
        phantoms = [
            _varies(paid) and not any(correct)
            for paid, correct in zip(_groups(sums, group), _groups(right, group), strict=True)
        ]
        figures["weighted_sum"]["phantom"] = statistics.fmean(phantoms)
    return figures


def has_golds(prompts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every row has a final answer, so that completions can be right."""
    return all(row["gold"] is not None for row in prompts)


def weighted_sum(judgements: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """What the trainer compares: the rewards that judge a completion count, and None is one that none judges."""
    judged = [weight * amount for weight, amount in zip(weights, judgements, strict=True) if amount is not None]
    return sum(judged) if judged else None


def _figures(column: Sequence[float | None], group: int) -> dict[str, float | None]:
    judged = [amount for amount in column if amount is not None]
    return {
        "mean": statistics.fmean(judged) if judged else None,
        "largest": max(judged, default=None),
        "varies": statistics.fmean(map(_varies, _groups(column, group))),
    }


def _varies(group: Sequence[float | None]) -> bool:
    return len({amount for amount in group if amount is not None}) > 1


def _groups(column: Sequence[float | None], group: int) -> Iterator[Sequence[float | None]]:
    return (column[start : start + group] for start in range(0, len(column), group))


def is_silent(figures: Mapping[str, Any]) -> bool:
    """Whether the weighted sum varies in no group, so that nothing would be learnt."""
    return bool(figures["weighted_sum"]["varies"] == 0)


def sample_warnings(figures: Mapping[str, Any], samples: str) -> list[str]:
    """Sentences on `group_statistics`: rewards that never vary, and groups that vary without a right completion.

    `samples` says of what: "the base model's samples".
    """
    warnings = [
        f"{name} judges none of {samples}"
        if facts["mean"] is None
        else f"{name} never varies on {samples} (it is {facts['mean']:.2f} throughout)"
        for name, facts in figures.items()
        if facts["varies"] == 0
    ]
    varies, phantom = (figures["weighted_sum"][name] for name in ("varies", "phantom"))
    if phantom is not None and phantom > MOSTLY * varies:
        warnings.append(
            f"the rewards vary in {varies:.0%} of the groups of {samples}, and {phantom / varies:.0%} of these "
            "have no right completion: at the start training learns the format, or something else than the answer"
        )
    return warnings
