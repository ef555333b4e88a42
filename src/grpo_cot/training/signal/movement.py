"""How far a policy has moved: at a learning rate that is too small for an adapter, not at all, and no reward says so.

The first completions of a phase are kept with the log-probabilities that the policy gave their tokens as it drew them.
After each tenth of the steps it is asked again. The largest difference is a curve.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import GRPOTrainer

from grpo_cot.training.curves import mean
from grpo_cot.training.validation.answers import answering

CHANGE = "policy/largest_change"  # nats
UNMOVED = 0.01  # nats; in 16 bits one value that is rounded otherwise changes more, so no such policy is accused
COMPLETIONS = 8


def measure_movement(trainer: Any) -> None:
    """Have TRL's GRPO trainer log the curve. Where the weights are sharded there is none."""
    if trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled():
        return
    movement, generate = Movement(trainer), trainer._generate_and_score_completions

    def generated(inputs: Sequence[Any]) -> dict[str, Any]:
        batch: dict[str, Any] = generate(inputs)
        if trainer.model.training:
            movement.keep(batch)
        return batch

    trainer._generate_and_score_completions = generated
    trainer.add_callback(movement)


class Movement(TrainerCallback):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Keeps a phase's first completions and asks the policy again.

    They lie beside the checkpoints (`file`), so that a resumed training compares with the same ones.
    """

    def __init__(self, trainer: Any) -> None:
        """Ask what `trainer` trains."""
        self._trainer = trainer
        self._first: dict[str, torch.Tensor] | None = None

    @property
    def file(self) -> Path:
        """The first completions of this process."""
        return Path(self._trainer.args.output_dir) / f"first-completions-{self._trainer.args.process_index}.safetensors"

    def keep(self, batch: Mapping[str, torch.Tensor]) -> None:
        """Keep a batch of TRL's, if it is the phase's first one; a resumed training has kept it before."""
        if self._first is not None:
            return
        if self.file.is_file():
            self._first = {name: value.to(self._trainer.args.device) for name, value in load_file(self.file).items()}
            return
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        first = {name: batch[name][:COMPLETIONS].contiguous() for name in names}
        self._first = first | {"log_probabilities": self._score(first)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_suffix(".tmp")
        save_file(self._first, unfinished)
        unfinished.replace(self.file)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the change after each tenth of the steps."""
        if self._first is None or state.global_step % max(1, state.max_steps // 10):
            return
        changes = (self._score(self._first) - self._first["log_probabilities"]).abs()
        counted = self._first["completion_mask"].bool()
        largest = gather(torch.where(counted, changes, -1.0).max().reshape(1)).max().item()
        if largest >= 0:  # of completions that were cut, TRL may count no token
            self._trainer._metrics["train"][CHANGE] = [largest]  # it logs the mean of what is there

    def _score(self, first: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The policy's log-probabilities of the completions' tokens, (completions, tokens)."""
        ids = torch.cat([first["prompt_ids"], first["completion_ids"]], dim=1)
        mask = torch.cat([first["prompt_mask"], first["completion_mask"]], dim=1)
        length = first["completion_ids"].shape[1]
        with torch.no_grad(), answering(self._trainer.model):
            # The class's own: that of the trainer may share prompts, or leave completions out.
            scored = GRPOTrainer._full_logits_logps(
                self._trainer, self._trainer.model, ids, mask, length,
                batch_size=self._trainer.args.per_device_train_batch_size,
            )  # fmt: skip
        found: torch.Tensor = scored[0].float()
        return found.contiguous()


def movement_sentences(steps: Sequence[Mapping[str, float]]) -> list[str]:
    """A sentence where the policy has hardly moved at any time, though most groups had rewards that differ; else none.

    The first tenth alone would not do: a warm-up may lie in it.
    """
    found = [entry for entry in steps if CHANGE in entry]
    if not found or max(entry[CHANGE] for entry in found) >= UNMOVED or mean("frac_reward_zero_std", steps) > 0.5:
        return []
    return [
        f"In {found[-1]['step']:.0f} steps the log-probabilities of the first completions' tokens changed by at most "
        f"{max(entry[CHANGE] for entry in found):.1g} nats: the policy hardly moves; raise the learning rate (an "
        "adapter takes about ten times that of all weights)."
    ]
