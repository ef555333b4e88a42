"""What PPO learns from: the order in which prompts are asked, and the completions to one round of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

Tensors = dict[str, torch.Tensor]


class RolloutSampler(Sampler[int]):
    """The indices of rows, in a new order every epoch, those of one rollout as often as batches are made of it.

    An epoch's order is a function of the seed and the epoch: a resumed run goes on in it. Rows that do not fill the
    last rollout of an epoch are left out.
    """

    def __init__(self, rows: int, rollout: int, times: int, seed: int) -> None:
        """Give the indices of `rows` rows, so many a rollout, each rollout so many times."""
        self._rows, self._rollout, self._times, self._seed = rows, rollout, times, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Go on with the order of that epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """The indices of one epoch."""
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        order = torch.randperm(self._rows, generator=generator).tolist()
        for start in range(0, len(self) // self._times, self._rollout):
            for _ in range(self._times):
                yield from order[start : start + self._rollout]

    def __len__(self) -> int:
        """How many indices an epoch has, repetitions included."""
        return self._rows // self._rollout * self._rollout * self._times


def completion_mask(completions: torch.Tensor, ends: set[int]) -> torch.Tensor:
    """1 up to a completion's first end token, and for it; 0 after it. Integers of the shape of `completions`.

    >>> completion_mask(torch.tensor([[5, 2, 2], [5, 6, 7]]), {2}).tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    ended = torch.isin(completions, torch.tensor(sorted(ends), device=completions.device)).long()
    return (ended.cumsum(dim=1) - ended == 0).long()


@dataclass(frozen=True)
class Completions:
    """Completions with their prompts, which are padded at their start, as completions are at their end.

    Shapes: prompts and their mask (rows, prompt tokens), completions and their mask (rows, tokens).
    """

    prompts: torch.Tensor
    prompt_mask: torch.Tensor
    completions: torch.Tensor
    mask: torch.Tensor

    def part(self, rows: torch.Tensor) -> Tensors:
        """Those rows (indices) as a batch, without the padding that all of them have.

        Names: prompt_ids, prompt_mask, completion_ids and completion_mask.
        """
        prompt = int(self.prompt_mask[rows].sum(dim=1).max())
        length = int(self.mask[rows].sum(dim=1).max())
        return {
            "prompt_ids": self.prompts[rows, -prompt:], "prompt_mask": self.prompt_mask[rows, -prompt:],
            "completion_ids": self.completions[rows, :length], "completion_mask": self.mask[rows, :length],
        }  # fmt: skip


@dataclass(frozen=True)
class Rollout:
    """Completions with what the policy that wrote them made of them; figures are (rows, tokens)."""

    completions: Completions
    log_probabilities: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def batches(self, step: int, rows: int, epochs: int) -> Iterator[Tensors]:
        """Batches of so many rows, every row once an epoch; `tokens` is the number of tokens of a whole `step`'s rows.

        The order is drawn from torch's own generator, at the first batch of an epoch.
        """
        total = len(self.completions.mask)
        for _ in range(epochs):
            for of_step in torch.split(torch.randperm(total), step):
                tokens = self.completions.mask[of_step].sum()
                yield from (self._batch(indices) | {"tokens": tokens} for indices in torch.split(of_step, rows))

    def _batch(self, rows: torch.Tensor) -> Tensors:
        batch = self.completions.part(rows)
        length = batch["completion_ids"].shape[1]
        figures = {
            "old_log_probabilities": self.log_probabilities, "old_values": self.values, "advantages": self.advantages,
            "returns": self.returns,
        }  # fmt: skip
        return batch | {name: values[rows, :length] for name, values in figures.items()}
