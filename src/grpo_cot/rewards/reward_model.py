"""The reward of a trained reward model: how surely a whole text is of the class that is to be written."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from grpo_cot.models.classifier import Classifier
from grpo_cot.rewards.ours import completion_text
from grpo_cot.rewards.promise import Reward
from grpo_cot.schema import whole_text


def load(folder: Path) -> Reward:
    """The reward `reward_model` of the classifier in a folder, which is read when there is something to judge."""

    @functools.cache
    def classifier() -> Classifier:
        return Classifier(folder)

    def reward_model(
        prompts: Sequence[Any], completions: Sequence[Any], wanted: Sequence[str], **columns: Any
    ) -> list[float]:
        """The logit of the wanted class, of the text that the prompt's last message begins and the completion ends."""
        texts = [
            whole_text(prompt, completion_text(completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        places = torch.tensor([classifier().classes.index(name) for name in wanted])
        paid: list[float] = classifier().logits(texts).gather(1, places[:, None]).squeeze(1).tolist()
        return paid

    return reward_model
