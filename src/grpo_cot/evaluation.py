"""Asking the base and the trained model the same questions, with the same prompt and the same sampling."""

import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grpo_cot.files import Row
from grpo_cot.generation import Completion, generate
from grpo_cot.models import ModelDescription, load_base
from grpo_cot.prompts import Message
from grpo_cot.schema import sections


def sampled(rows: Sequence[Row], size: int | None, seed: int) -> list[Row]:
    """All rows, or that many of them drawn with the seed, in their order."""
    if size is None or size >= len(rows):
        return list(rows)
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), size))]


def ask_both(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    description: ModelDescription,
    conversations: Sequence[Sequence[Message]],
    sampling: Mapping[str, Any],
    *,
    batch_size: int,
    chat_template_kwargs: Mapping[str, Any],
    seed: int,
) -> dict[str, list[Completion]]:
    """Both models' completions. The base is the one that training started from, quantized alike: for an adapter it is
    the same model with the adapter switched off, so that the difference is the training's and nothing else's."""
    answers = {}
    for name in ("base", "trained"):
        asked = model
        switched_off: Any = nullcontext()
        if name == "base" and isinstance(model, PeftModel):
            switched_off = model.disable_adapter()
        elif name == "base":
            asked = load_base(Path(description.base), description.model, description.quantization)
        with switched_off:
            answers[name] = generate(
                asked, tokenizer, conversations, sampling, batch_size=batch_size,
                chat_template_kwargs=chat_template_kwargs, seed=seed, progress=name,
            )  # fmt: skip
    return answers


def reasoning_tokens(completion: str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Length of the reasoning section in tokens, None outside the schema."""
    found = sections(completion)
    return len(tokenizer(found[0], add_special_tokens=False)["input_ids"]) if found else None
