"""Layers of a base that an adapter can be trained on, and that the merge or vLLM would get wrong."""

from collections.abc import Iterator
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.vllm.arguments import ROLLOUTS_INSTEAD

# Kinds of models that vLLM 0.30 runs without adapters. A test compares.
WITHOUT_ADAPTERS = {
    "bloom", "cohere2_moe", "dbrx", "deepseek_v4", "falcon", "falcon_mamba", "gemma3n", "gemma3n_text", "gpt-sw3",
    "gpt2", "gpt_neox", "gptj", "hrm_text", "kimi_linear", "mamba", "mamba2", "mimo_v2_flash", "stablelm", "zamba2",
}  # fmt: skip


def check_layers(recipe: Recipe, model: nn.Module, base: str) -> None:
    """Refuse an adapter on layers of a base where the merge or vLLM would not carry it.

    vLLM adds an adapter to linear layers; to embeddings and the output matrix (the head) only in some of its models. A
    head that is the embeddings' own matrix is one in vLLM as well: it cannot hold one that is merged, and the other.

    Args:
        recipe: With `lora` in its first phase.
        model: The base with the adapter on it; it may be without content (`Blueprint`).
        base: Its name.

    Raises:
        InputError: the first such layer, and what to do.
    """
    where = "phases.1.lora"
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]  # type: ignore[operator]
    tied = len({id(_own(end).weight) for end in ends}) == 1
    names = {module: name for name, module in model.named_modules()}
    at_ends = [end for end in ends if isinstance(end, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    adapted = [names[end] for end in at_ends if isinstance(end, BaseTunerLayer)]
    together = bool((recipe.phases[0].lora or {}).get("ensure_weight_tying"))
    if tied and adapted and together:
        raise InputError(
            f"{where}.ensure_weight_tying is true, and {adapted[0]} has an adapter: on the base {base!r}, whose output "
            "matrix is that of its embeddings, PEFT puts it on the other one as well, and merges it into one of them; "
            "take ensure_weight_tying out, or name the module in modules_to_save"
        )
    unserved = [names[layer] for layer in _tuned(model) if layer in ends or not _linear(layer)]
    kind = model.config.model_type  # type: ignore[union-attr]
    for place, sync, instead in _served(recipe):
        if sync != "merge" and kind in WITHOUT_ADAPTERS:
            raise InputError(
                f"{where} is given and {place}, but vLLM takes no adapters on models of the kind of the base {base!r} "
                f"({kind}); {instead}"
            )
        if sync != "merge" and unserved:
            raise InputError(
                f"{where}.target_modules names {unserved[0]} of the base {base!r}, but {place}, and vLLM adds an "
                f"adapter to the linear layers alone; take it out, or {instead}"
            )
        if sync == "merge" and tied and at_ends and not together:
            raise InputError(
                f"{where} trains {names[at_ends[0]]}, but {place}, and the base {base!r} has one matrix for embeddings "
                f"and output, of which vLLM can hold one alone; take it out, name it in modules_to_save with "
                f"ensure_weight_tying true, or {instead}"
            )


def _served(recipe: Recipe) -> Iterator[tuple[str, str | None, str]]:
    """Where vLLM is asked with what the recipe trains: the place, how it gets it, and what to do without vLLM."""
    for number, phase in enumerate(recipe.phases, start=1):
        if isinstance(phase, GrpoPhase) and phase.rollouts is not None:
            sync = phase.rollouts.sync
            yield f"phases.{number}.rollouts.sync is {sync!r}", sync, ROLLOUTS_INSTEAD
    if recipe.evaluate.engine == "vllm":
        yield "evaluate.engine is 'vllm'", None, "set evaluate.engine to transformers"


def _tuned(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def _own(module: Any) -> Any:
    """The base's module under what PEFT put around it."""
    if isinstance(module, BaseTunerLayer):
        return module.get_base_layer()
    return module.original_module if isinstance(module, AuxiliaryTrainingWrapper) else module


def _linear(layer: Any) -> bool:
    return isinstance(layer.get_base_layer(), nn.Linear | Conv1D)
