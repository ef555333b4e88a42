"""Whether the installed libraries accept a recipe, and can do together what it asks."""

import inspect
from pathlib import Path
from typing import Any

from grpo_cot.checks.audit import broken, judge
from grpo_cot.checks.backends.processes import check_accelerate
from grpo_cot.checks.backends.rollouts import check_rollouts
from grpo_cot.checks.backends.unsloth import check_unsloth
from grpo_cot.checks.rules import check_batches, check_before, check_merge, check_selection, check_training_sections
from grpo_cot.common.errors import InputError, naming, nearest
from grpo_cot.common.files import read_yaml
from grpo_cot.library.lora import check_lora, check_served
from grpo_cot.library.rehearsal import rehearse
from grpo_cot.library.settings import check_evaluate, check_greedy, check_sampling, check_section, construct
from grpo_cot.library.trial import try_optimiser, try_sampling
from grpo_cot.recipes.phases import GrpoPhase, Phase, PpoPhase, TrainerSection
from grpo_cot.recipes.recipe import PromptSection, Recipe
from grpo_cot.rewards.registry import reads_gold, reward_functions
from grpo_cot.vllm.arguments import load_arguments, sampling_parameters

PUBLISHED = Path(__file__).parent.parent / "reporting/published_results.yaml"


def check_recipe(recipe: Recipe, where: object) -> None:
    """Check a whole recipe.

    Raises:
        InputError: as `check_training`; the first problem is named.
    """
    check_training(recipe, where)
    check_prompt(recipe.prompt, where)
    rows = read_yaml(PUBLISHED)["rows"]
    if recipe.published_row is not None and recipe.published_row not in rows:
        hint = nearest(recipe.published_row, rows)
        raise InputError(f"{where}: published_row is {recipe.published_row!r}, no row of the published tables; {hint}")
    check_selection(recipe, where)
    check_before(recipe, where)
    check_merge(recipe, where)
    check_batches(recipe, where)
    check_sampling(recipe.check.sampling, f"{where}: check.sampling")
    check_evaluate(recipe.evaluate, where)
    if any(map(reads_gold, reward_functions(recipe.rewards)[0])):
        check_greedy(recipe.evaluate, where)
    if recipe.evaluate.engine == "vllm":
        check_served(recipe.phases[0].lora or {}, f"{where}: phases.1.lora", "set evaluate.engine to transformers")
        with naming(where):
            check_vllm_evaluation(recipe)
    if recipe.reward_model is not None:
        rehearse(recipe.reward_model, None, f"{where}: reward_model.training")
    for number, phase in enumerate(recipe.phases, start=1):
        rehearse(phase, recipe.phases[0].lora, f"{where}: phases.{number}.{phase.section}")
    with naming(where):
        judge(broken(recipe.rewards), {}, recipe.audit.allow)


def check_prompt(prompt: PromptSection, where: object) -> None:
    """Check that what a chat template is given is not what the steps decide.

    Raises:
        InputError: it is.
    """
    from transformers import PreTrainedTokenizerBase

    parameters = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    taken = {"messages", *parameters} - {"self", "kwargs", "tools", "documents"}
    if given := sorted(taken & prompt.chat_template_kwargs.keys()):
        raise InputError(f"{where}: prompt.chat_template_kwargs.{given[0]}: this is set by the steps; take it out")


def check_vllm_evaluation(recipe: Recipe) -> None:
    """Check that vLLM can answer the evaluation sets with what the recipe trains, hours before it has to.

    Raises:
        InputError: it has no counterpart of a sampling parameter, or cannot load the base so.
    """
    section = recipe.evaluate
    sampling_parameters(section.sampling, "evaluate.sampling")
    if section.samples is not None:
        sampling_parameters(section.samples.sampling, "evaluate.samples.sampling")
    asked, instead = "evaluate.engine is 'vllm'", "set evaluate.engine to transformers"
    if recipe.phases[0].architecture == "seq2seq":
        raise InputError(f"{asked}, which runs no encoder-decoders; {instead}")
    lora = recipe.phases[0].lora
    rank = None if lora is None else lora.get("r", 8)  # PEFT's default
    load_arguments(recipe.model, recipe.quantization, rank, asked=asked, instead=instead)


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
        other, bits = ("llm_int8_threshold", "8") if recipe.quantization.get("load_in_4bit") else ("bnb_4bit_", "4")
        if strange := sorted(key for key in recipe.quantization if key.startswith(other)):
            raise InputError(f"{place}.{strange[0]} is for a base in {bits} bits, which this is not; take it out")
    if recipe.accelerate is not None:
        check_accelerate(recipe, f"{where}: accelerate")
    if recipe.reward_model is not None:
        _check_trainer(recipe.reward_model, 1, f"{where}: reward_model.training")
    for number, phase in enumerate(recipe.phases, start=1):
        _check_phase(recipe, phase, f"{where}: phases.{number}")


def _check_trainer(part: TrainerSection, processes: int, where: str) -> None:
    check_section(part.section, part.settings, where)
    try_optimiser(construct(part.section, _settings_here(part, processes), where), where)


def _check_phase(recipe: Recipe, phase: Phase, where: str) -> None:
    from grpo_cot.rewards.sampling import SAMPLING  # which imports torch
    from grpo_cot.rewards.sampling import sampling_parameters as sampling_of

    _check_trainer(phase, recipe.processes, f"{where}.{phase.section}")
    if isinstance(phase, GrpoPhase):
        check_rollouts(recipe, phase, where)
    if isinstance(phase, GrpoPhase | PpoPhase):
        place = f"{where}.{phase.section}"
        # They go over the phase's other settings into the same class, which takes a misspelt one in silence.
        extra = phase.settings.get("generation_kwargs") or {}
        check_section("sampling", extra, f"{place}.generation_kwargs")
        if twice := sorted({*SAMPLING, "max_new_tokens", "do_sample"} & extra.keys()):
            raise InputError(
                f"{place}.generation_kwargs.{twice[0]}: completions are sampled as the phase's own settings say, "
                "by which they are scored as well; take it out"
            )
        if "stop_strings" in extra:
            raise InputError(
                f"{place}.generation_kwargs.stop_strings: the trainer gives its sampling no tokenizer to find "
                "them with; take it out"
            )
        construct("sampling", sampling_of(phase), place)
        try_sampling(sampling_of(phase), place)
    for name, section in phase.draws.items():
        check_sampling(section.sampling, f"{where}.{name}.sampling")
    if phase.lora is not None:
        check_section("lora", phase.lora, f"{where}.lora")
        if phase.lora.get("target_modules") is None:
            raise InputError(f"{where}.lora: 'target_modules' is missing; name the layers, or write all-linear")
        construct("lora", phase.lora, f"{where}.lora")
        check_lora(phase.lora, f"{where}.lora")


def _settings_here(part: TrainerSection, processes: int) -> dict[str, Any]:
    """A trainer's settings as this machine's library can construct them, though they are for another one."""
    import torch

    # What only a GPU has is checked by name; the constructor would look for it on this machine.
    settings = {key: value for key, value in part.settings.items() if key != "tf32"} | part.implied
    settings |= {"output_dir": "unused", "use_cpu": not torch.cuda.is_available()}
    if isinstance(part, GrpoPhase):  # groups may be spread over processes, of which there is one here
        settings["per_device_train_batch_size"] *= processes
    return settings
