"""A classifier of texts, as the step train leaves the reward model, and how long its texts may be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from grpo_cot.models.loading import DEVICE
from grpo_cot.models.tokenizers import load_tokenizer, refusing_corrupt

BATCH = 64  # texts that are read at once


class Classifier:
    """A trained classifier with its own tokenizer, in float32; `classes` are in the order of the logits.

    Of a text it reads the first `model_max_length` tokens of its tokenizer.
    """

    classes: list[str]

    def __init__(self, folder: Path) -> None:
        """Load it from a folder.

        Raises:
            InputError: the folder holds none, or its files are corrupt.
        """
        self._tokenizer = load_tokenizer(folder, padding_side="right")
        with refusing_corrupt(folder):
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True
            )
            if absent := sorted(map(str, loading["missing_keys"])):
                raise ValueError(f"{len(absent)} weights are missing, {absent[0]} first")
        self._model = model.to(DEVICE).eval()
        self.classes = [model.config.id2label[number] for number in range(model.config.num_labels)]

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> torch.Tensor:
        """The logits of texts: float32 on the CPU, (texts, classes)."""
        found = torch.empty(len(texts), len(self.classes))
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # so that little of a batch is padding
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            batch = self._tokenizer(
                [texts[place] for place in places], truncation=True, padding=True, return_tensors="pt"
            )
            found[places] = self._model(**batch.to(DEVICE)).logits.float().cpu()
        return found

    def probabilities(self, texts: Sequence[str]) -> list[list[float]]:
        """The probability of each class for each text."""
        found: list[list[float]] = self.logits(texts).softmax(dim=1).tolist()
        return found


def positions(model: Any) -> int | None:
    """How many tokens of a text a classifier has positions for; None where it counts distances alone.

    RoBERTa's family counts from its padding token's number on, so that config.json names more than there are.
    """
    for name, part in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, torch.nn.Embedding):
            return part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1)
    return getattr(model.config, "max_position_embeddings", None)
