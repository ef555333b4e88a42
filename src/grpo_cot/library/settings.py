"""Checking recipe sections against the libraries they configure, without trusting the libraries' constructors.

Several of these classes swallow misspelt keys and wrong values in silence (`loss_type: grpoo`, a learning rate that is
text, `bias: nonee`). So keys are compared with the class's fields or signature, and values with its annotations and,
where an annotation is only `str`, with the values that the library's code knows (`ALLOWED`).
"""

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from grpo_cot.errors import nearest, shown
from grpo_cot.files import InputError
from grpo_cot.library.values import ALLOWED, ALLOWED_IN, OWNED, OWNED_ACCELERATE, REQUIRED, SELECTING
from grpo_cot.recipes.recipe import DpoPhase, GrpoPhase, Phase, Recipe, RejectionSamplingPhase
from grpo_cot.rewards.ours import reward_functions
from grpo_cot.training import unsloth as unsloth_backend


def accepted_keys(section: str) -> dict[str, Any]:
    """The keys that a recipe section may hold and the type of each, read from the installed library's class.

    Sections: grpo, sft and dpo (trl's GRPOConfig, SFTConfig, DPOConfig), seq2seq
    (transformers.Seq2SeqTrainingArguments), lora (peft.LoraConfig), quantization (transformers.BitsAndBytesConfig),
    sampling (transformers.GenerationConfig), accelerate (its configuration file, ClusterConfig), and of that file
    fsdp_config and deepspeed_config (the options of `accelerate launch` that they stand for).
    """
    if section in REQUIRED:
        configuration = _trainer_class(section)
        annotations = typing.get_type_hints(configuration)
        fields = {field.name: annotations[field.name] for field in dataclasses.fields(configuration)}
    elif section == "lora":
        from peft import LoraConfig

        annotations = typing.get_type_hints(LoraConfig)
        fields = {field.name: annotations[field.name] for field in dataclasses.fields(LoraConfig)}
    elif section == "quantization":
        from transformers import BitsAndBytesConfig

        signature = inspect.signature(BitsAndBytesConfig.__init__)
        fields = {
            p.name: Any for p in signature.parameters.values() if p.name != "self" and p.kind is not p.VAR_KEYWORD
        }
    elif section == "accelerate":
        from accelerate.commands.config.config_args import ClusterConfig

        annotations = typing.get_type_hints(ClusterConfig)
        fields = {field.name: annotations[field.name] for field in dataclasses.fields(ClusterConfig)}
    elif section in ("fsdp_config", "deepspeed_config"):
        from accelerate import DeepSpeedPlugin
        from accelerate.commands.launch import launch_command_parser

        # The launcher takes any key of these two and uses those that are options of its own.
        options = vars(launch_command_parser().parse_args(["unused"]))
        plugin = {field.name for field in dataclasses.fields(DeepSpeedPlugin)} if section == "deepspeed_config" else ()
        fields = {name: Any for name in options if name in plugin or name.startswith(section.replace("config", ""))}
    else:
        from transformers import GenerationConfig

        fields = {name: Any for name in vars(GenerationConfig()) if not name.startswith("_")}
    allowed = ALLOWED | ALLOWED_IN.get(section, {})
    return {name: allowed.get(name, _narrowed(annotation)) for name, annotation in fields.items()}


def _trainer_class(section: str) -> Any:
    from transformers import Seq2SeqTrainingArguments
    from trl import DPOConfig, GRPOConfig, SFTConfig

    found = {"grpo": GRPOConfig, "sft": SFTConfig, "dpo": DPOConfig, "seq2seq": Seq2SeqTrainingArguments}[section]
    return unsloth_backend.library_class(found)


def check_section(section: str, settings: Mapping[str, Any], where: str) -> None:
    """Compare one recipe section with the library class it configures.

    Raises:
        InputError: a key that the class does not know (the nearest is named) or that the pipeline owns, or a value
            that its annotation or the library's own code does not allow.
    """
    accepted = accepted_keys(section)
    owned = OWNED_ACCELERATE if section in ("accelerate", "fsdp_config", "deepspeed_config") else OWNED
    for key, value in settings.items():
        if key in owned and key in {**accepted, "task_type": str}:
            raise InputError(f"{where}.{key}: this is set by {owned[key]}; take it out of the recipe")
        if key not in accepted:
            raise InputError(f"{where}: unknown key {key!r}; {nearest(key, accepted.keys() - owned.keys())}")
        _check_value(accepted[key], value, f"{where}.{key}")
    for names in REQUIRED.get(section, ()):
        if not any(name in settings for name in names):
            wanted = " or ".join(repr(name) for name in names)
            raise InputError(f"{where}: {wanted} is missing; the library's defaults change, so a recipe states it")
    selects = settings.get("eval_strategy", "no") != "no" or settings.get("load_best_model_at_end")
    if section in REQUIRED and section not in SELECTING and selects:
        raise InputError(f"{where}.eval_strategy: no validation split fits the method {section}; take it out")


