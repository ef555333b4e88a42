"""The backend `unsloth`: TRL's trainers on Unsloth's model classes, which compute faster on one GPU.

Unsloth rewrites trl, transformers and peft when it is imported, so `enable` comes before any of them is, and importing
this module imports none. Where a recipe shows that it would change the run, `grpo_cot.checks.backends.unsloth` refuses
it. Where a stated value prevents the change, `explicit` states it. Where it happens anyway, `faithful` finds it.
"""

import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message
from grpo_cot.recipes.phases import GrpoPhase, LibrarySettings, Phase
from grpo_cot.recipes.recipe import Recipe

# What the names of special tokens hold that no text uses.
SPARE = ("pad", "reserved", "unused", "placeholder", "dummy")
REWRITTEN = ("trl", "transformers", "peft")


def enable() -> None:
    """Import Unsloth, which rewrites the libraries of this process; the first thing that a training process does.

    Raises:
        InputError: it is not installed, or the machine has no GPU.
    """
    if early := [name for name in REWRITTEN if name in sys.modules]:
        raise RuntimeError(f"{early[0]} was imported before Unsloth, which can then not rewrite all of it")
    # It writes the trainers that it makes up to a folder, by default in the repository, and counts its users.
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", ".cache/unsloth")
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    try:
        importlib.import_module("unsloth")
    except ModuleNotFoundError as error:
        raise InputError(
            f"backend is unsloth, but {error.name} is not installed here; run in the image cuda (make images "
            "IMAGES=cuda, GRPO_COT_ENGINE=docker), or set backend to transformers"
        ) from error
    except NotImplementedError as error:
        raise InputError(
            f"backend is unsloth, which needs a GPU ({' '.join(str(error).split())}); run the step where there is one, "
            "or set backend to transformers"
        ) from error


def library_class(configuration: type) -> Any:
    """The library's own configuration class, below the one that Unsloth puts in its place under the same name."""
    name = configuration.__name__.removeprefix("Unsloth")
    return [base for base in configuration.__mro__ if base.__name__ == name][-1]


def explicit(configuration: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with every default that Unsloth's configuration class changes stated at the library's own value."""
    parameters = inspect.signature(configuration).parameters
    library = {
        field.name: field.default
        for field in dataclasses.fields(library_class(configuration))
        if field.init and field.default is not dataclasses.MISSING
    }
    changed = {
        name: value for name, value in library.items() if name in parameters and parameters[name].default != value
    }
    return {**changed, **settings}


def sequence_length(recipe: Recipe, phase: Phase) -> int:
    """The tokens of the longest sequence that a phase trains on: longer ones Unsloth would cut without a word."""
    if isinstance(phase, GrpoPhase):
        return int(recipe.prompt.max_prompt_length + phase.grpo["max_completion_length"])
    return int(phase.settings["max_length"])


def load(recipe: Recipe, phase: Phase, base: Path, before: Path | None, seed: int) -> Any:
    """The base in Unsloth's classes with the recipe's adapter on it: a new one, or that of the phase before.

    With `rollouts.sync` 'shared' the model has a `vllm_engine`, which samples with the same weights.

    Raises:
        InputError: files are missing or corrupt, or the sequences are longer than the model or vLLM can take.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig

    from grpo_cot.models.loading import check_attention, drop_generation_defaults
    from grpo_cot.models.tokenizers import refusing_corrupt

    check_attention(recipe.model)
    torch.set_num_threads(recipe.model.threads)
    length = sequence_length(recipe, phase)
    with refusing_corrupt(base):
        positions = AutoConfig.from_pretrained(base).max_position_embeddings
    if length > positions:
        raise InputError(
            f"{phase.section}: the longest sequence is {length} tokens, but {base} has {positions} positions, and "
            "Unsloth would stretch them; shorten prompt.max_prompt_length or the completion"
        )
    fast_language_model = importlib.import_module("unsloth").FastLanguageModel
    try:
        # Its tokenizer is dropped: prompts are measured, and answers evaluated, with the base's own.
        model, _ = fast_language_model.from_pretrained(
            **base_arguments(recipe, phase, base, seed), dtype=getattr(torch, recipe.model.dtype)
        )
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{base}: the model cannot be loaded, its files are corrupt or incomplete ({error}); restore them"
        ) from error
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError) as error:  # so vLLM says that its share is too small
        raise InputError(
            f"{base}: Unsloth cannot load it: {' '.join(str(error).split())[:300]}; where it is vLLM that lacks "
            "memory, raise grpo.vllm_gpu_memory_utilization"
        ) from error
    drop_generation_defaults(model)
    if hasattr(model, "vllm_engine"):
        limit = model.vllm_engine.llm_engine.vllm_config.model_config.max_model_len
        if limit < length:
            raise InputError(
                f"grpo.vllm_gpu_memory_utilization is {phase.settings['vllm_gpu_memory_utilization']}, which leaves "
                f"vLLM room for {limit} tokens of the {length} that a sequence may have; raise it"
            )
    model = fast_language_model.get_peft_model(model, **adapter_arguments(recipe, phase, seed))
    if before is not None:
        with refusing_corrupt(before):
            absent = model.load_adapter(str(before), "default", is_trainable=True).missing_keys
            if absent:
                raise ValueError(f"{len(absent)} weights of the adapter are missing, {absent[0]} first")
    return model


