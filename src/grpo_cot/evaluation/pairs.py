"""Asking the base and the trained model the same questions, with the same prompt and the same sampling."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grpo_cot.common.files import Message
from grpo_cot.models.description import ModelDescription
from grpo_cot.models.loading import load_base
from grpo_cot.schema import sections


class Ask(NamedTuple):
    """Conversations to complete, GenerationConfig's parameters, and a name for progress and for resuming."""

    name: str
    conversations: Sequence[Sequence[Message]]
    sampling: Mapping[str, Any]


def both(
    model: PreTrainedModel | PeftModel, description: ModelDescription
) -> Iterator[tuple[str, PreTrainedModel | PeftModel]]:
    """The base and the trained model by name, each to be used before the next is asked for.

    The base is the one that training started from, quantized alike: for an adapter it is the same model with the
    adapter switched off, so that the difference is the training's and nothing else's.
    """
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            yield "base", model
    else:
        yield "base", load_base(Path(description.base), description.model, description.quantization)
    yield "trained", model


def reasoning_tokens(completion: str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Length of the reasoning section in tokens, None outside the schema."""
    texts = sections(completion)
    return len(tokenizer(texts[0], add_special_tokens=False)["input_ids"]) if texts else None