def check_rewards(rewards: Mapping[str, float], where: object) -> None:
    """Check that every reward that a recipe names exists.

    Raises:
        InputError: one does not; the nearest is named.
    """
    try:
        reward_functions(rewards)
    except ValueError as error:
        raise InputError(f"{where}: rewards: {error}") from None


def check_accelerate(recipe: Recipe, where: str) -> None:
    """Check the section of several processes, and that Accelerate, TRL and bitsandbytes can do what it asks together.

    Raises:
        InputError: as `check_section`, or a combination that would fail, or be ignored in silence.
    """
    settings = recipe.accelerate or {}
    check_section("accelerate", settings, where)
    if "distributed_type" not in settings:
        raise InputError(f"{where}: 'distributed_type' is missing; expected MULTI_CPU, MULTI_GPU, FSDP or DEEPSPEED")
    kind = settings["distributed_type"]
    if settings.get("use_cpu", kind == "MULTI_CPU") != (kind == "MULTI_CPU"):
        raise InputError(
            f"{where}.use_cpu is {settings['use_cpu']}, which does not fit distributed_type {kind}: CPU processes are "
            "MULTI_CPU, the others need GPUs (on CPUs Accelerate shards nothing and does not say so)"
        )
    for section, owner in (("fsdp_config", "FSDP"), ("deepspeed_config", "DEEPSPEED")):
        if (kind == owner) != bool(settings.get(section)):
            found = "missing" if kind == owner else "given"
            raise InputError(
                f"{where}.{section} is {found}, but distributed_type is {kind}: it belongs to {owner} alone"
            )
        check_section(section, settings.get(section) or {}, f"{where}.{section}")
    sharding = None
    if kind == "FSDP":
        if "fsdp_version" not in settings["fsdp_config"]:
            raise InputError(f"{where}.fsdp_config: 'fsdp_version' is missing; expected 2, Accelerate's default is 1")
        sharding = "FSDP"
    elif kind == "DEEPSPEED":
        plugin = settings["deepspeed_config"]
        if "zero_stage" not in plugin:
            raise InputError(f"{where}.deepspeed_config: 'zero_stage' is missing; expected 1, 2 or 3")
        if plugin["zero_stage"] == 3:
            sharding = "ZeRO-3"
            if plugin.get("zero3_save_16bit_model") is not True:
                raise InputError(
                    f"{where}.deepspeed_config.zero3_save_16bit_model must be true at zero_stage 3: otherwise only "
                    "shards are saved, which no later step can load"
                )
    storage = (recipe.quantization or {}).get("bnb_4bit_quant_storage", "uint8")
    if sharding and recipe.quantization and not recipe.quantization.get("load_in_4bit"):
        raise InputError(
            f"{where}: {sharding} cannot shard a base quantized to 8 bits; set quantization to null or 4 bits"
        )
    if sharding and recipe.quantization and storage != recipe.model.dtype:
        raise InputError(
            f"{where}: {sharding} shards weights of one type only, so quantization.bnb_4bit_quant_storage must be "
            f"model.dtype ({recipe.model.dtype}), found {storage}"
        )
    for number, phase in enumerate(recipe.phases, start=1):
        trained = "fp16" if phase.settings.get("fp16") else "bf16" if phase.settings.get("bf16") is not False else "no"
        if settings.get("mixed_precision", trained) != trained:
            raise InputError(
                f"{where}.mixed_precision is {settings['mixed_precision']!r}, but phases.{number}.{phase.section} "
                f"trains in {trained!r} by its bf16 and fp16; make them agree, or leave mixed_precision out"
            )


