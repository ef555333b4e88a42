"""Dynamic sampling (Yu et al., 2025, "DAPO", arXiv:2503.14476): groups that teach nothing are replaced as GRPO trains.

A group whose rewards do not differ has no advantage. In its place come completions to another prompt, drawn at random
from those that the step has not asked yet, for as many rounds as the recipe allows. DAPO draws whole batches until one
is full, without a bound; here a round draws as many groups as are missing.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from grpo_cot.common.files import Row
from grpo_cot.training.curves import mean

ROUNDS = "dynamic_sampling/rounds"  # of a step, after its first draw
STILL_SILENT = "dynamic_sampling/still_silent"  # the share of a step's groups without an advantage after all rounds
PADDED_LEFT = ("prompt_ids", "prompt_mask")


def replace_silent(trainer: Any, rounds: int) -> None:
    """Have TRL's GRPO trainer, in one process, replace groups without an advantage in at most so many `rounds` a step.

    What it logs of rewards and completions, but for the number of tokens seen, stays that of a step's first draw, which
    nothing has selected.
    Prompts come from torch's generator, whose state a checkpoint has: a resumed training asks the same ones.
    """
    generate, group = trainer._generate_and_score_completions, trainer.num_generations

    def generated(inputs: Sequence[Row]) -> dict[str, Any]:
        batch: dict[str, Any] = generate(inputs)
        if not trainer.model.training:
            return batch
        metrics = trainer._metrics["train"]
        logged = {name: len(values) for name, values in metrics.items()}
        shown = copy.deepcopy(trainer._logs)
        asked = [row["prompt"] for row in inputs[::group]]
        silent, count = _groups(batch, group, varied=False), 0
        while silent and count < rounds:
            others = _others(trainer.train_dataset, asked, len(silent))
            if not others:
                break
            count += 1
            asked += [row["prompt"] for row in others]
            drawn = generate([dict(row) for row in others for _ in range(group)])
            found = _groups(drawn, group, varied=True)
            batch = with_groups(batch, silent[: len(found)], drawn, found, group, trainer._tokenizer.pad_token_id)
            silent = silent[len(found) :]
        for name, values in metrics.items():
            del values[logged.get(name, 0) :]
        if count:
            trainer._logs.update(shown)
        metrics[ROUNDS].append(float(count))
        metrics[STILL_SILENT].append(len(silent) * group / len(inputs))
        return batch

    trainer._generate_and_score_completions = generated


def _groups(batch: Mapping[str, Any], group: int, *, varied: bool) -> list[int]:
    """The numbers of the groups that teach (`varied`), by an advantage of a completion with tokens that count, or of
    those that do not."""
    teaches = (batch["advantages"] != 0) & batch["completion_mask"].any(dim=1)
    has = teaches.view(-1, group).any(dim=1)
    found: list[int] = (has == varied).nonzero().flatten().tolist()
    return found


def _others(dataset: Any, asked: Sequence[Any], count: int) -> list[Row]:
    """At most `count` rows of a data set, at random, whose prompts differ from each other's and from those `asked`."""
    rows: list[Row] = []
    seen = list(asked)
    for index in torch.randperm(len(dataset)).tolist():
        if len(rows) == count:
            break
        if (row := dataset[index])["prompt"] not in seen:
            rows.append(row)
            seen.append(row["prompt"])
    return rows


def with_groups(
    batch: Mapping[str, Any], places: Sequence[int], other: Mapping[str, Any], taken: Sequence[int], group: int,
    padding: int,
) -> dict[str, Any]:  # fmt: skip
    """A trainer's batch in which the groups at `places` are those that are at `taken` in another one.

    Both are what TRL's `_generate_and_score_completions` makes: tensors of (completions, tokens), prompts padded on the
    left and all else on the right, of (completions,), and the number of completion tokens (`num_items_in_batch`).
    `padding` is the padding token's id.
    """
    if not places:
        return dict(batch)
    within = torch.arange(group)
    to, of = ((torch.tensor(numbers)[:, None] * group + within).flatten() for numbers in (places, taken))
    whole: dict[str, Any] = {}
    for name, value in batch.items():
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            whole[name] = value
            continue
        filler = padding if name.endswith("_ids") else 0
        width = max(value.shape[-1], other[name].shape[-1]) if value.ndim > 1 else 0
        own, new = (_padded(part, width, filler, left=name in PADDED_LEFT) for part in (value, other[name]))
        whole[name] = own.index_copy(0, to.to(own.device), new[of.to(new.device)])
    whole["num_items_in_batch"] = whole["completion_mask"].sum()
    return whole


def _padded(part: torch.Tensor, width: int, filler: int, *, left: bool) -> torch.Tensor:
    missing = width - part.shape[-1] if part.ndim > 1 else 0
    return torch.nn.functional.pad(part, (missing, 0) if left else (0, missing), value=filler) if missing else part


def dynamic_sampling_sentences(steps: Sequence[Mapping[str, float]]) -> list[str]:
    """A sentence on what the rounds brought, where steps logged them."""
    if not any(ROUNDS in entry for entry in steps):
        return []
    before, after, rounds = (mean(name, steps) for name in ("frac_reward_zero_std", STILL_SILENT, ROUNDS))
    if not before:
        return ["Every group of every step carried a signal: no round of dynamic sampling was drawn."]
    if not rounds:
        return [f"Of a step's groups {before:.0%} carried no signal, and there was no other prompt to ask; add rows."]
    said = (
        f"Of a step's groups {before:.0%} carried no signal at first, and {after:.0%} after {rounds:.1f} rounds a step"
    )
    note = "" if after < before else ": other prompts taught no more; keep a band of pass rates (pass_rates) instead"
    return [f"{said} on average{note}."]
