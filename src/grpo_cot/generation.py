"""Asking a model: batches by length, stop strings, and what came back."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from grpo_cot.prompts import Message


class Completion(NamedTuple):
    """What a model wrote: its text without special tokens, its length in tokens, and whether the limit cut it off."""

    text: str
    tokens: int
    truncated: bool


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    sampling: Mapping[str, Any],
    *,
    batch_size: int,
    chat_template_kwargs: Mapping[str, Any],
    seed: int,
    progress: str,
) -> list[Completion]:
    """One completion for every conversation, in their order.

    Conversations are batched longest first, so that little is padding and memory peaks at once, not at the end.
    `sampling` holds GenerationConfig's parameters; what it leaves out is off, whatever the model's own defaults say.
    """
    set_seed(seed)
    configuration = GenerationConfig(
        **sampling,
        eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    limit = configuration.max_new_tokens
    texts = tokenizer.apply_chat_template(
        list(map(list, conversations)), tokenize=False, add_generation_prompt=True, **chat_template_kwargs
    )
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
    completions: list[Completion | None] = [None] * len(encoded)
    ends = _as_set(configuration.eos_token_id)
    with tqdm(total=len(order), desc=progress, unit="prompt") as bar:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = tokenizer.pad({"input_ids": [encoded[index] for index in batch]}, return_tensors="pt").to(
                model.device
            )
            with torch.inference_mode():
                output = model.generate(
                    **inputs,
                    generation_config=configuration,
                    tokenizer=tokenizer if configuration.stop_strings else None,
                )
            for index, row in zip(batch, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                completions[index] = _completion(row, tokenizer, ends, configuration.stop_strings or [], limit)
            bar.update(len(batch))
    return [completion for completion in completions if completion is not None]


def _completion(
    row: list[int], tokenizer: PreTrainedTokenizerBase, ends: set[int], stops: Sequence[str], limit: int
) -> Completion:
    """Cut a generated row at its first end token, or at the padding that follows a stop string in a longer batch."""
    end = next((position for position, token in enumerate(row) if token in ends), None)
    kept = row[:end]
    if end is None:
        while kept and kept[-1] == tokenizer.pad_token_id:
            kept.pop()
    text = tokenizer.decode(kept, skip_special_tokens=True)
    stopped = any(stop in text for stop in stops)
    return Completion(text, len(kept), end is None and not stopped and len(kept) >= limit)


def _as_set(ids: int | list[int] | None) -> set[int]:
    return set() if ids is None else {ids} if isinstance(ids, int) else set(ids)