def base_arguments(recipe: Recipe, phase: Phase, base: Path, seed: int) -> dict[str, Any]:
    """The arguments of FastLanguageModel.from_pretrained, but for the dtype, which is torch's."""
    arguments = {
        "model_name": str(base),
        "max_seq_length": sequence_length(recipe, phase),
        "load_in_4bit": recipe.quantization is not None,
        "device_map": {"": 0},
        "use_gradient_checkpointing": _checkpointing(phase),
        "random_state": seed,
        "fix_tokenizer": False,
        "use_exact_model_name": True,  # and not a copy of the base on the Hub, quantized by Unsloth
        "local_files_only": True,
        "offload_embedding": False,
        "fast_inference": False,
    }
    if isinstance(phase, GrpoPhase) and phase.rollouts is not None:
        arguments["fast_inference"] = True
        arguments["gpu_memory_utilization"] = phase.grpo["vllm_gpu_memory_utilization"]
        arguments["max_lora_rank"] = _lora(recipe)["r"]
    return arguments


def adapter_arguments(recipe: Recipe, phase: Phase, seed: int) -> dict[str, Any]:
    """The arguments of FastLanguageModel.get_peft_model: the recipe's own words, and what else decides the adapter."""
    return {**_lora(recipe), "random_state": seed, "use_gradient_checkpointing": _checkpointing(phase)}


def pad_apart(tokenizer: Any, messages: Sequence[Message], rows: int) -> None:
    """Give a tokenizer that pads with a token of its texts (Llama 3.2: the end token) a padding token of its own.

    Unsloth finds padding by the token's id. It would cut that token out of prompts, and mask it in completions, so that
    the end would never be trained. `messages` are a prompt, `rows` the tokens that the model has an embedding for.

    Raises:
        InputError: the tokenizer has no spare special token.
    """
    turns = [*messages, {"role": "assistant", "content": ""}]
    used = {tokenizer.eos_token_id, *tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)}
    if tokenizer.pad_token_id not in used:
        return
    spare = [
        token.content
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and number < rows and number not in used
    ]
    named = [token for word in SPARE for token in spare if word in token.lower()]
    if not named:
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer pads with {tokenizer.pad_token!r}, which its texts hold as well; "
            "the backend unsloth would take these for padding, and there is no spare token to pad with; set backend to "
            "transformers"
        )
    tokenizer.pad_token = named[0]


def _lora(recipe: Recipe) -> LibrarySettings:
    return recipe.phases[0].lora or {}


def _checkpointing(phase: Phase) -> str | bool:
    """TRL's default is to checkpoint; Unsloth's own way computes the same and moves the checkpoints off the GPU."""
    return "unsloth" if phase.settings.get("gradient_checkpointing", True) else False
