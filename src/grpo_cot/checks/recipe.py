"""Whether the installed libraries accept a recipe, and can do together what it asks."""

from typing import Any

from grpo_cot.checks.processes import check_accelerate
from grpo_cot.checks.rollouts import check_rollouts
from grpo_cot.checks.rules import check_selection, check_training_sections
from grpo_cot.checks.unsloth import check_unsloth
from grpo_cot.common.errors import InputError, naming
from grpo_cot.library.lora import check_lora, check_served
from grpo_cot.library.settings import check_evaluate, check_sampling, check_section, construct
from grpo_cot.recipes.phases import GrpoPhase, Phase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.rewards.registry import reward_functions


def check_recipe(recipe: Recipe, where: object) -> None:
    """Check a whole recipe.

    Raises:
        InputError: as `check_training`; the first problem is named.
    """
    check_training(recipe, where)
    check_selection(recipe, where)
    check_sampling(recipe.check.sampling, f"{where}: check.sampling")
    check_evaluate(recipe.evaluate, where)
    if recipe.evaluate.engine == "vllm":
        check_served(recipe.phases[0].lora or {}, f"{where}: phases.1.lora", "set evaluate.engine to transformers")


def check_training(recipe: Recipe, where: object) -> None:
    """Check the sections that the steps audit and train read, by themselves and together.

    Raises:
        InputError: a section does not fit the others, a reward does not exist, or a library does not know or refuses a
            setting; the first problem is named.
    """
    check_training_sections(recipe, where)
    with naming(f"{where}: rewards"):
        reward_functions(recipe.rewards)
    check_unsloth(recipe, where)
    if recipe.quantization is not None:
        place = f"{where}: quantization"
        check_section("quantization", recipe.quantization, place)
        if [recipe.quantization.get(flag, False) for flag in ("load_in_4bit", "load_in_8bit")].count(True) != 1:
            raise InputError(f"{place}: set one of load_in_4bit and load_in_8bit to true, or the whole section to null")
        construct("quantization", recipe.quantization, place)
    if recipe.accelerate is not None:
        check_accelerate(recipe, f"{where}: accelerate")
    for number, phase in enumerate(recipe.phases, start=1):
        _check_phase(recipe, phase, f"{where}: phases.{number}")


def _check_phase(recipe: Recipe, phase: Phase, where: str) -> None:
    check_section(phase.section, phase.settings, f"{where}.{phase.section}")
    construct(phase.section, _settings_here(phase, recipe.processes), f"{where}.{phase.section}")
    if isinstance(phase, GrpoPhase):
        check_rollouts(recipe, phase, where)
        # They go over the phase's other settings into the same class, which takes a misspelt one in silence.
        check_section("sampling", phase.grpo.get("generation_kwargs") or {}, f"{where}.grpo.generation_kwargs")
    if phase.own_samples:
        check_sampling(phase.own_samples.sampling, f"{where}.samples.sampling")
    if phase.lora is not None:
        check_section("lora", phase.lora, f"{where}.lora")
        if "target_modules" not in phase.lora:
            raise InputError(f"{where}.lora: 'target_modules' is missing; name the layers, or write all-linear")
        construct("lora", phase.lora, f"{where}.lora")
        check_lora(phase.lora, f"{where}.lora")


def _settings_here(phase: Phase, processes: int) -> dict[str, Any]:
    """A phase's settings as this machine's library can construct them, though they are for another one."""
    import torch

    # What only a GPU has is checked by name; the constructor would look for it on this machine.
    settings = {key: value for key, value in phase.settings.items() if key != "tf32"}
    settings |= {"output_dir": "unused", "use_cpu": not torch.cuda.is_available()}
    if isinstance(phase, GrpoPhase):  # groups may be spread over processes, of which there is one here
        settings["per_device_train_batch_size"] *= processes
    return settings
