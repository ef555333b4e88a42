"""Whether rewards teach the task: asked before the first step of a phase, and logged at every step of GRPO.

A group in which all rewards are equal teaches nothing, and training passes over it. One in which no completion is
right, and rewards differ all the same (`phantom_advantage`), teaches something else than the answer: the format, a
length, or chance.
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
from grpo_cot.training.shared_prompts import compare_rows

ROUNDING = 4  # steps of the type by which sums of the same few rewards may differ, added in another order


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
        "groups": groups, "group_size": sampler.phase.group_size, "samples": figures,
        "warnings": sample_warnings(figures, samples),
    }  # fmt: skip


def compare_groups(trainer: Any, correct: Reward | None) -> None:
    """Have TRL's GRPO trainer give groups of equal rewards no advantage, and log phantom advantages.

    With `multi_objective_aggregation: normalize_then_sum`, where rewards are scaled one by one, advantages stay TRL's.

    In float32 the mean of eight rewards of 1.2 is not 1.2: by TRL's own arithmetic such a group has advantages of 1e-3,
    and counts as one that varies in the curve `frac_reward_zero_std`.

    The curve `phantom_advantage` is the share of a step's groups that vary without a right completion, right being what
    `correct` pays; without `correct` there is none. Both curves are of the same groups: those of all processes, as the
    rewards are when the trainer compares them. With `scale_rewards: batch` the former is TRL's own, of the batch.
    """
    calculate, generate = trainer._calculate_rewards, trainer._generate_and_score_completions
    differ = torch.empty(0, dtype=torch.bool)

    def calculated(inputs: Any, prompts: Any, completions: Any, *others: Any) -> torch.Tensor:
        nonlocal differ
        paid: torch.Tensor = calculate(inputs, prompts, completions, *others)
        if not trainer.model.training:
            return paid
        differ = varying(paid, trainer.reward_weights, trainer.num_generations)
        if correct is not None:
            columns = {name: [row[name] for row in inputs] for name in ("gold", "locale")}
            right = gather(torch.tensor(correct(prompts, completions, **columns), device=paid.device) > 0)
            phantoms = differ & ~right.view(-1, trainer.num_generations).any(dim=1)
            trainer._metrics["train"]["phantom_advantage"].append(phantoms.float().mean().item())
        return paid

    def generated(inputs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = generate(inputs)
        if trainer.model.training and trainer.multi_objective_aggregation == "sum_then_normalize":
            rows = len(batch["advantages"])
            own = differ.repeat_interleave(trainer.num_generations)[trainer.accelerator.process_index * rows :][:rows]
            batch["advantages"] = batch["advantages"].masked_fill(~own, 0)
            if trainer.scale_rewards != "batch":  # else it is of the whole batch
                trainer._metrics["train"]["frac_reward_zero_std"][-1] = (~differ).float().mean().item()
        return batch

    trainer._calculate_rewards, trainer._generate_and_score_completions = calculated, generated


def varying(paid: torch.Tensor, weights: torch.Tensor, group: int) -> torch.Tensor:
    """The groups whose weighted sums differ by more than their type rounds: booleans, (groups,).

    `paid` (completions, rewards) has NaN where a reward says nothing; a completion of which none says anything is in no
    comparison. Neighbours are one group.
    """
    weighted = paid * weights.to(paid.device)
    sums, sizes = (values.nansum(dim=1).view(-1, group) for values in (weighted, weighted.abs()))
    absent = paid.isnan().all(dim=1).view(-1, group)
    largest = sums.masked_fill(absent, -torch.inf).amax(dim=1)
    smallest = sums.masked_fill(absent, torch.inf).amin(dim=1)
    return largest - smallest > ROUNDING * torch.finfo(paid.dtype).eps * sizes.amax(dim=1)


def leave_out_silent(trainer: Any) -> None:
    """Have TRL's GRPO trainer compute no gradient for completions that have none: those whose advantage is 0.

    With a KL to a reference, an entropy bonus, a quantile of entropies or experts that balance their load, all have
    one. The curve `entropy` is that of the completions that teach, and of a batch without any that of its first one.
    """
    if trainer.beta != 0 or trainer._entropy_bonus_enabled or trainer.top_entropy_quantile < 1:
        return
    if trainer.aux_loss_enabled or trainer.use_liger_kernel:
        return
    loss, score = trainer._compute_loss, trainer._full_logits_logps
    batch: dict[str, torch.Tensor] | None = None

    def computed(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        nonlocal batch
        batch = inputs
        try:
            result: torch.Tensor = loss(model, inputs)
        finally:
            batch = None
        return result

    def scored(model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **settings: Any) -> Any:
        rows = None if batch is None else teaching(batch["advantages"], batch["completion_mask"])
        if batch is None or rows is None:
            return score(model, input_ids, attention_mask, logits_to_keep, **settings)
        compare_rows(trainer, model, input_ids, attention_mask, logits_to_keep)
        counted = batch["completion_mask"][rows].bool()
        length = int(counted.any(dim=0).nonzero().max()) + 1
        end = input_ids.shape[1] - logits_to_keep + length
        found, entropies, auxiliary = score(
            model, input_ids[rows, :end], attention_mask[rows, :end], length, **settings
        )
        shape = len(input_ids), logits_to_keep
        before = batch.get("old_per_token_logps")
        probabilities = found.new_zeros(shape) if before is None else before.clone()
        probabilities[rows, :length] = found
        if entropies is not None:  # the others get the mean, so that the trainer logs it
            mean, own = entropies[counted[:, :length]].mean(), entropies
            entropies = mean.repeat(shape)
            entropies[rows, :length] = own
        return probabilities, entropies, auxiliary

    trainer._compute_loss, trainer._full_logits_logps = computed, scored


def teaching(advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
    """The completions (their indices) with an advantage (completions) and with tokens in `mask` (completions, tokens).

    If there are none, one without an advantage, for the loss needs a gradient; None if none has tokens.
    """
    counted = mask.any(dim=1)
    found = (counted & (advantages != 0)).nonzero().flatten()
    if len(found):
        return found
    return counted.nonzero().flatten()[:1] if counted.any() else None
