"""Whether the groups of a GRPO phase teach the task: asked before its first step, and logged at every step.

A group in which all rewards are equal teaches nothing. One in which no completion is right, and rewards differ all the
same (`phantom_advantage`), teaches something else than the answer: the format, a length, or chance.
"""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.rewards.groups import is_silent, sample_warnings
from grpo_cot.rewards.promise import Reward
from grpo_cot.rewards.sampling import Sampler


def starting_audit(sampler: Sampler, prompts: Sequence[Row]) -> dict[str, Any]:
    """The rewards on samples of the model that a phase starts from: groups, group_size, samples (statistics), warnings.

    Raises:
        InputError: their weighted sum varies in no group.
    """
    groups, figures = sampler.statistics_until_varying(prompts)
    number = next(number for number, phase in enumerate(sampler.recipe.phases, start=1) if phase is sampler.phase)
    samples = f"samples of the model that phases.{number - 1} left"
    if is_silent(figures):
        raise InputError(
            f"phases.{number}: the rewards are silent: in {groups} groups of {samples}, their weighted sum varies in "
            "none, so that this phase would learn nothing; add a reward that such a model sometimes earns "
            "and sometimes does not, or change the phase before"
        )
    return {
        "groups": groups, "group_size": sampler.phase.grpo["num_generations"], "samples": figures,
        "warnings": sample_warnings(figures, samples),
    }  # fmt: skip


def log_phantoms(trainer: Any, correct: Reward) -> None:
    """Have TRL's GRPO trainer log the share of a step's groups that vary without a right completion.

    Right is what `correct` pays. The curve lies beside TRL's own `frac_reward_zero_std`, of the same groups: those
    of all processes, as the rewards are when the trainer compares them.
    """
    calculate = trainer._calculate_rewards

    def counted(inputs: Any, prompts: Any, completions: Any, *others: Any) -> torch.Tensor:
        paid: torch.Tensor = calculate(inputs, prompts, completions, *others)
        columns = {name: [row[name] for row in inputs] for name in ("gold", "locale")}
        right = torch.tensor(correct(prompts, completions, **columns), device=paid.device) > 0
        if trainer.model.training:
            share = phantom_share(paid, trainer.reward_weights, gather(right), trainer.num_generations)
            trainer._metrics["train"]["phantom_advantage"].append(share)
        return paid

    trainer._calculate_rewards = counted


def phantom_share(paid: torch.Tensor, weights: torch.Tensor, right: torch.Tensor, group: int) -> float:
    """The share of groups whose weighted sums differ though no completion is right.

    `paid` (completions, rewards) has NaN where a reward says nothing; a completion of which none says anything is in no
    comparison. `right` (completions) are booleans; neighbours are one group.
    """
    sums = (paid * weights.to(paid.device)).nansum(dim=1).view(-1, group)
    absent = paid.isnan().all(dim=1).view(-1, group)
    largest = sums.masked_fill(absent, -torch.inf).amax(dim=1)
    smallest = sums.masked_fill(absent, torch.inf).amin(dim=1)
    return ((largest > smallest) & ~right.view(-1, group).any(dim=1)).float().mean().item()
