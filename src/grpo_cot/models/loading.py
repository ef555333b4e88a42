"""Loading models: every step with weights loads through this module, so that all of them load alike."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from torch.nn.functional import linear
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations import deepspeed, is_deepspeed_zero3_enabled
from transformers.utils import is_flash_attn_2_available

from grpo_cot.common.errors import InputError
from grpo_cot.models.attention import attention
from grpo_cot.models.description import ModelDescription, read_description
from grpo_cot.models.tokenizers import load_tokenizer, refusing_corrupt
from grpo_cot.recipes.recipe import ModelSection

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
AttentionInterface.register("sdpa", attention)


def placement() -> dict[str, str] | None:
    """Where a model's weights go: to this process's device, or nowhere yet where Accelerate shards them."""
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" or is_deepspeed_zero3_enabled():
        return None
    rank = os.environ.get("LOCAL_RANK")
    return {"": f"cuda:{rank}" if DEVICE == "cuda" and rank is not None else DEVICE}


@contextmanager
def unsharded() -> Iterator[None]:
    """Inside, models are loaded whole on this process's device, where Accelerate would shard them over all."""
    sharding = os.environ.pop("ACCELERATE_USE_FSDP", None)
    zero = deepspeed._hf_deepspeed_config_weak_ref  # what says that weights are to be sharded (ZeRO-3)
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = zero
        if sharding is not None:
            os.environ["ACCELERATE_USE_FSDP"] = sharding


def load_base(folder: Path, settings: ModelSection, quantization: dict[str, Any] | None) -> PreTrainedModel:
    """A base model, causal or encoder-decoder, in evaluation mode, quantized as the recipe says.

    The generation defaults that a model brings along (sampling, repetition penalty) are dropped, so that greedy means
    greedy; only its end, padding and start tokens stay.

    Raises:
        InputError: the files are corrupt or incomplete, or the hardware does not suit the settings.
    """
    check_attention(settings)
    torch.set_num_threads(settings.threads)
    with refusing_corrupt(folder):
        architecture = AutoConfig.from_pretrained(folder)
        loader = AutoModelForSeq2SeqLM if architecture.is_encoder_decoder else AutoModelForCausalLM
        model, loading = loader.from_pretrained(
            folder, dtype=getattr(torch, settings.dtype), attn_implementation=settings.attn_implementation,
            quantization_config=BitsAndBytesConfig(**quantization) if quantization else None,
            device_map=placement(), output_loading_info=True,
        )  # fmt: skip
        if absent := sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]])):
            raise ValueError(f"{len(absent)} weights are missing or misshapen, {absent[0]} first")
    if DEVICE == "cpu":
        for module in model.modules():
            if isinstance(module, Linear4bit):
                _keep_dequantized(module)
        head = model.get_output_embeddings()
        if head is not None and model.dtype == torch.bfloat16:
            head.register_forward_pre_hook(_in_one_piece)
    drop_generation_defaults(model)
    model.eval()
    return model


def _in_one_piece(head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The output layer's inputs without gaps. Where logits of the last tokens alone are asked for, they are a part of
    each row, and then torch copies the frozen weight (outputs, inputs) once for each row: gigabytes, and seconds."""
    return tuple(states.contiguous() for states in inputs)


def _keep_dequantized(layer: Linear4bit) -> None:
    """Dequantize a layer's weight once, where bitsandbytes does it at every call, for each token that is sampled.

    A CPU's memory is not why anybody quantizes. The answers are the same to the byte. The packed weight stays: it is
    what is merged and compared. (bitsandbytes would pack it anew at a model's first answer, where the CPU has
    instructions for bfloat16, and dequantized after that it is another, which DoRA reads at every step.)
    """
    layer.support_avx512bf16_for_cpu = False
    packed: Any = layer.weight
    state = copy.copy(packed.quant_state)
    state.dtype = layer.compute_dtype
    weight = dequantize_4bit(packed.data, state)
    layer.forward = partial(_dequantized, layer, packed, weight)  # type: ignore[method-assign]


def _dequantized(layer: Linear4bit, packed: torch.Tensor, weight: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The layer's answer from the weight that was dequantized, as long as the packed one is the layer's."""
    if layer.weight is not packed:  # an adapter was merged into it
        own: torch.Tensor = type(layer).forward(layer, values)
        return own
    bias = None if layer.bias is None else layer.bias.to(weight.dtype)
    return linear(values.to(weight.dtype), weight, bias).to(values.dtype)


def kept_weight(layer: Linear4bit) -> torch.Tensor | None:
    """The dequantized weight (outputs, inputs) that a layer answers from; None: it answers from the packed one."""
    forward = vars(layer).get("forward")
    if not isinstance(forward, partial) or forward.func is not _dequantized:
        return None
    owner, packed, weight = forward.args
    return weight if owner is layer and layer.weight is packed else None


def check_attention(settings: ModelSection) -> None:
    """Refuse Flash Attention 2 where it cannot run, before any weights are read.

    Raises:
        InputError: there is no GPU, or no package flash-attn. (Without it Transformers would take a kernel off the Hub,
            in the version of that day.)
    """
    if settings.attn_implementation != "flash_attention_2":
        return
    if DEVICE == "cpu":
        raise InputError("model.attn_implementation is 'flash_attention_2', which needs a GPU; use 'sdpa' on a CPU")
    if not is_flash_attn_2_available():
        raise InputError(
            "model.attn_implementation is 'flash_attention_2', but the package flash-attn (2.3.3 or newer) is not "
            "installed here; install it, or use 'sdpa'"
        )


def drop_generation_defaults(model: PreTrainedModel) -> None:
    """Drop the generation defaults that a model brings along, but for its end, padding and start tokens."""
    names = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(model.generation_config, name) for name in names})


def load(model_json: Path) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase, ModelDescription]:
    """A trained model as saved on disk, its tokenizer, and its description.

    For an adapter the model is a PeftModel: inside `model.disable_adapter()` it is the base model.

    Raises:
        InputError: the model, its base or its description is missing or corrupt.
    """
    description = read_description(model_json)
    tokenizer = load_tokenizer(Path(description.base))
    return load_result(description, model_json.parent / description.path), tokenizer, description


def load_result(description: ModelDescription, folder: Path) -> PreTrainedModel | PeftModel:
    """What a phase of the described training left in a folder: all weights, or an adapter on the base.

    Raises:
        InputError: it is missing or corrupt.
    """
    if description.kind == "full":
        return load_base(folder, description.model, description.quantization)
    base = load_base(Path(description.base), description.model, description.quantization)
    return load_adapter(base, folder, trainable=False)


def load_adapter(base: PreTrainedModel, folder: Path, trainable: bool) -> PeftModel:
    """A base model with a saved adapter on it.

    Raises:
        InputError: the adapter is missing or corrupt, or does not fit the base.
    """
    with refusing_corrupt(folder):
        model = PeftModel.from_pretrained(base, str(folder), is_trainable=trainable)
    return model if trainable else model.eval()