def check_recipe(recipe: Recipe, where: object) -> None:
    """Check every library section of a recipe, and that the library's own class accepts it too.

    Raises:
        InputError: as `check_section`; the first problem is named.
    """
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    check_rewards(recipe.rewards, where)
    unsloth_backend.check(recipe, where)
    if recipe.quantization is not None:
        place = f"{where}: quantization"
        check_section("quantization", recipe.quantization, place)
        if [recipe.quantization.get(flag, False) for flag in ("load_in_4bit", "load_in_8bit")].count(True) != 1:
            raise InputError(f"{place}: set one of load_in_4bit and load_in_8bit to true, or the whole section to null")
        _construct(BitsAndBytesConfig, recipe.quantization, place)
    processes = 1
    if recipe.accelerate is not None:
        check_accelerate(recipe, f"{where}: accelerate")
        processes = recipe.accelerate["num_processes"]
    for number, phase in enumerate(recipe.phases, start=1):
        place = f"{where}: phases.{number}"
        check_section(phase.section, phase.settings, f"{place}.{phase.section}")
        _construct(_trainer_class(phase.section), _settings_here(phase, processes), f"{place}.{phase.section}")
        if isinstance(phase, GrpoPhase) and phase.rollouts is not None:
            from grpo_cot.training.rollouts import check_rollouts

            check_rollouts(recipe, phase, place)
        if isinstance(phase, RejectionSamplingPhase | DpoPhase):
            _check_sampling(phase.samples.sampling, f"{place}.samples.sampling")
        if phase.lora is not None:
            check_section("lora", phase.lora, f"{place}.lora")
            if "target_modules" not in phase.lora:
                raise InputError(f"{place}.lora: 'target_modules' is missing; name the layers, or write all-linear")
            _construct(LoraConfig, phase.lora, f"{place}.lora")
    _check_sampling(recipe.check.sampling, f"{where}: check.sampling")
    _check_sampling(recipe.evaluate.sampling, f"{where}: evaluate.sampling")
    if recipe.evaluate.sampling.get("do_sample"):
        raise InputError(f"{where}: evaluate.sampling.do_sample is true, but accuracies are of greedy answers")
    if recipe.evaluate.samples is not None:
        _check_sampling(recipe.evaluate.samples.sampling, f"{where}: evaluate.samples.sampling")


def _check_sampling(sampling: Mapping[str, Any], where: str) -> None:
    from transformers import GenerationConfig

    check_section("sampling", sampling, where)
    if "max_new_tokens" not in sampling:
        raise InputError(f"{where}: 'max_new_tokens' is missing")
    if where.endswith("samples.sampling") and not sampling.get("do_sample"):
        raise InputError(f"{where}.do_sample must be true: greedy samples of a problem are all the same")
    _construct(GenerationConfig, sampling, where)


def _settings_here(phase: Phase, processes: int) -> dict[str, Any]:
    """A phase's settings as this machine's library can construct them, though they are for another one."""
    import torch

    # What only a GPU has is checked by name; the constructor would look for it on this machine.
    settings = {key: value for key, value in phase.settings.items() if key != "tf32"}
    settings |= {"output_dir": "unused", "use_cpu": not torch.cuda.is_available()}
    if isinstance(phase, GrpoPhase):  # groups may be spread over processes, of which there is one here
        settings["per_device_train_batch_size"] *= processes
    return settings


def _construct(configuration: Any, settings: Mapping[str, Any], where: str) -> None:
    try:
        configuration(**settings)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(
            f"{where}: {configuration.__name__} refuses it: {' '.join(str(error).split())[:200]}"
        ) from None


def _check_value(annotation: Any, value: Any, where: str) -> None:
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
        adapter.validate_python(value)
    except PydanticUserError:
        return  # a type that only the library can judge
    except ValidationError as error:
        expected = " or ".join(dict.fromkeys(_expectation(problem) for problem in error.errors()))
        raise InputError(f"{where}: expected {expected}, found {shown(value)}") from None


def _expectation(problem: Any) -> str:
    if problem["type"] in ("literal_error", "enum"):
        return f"one of {problem['ctx']['expected']}"
    return str(problem["msg"]).removeprefix("Input should be ").removeprefix("a valid ")


def _narrowed(annotation: Any) -> Any:
    """The annotation with `Enum | str` narrowed to the enum's values, which is what the libraries mean by it."""
    members = (
        typing.get_args(annotation)
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
        else (annotation,)
    )
    enums = [member for member in members if isinstance(member, type) and issubclass(member, enum.Enum)]
    if not enums:
        return annotation
    values = tuple(item.value for item in enums[0])
    return Literal[values] | None if type(None) in members else Literal[values]
