"""The GPU memory of a reward model: of its training, and of what it takes beside a policy that it judges."""

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedConfig

from grpo_cot.memory.estimate import Blueprint
from grpo_cot.recipes.recipe import RewardModelSection
from grpo_cot.training.workload import Workload, settings_with_defaults


class ScorerBlueprint(Blueprint):
    """A classifier without content, in float32, of which all weights are trained."""

    def __init__(self, configuration: PreTrainedConfig) -> None:
        """Build it from a scorer's configuration."""
        with torch.device("meta"):
            self.model: Any = AutoModelForSequenceClassification.from_config(configuration, dtype=torch.float32)
        self._dtype, self._width = torch.float32, 4
        self.lora, self.dequantized, self._in_8_bits = False, 0, 0
        self.vocabulary = -1  # no tensor is as wide: it has no logits of words
        self._inner, self._trained = self.model, list(self.model.parameters())
        self.model.train()

    def _loss(self, work: Workload, forward: Any) -> torch.Tensor:
        ids, mask = (torch.ones(work.rows, work.length, dtype=torch.long) for _ in range(2))
        labels = torch.zeros(work.rows, dtype=torch.long)
        loss: torch.Tensor = forward(self.model, input_ids=ids, attention_mask=mask, labels=labels).loss
        return loss


def workload(section: RewardModelSection) -> Workload:
    """The largest batch of a reward model's training on a GPU: texts of `max_length`."""
    settings = settings_with_defaults(section)
    return Workload(
        rows=settings["per_device_train_batch_size"], optimiser=settings["optim"],
        autocast=settings["bf16"] or settings["fp16"], checkpointing=settings["gradient_checkpointing"],
        accumulates=settings["gradient_accumulation_steps"] > 1, on_gpu=True, drawn_prompt=0, length=section.max_length,
    )  # fmt: skip
