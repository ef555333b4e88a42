"""The backend `unsloth`: TRL's trainers on Unsloth's model classes, which compute faster on one GPU.

Unsloth rewrites trl, transformers and peft when it is imported, so `enable` comes before any of them is, and importing
this module imports none. What it would change in a run is refused by `check` where the recipe shows it, kept from
happening by `explicit` where a stated value prevents it, and found by `faithful` where it happens anyway.
"""

import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_cot.files import InputError
from grpo_cot.recipes.recipe import GrpoPhase, LibrarySettings, Phase, Recipe, SftPhase

REWRITTEN = ("trl", "transformers", "peft")
# The settings of an engine that TRL would start; with sync 'shared' Unsloth starts it, without reading them.
ENGINE = ("vllm_enable_sleep_mode", "vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_model_impl")
# Unsloth's own losses and data preparation do not read these settings.
IGNORED = {"grpo": ("use_adaptive_entropy", "use_liger_kernel"), "sft": ("shuffle_dataset",)}


def check(recipe: Recipe, where: object) -> None:
    """Refuse what Unsloth cannot do or would do otherwise, before anything loads; other backends pass.

    Raises:
        InputError: the first such setting, and what to set instead.
    """
    if recipe.backend != "unsloth":
        return
    for number, phase in enumerate(recipe.phases, start=1):
        place = f"{where}: phases.{number}"
        if not isinstance(phase, SftPhase | GrpoPhase):
            raise InputError(
                f"{place}.method is {phase.method!r}, which the backend unsloth does not train here; expected sft or "
                "grpo, or backend: transformers"
            )
        _check_settings(recipe, phase, number, place)
    if recipe.phases[0].lora is None:
        raise InputError(
            f"{where}: phases.1.lora is null, but the backend unsloth trains adapters; give lora, or set backend to "
            "transformers"
        )
    for name in ("r", "lora_alpha"):
        if name not in recipe.phases[0].lora:
            raise InputError(f"{where}: phases.1.lora.{name} is missing, and Unsloth's default is not PEFT's; state it")
    start = recipe.phases[0].lora.get("init_lora_weights", True)
    if start not in (True, False, "gaussian", "orthogonal"):
        raise InputError(
            f"{where}: phases.1.lora.init_lora_weights is {start!r}, which the backend unsloth computes in its own "
            "way, so that the adapter would fit no base loaded later; take it out, or use transformers"
        )
    if recipe.accelerate is not None:
        raise InputError(f"{where}: accelerate must be null: the backend unsloth trains in one process, on one GPU")
    if recipe.model.attn_implementation == "eager":
        raise InputError(
            f"{where}: model.attn_implementation is 'eager', which the backend unsloth replaces by its own attention; "
            "set it to 'sdpa'"
        )
    if recipe.quantization is not None:
        _check_quantization(recipe, f"{where}: quantization")


def _check_quantization(recipe: Recipe, place: str) -> None:
    """Refuse any form of quantization but the one that Unsloth loads itself."""
    given = recipe.quantization or {}
    expected = {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": recipe.model.dtype,
    }  # fmt: skip
    for name, value in expected.items():
        if given.get(name) != value:
            raise InputError(
                f"{place}.{name} is {given.get(name)!r}, but the backend unsloth quantizes to NF4, doubly, and "
                f"computes in model.dtype; expected {value!r}, or backend: transformers"
            )
    if others := sorted(given.keys() - expected.keys()):
        raise InputError(f"{place}.{others[0]}: the backend unsloth does not read it; take it out")


def _check_settings(recipe: Recipe, phase: Phase, number: int, place: str) -> None:
    """Refuse a phase's settings that Unsloth would not follow."""
    settings = phase.settings
    place = f"{place}.{phase.section}"
    trained = "float16" if settings.get("fp16") else "bfloat16" if settings.get("bf16") is not False else "float32"
    if trained != recipe.model.dtype or trained == "float32":
        raise InputError(
            f"{place} trains in {trained} by its bf16 and fp16, and model.dtype is {recipe.model.dtype}: the backend "
            "unsloth wants both the same, bfloat16 (bf16: true) or float16 (fp16: true, bf16: false)"
        )
    for name in IGNORED[phase.section]:
        if settings.get(name):
            raise InputError(f"{place}.{name}: the backend unsloth ignores it; take it out, or use transformers")
    if isinstance(phase, GrpoPhase):
        _check_grpo(phase, number, place)


def _check_grpo(phase: GrpoPhase, number: int, place: str) -> None:
    settings = phase.grpo
    if settings.get("loss_type") == "dr_grpo" and settings.get("scale_rewards") == "group":
        raise InputError(
            f"{place}.scale_rewards is 'group', which the backend unsloth switches off for loss_type 'dr_grpo'; set it "
            "to 'none', or use another loss_type"
        )
    if settings.get("loss_type") in ("dapo", "cispo") and settings.get("epsilon_high") is None:
        raise InputError(
            f"{place}.epsilon_high is missing, and for loss_type {settings['loss_type']!r} the backend unsloth sets "
            "one of its own; state it (TRL's is the value of epsilon)"
        )
    if number > 1 and settings.get("beta"):
        raise InputError(
            f"{place}.beta is {settings['beta']}, but in a later phase the backend unsloth measures the KL to the base "
            "model instead of to what the phase before left; set it to 0.0, or use transformers"
        )
    if phase.rollouts is None:
        return
    for name in ENGINE:
        if settings.get(name):
            raise InputError(
                f"{place}.{name} is of an engine that TRL starts, but with rollouts.sync 'shared' Unsloth starts it; "
                "take it out"
            )
    if "vllm_gpu_memory_utilization" not in settings:
        raise InputError(f"{place}: 'vllm_gpu_memory_utilization' is missing: the share of the GPU that vLLM may fill")


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
    given = inspect.signature(configuration).parameters
    library = {
        field.name: field.default
        for field in dataclasses.fields(library_class(configuration))
        if field.init and field.default is not dataclasses.MISSING
    }
    changed = {name: value for name, value in library.items() if name in given and given[name].default != value}
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


def _lora(recipe: Recipe) -> LibrarySettings:
    return recipe.phases[0].lora or {}


def _checkpointing(phase: Phase) -> str | bool:
    """TRL's default is to checkpoint; Unsloth's own way computes the same and moves the checkpoints off the GPU."""
    return "unsloth" if phase.settings.get("gradient_checkpointing", True) else False
