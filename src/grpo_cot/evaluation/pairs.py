"""Asking two models the same questions, with the same prompt and sampling: the trained one, and the base or what an
earlier phase left."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message
from grpo_cot.models.description import read_description
from grpo_cot.models.loading import load, load_base, load_result
from grpo_cot.schema import sections


class Ask(NamedTuple):
    """Conversations to complete, GenerationConfig's parameters, and a name for progress and for resuming."""

    name: str
    conversations: Sequence[Sequence[Message]]
    sampling: Mapping[str, Any]


def phase_folder(model_json: Path, number: int | None, where: object) -> Path | None:
    """The folder of what the phase of that number left, beside model.json; None for none.

    Raises:
        InputError: it is not the number of a phase before the last one; `where` is the recipe.
    """
    if number is None:
        return None
    phases = sorted(path.parent for path in model_json.parent.glob("[0-9][0-9]-*/configuration.json"))
    if number >= len(phases):
        left = ", ".join(folder.name for folder in phases)
        raise InputError(
            f"{where}: evaluate.before is {number}, expected the number of a phase before the last one (the training "
            f"left {left}), or null for the base"
        )
    return phases[number - 1]


def both(model_json: Path, before: Path | None) -> Iterator[tuple[str, PreTrainedModel | PeftModel]]:
    """The model that is compared with (`base`) and the trained one by name, each to be used before the next is asked
    for, and to be let go of then.

    The former is what the phase in the folder `before` left, and where that is None the base that training started
    from. Both are quantized alike. For an adapter the base is the same model with the adapter switched off, so that the
    difference is the training's and nothing else's; otherwise the one is gone before the other is loaded. None is left
    when both were asked for.
    """
    description = read_description(model_json)
    if description.kind == "adapter" and before is None:
        model, _, _ = load(model_json)
        with model.disable_adapter():
            yield "base", model
        yield "trained", model
        del model
    else:
        yield (
            "base",
            (
                load_base(Path(description.base), description.model, description.quantization)
                if before is None
                else load_result(description, before)
            ),
        )
        _free()
        yield "trained", load_result(description, model_json.parent / description.path)
    _free()


def _free() -> None:
    """Give back the memory of a model that was let go of: a quantized one is a ring of references."""
    gc.collect()
    torch.cuda.empty_cache()


def reasoning_tokens(completion: str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Length of the reasoning section in tokens, None outside the schema."""
    texts = sections(completion)
    return len(tokenizer(texts[0], add_special_tokens=False)["input_ids"]) if texts else None
