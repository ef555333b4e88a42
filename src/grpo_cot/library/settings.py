"""Recipe sections compared with the libraries that they configure, without trust in the libraries' constructors.

Several of these classes swallow misspelt keys and wrong values in silence (`loss_type: grpoo`, a learning rate that is
text, `bias: nonee`). So keys are compared with the class's fields or signature, and values with its annotations and,
where an annotation is only `str`, with the values that the library's code knows (`ALLOWED`).
"""

import dataclasses
import enum
import importlib
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from grpo_cot.common.errors import InputError, shown
from grpo_cot.library.names import hint
from grpo_cot.library.trial import reason_of, try_sampling
from grpo_cot.library.values import ALLOWED, ALLOWED_IN, OWNED, OWNED_ACCELERATE, OWNED_SAMPLING
from grpo_cot.recipes.phases import PHASES, TrainerSection
from grpo_cot.recipes.recipe import EvaluateSection, RewardModelSection

# The sections of trainers, with the class of one phase that has the section, or of the reward model.
TRAINERS: dict[str, type[TrainerSection]] = {
    **{phase.section: phase for phase in PHASES}, RewardModelSection.section: RewardModelSection
}  # fmt: skip
CONFIGURATIONS = {
    "lora": "peft.LoraConfig",
    "quantization": "transformers.BitsAndBytesConfig",
    "sampling": "transformers.GenerationConfig",
    "accelerate": "accelerate.commands.config.config_args.ClusterConfig",
}
LAUNCHER = "accelerate launch"  # which reads fsdp_config and deepspeed_config


def configuration_class(section: str) -> Any:
    """The library's class that a recipe section configures."""
    if section in TRAINERS:
        return TRAINERS[section].configuration_class()
    module, _, name = CONFIGURATIONS[section].rpartition(".")
    return getattr(importlib.import_module(module), name)


def accepted_keys(section: str) -> dict[str, Any]:
    """The keys that a recipe section may hold and the type of each, read from the installed library's class.

    Sections: those of trainers and of `CONFIGURATIONS`, and of Accelerate's configuration file fsdp_config and
    deepspeed_config (the options of `accelerate launch` that they stand for).
    """
    if section in ("fsdp_config", "deepspeed_config"):
        from accelerate import DeepSpeedPlugin
        from accelerate.commands.launch import launch_command_parser

        # The launcher takes any key of these two and uses those that are options of its own.
        options = vars(launch_command_parser().parse_args(["unused"]))
        plugin = {field.name for field in dataclasses.fields(DeepSpeedPlugin)} if section == "deepspeed_config" else ()
        fields = {name: Any for name in options if name in plugin or name.startswith(section.replace("config", ""))}
    elif section == "sampling":
        fields = {name: Any for name in vars(configuration_class(section)()) if not name.startswith("_")}
    elif section == "quantization":
        parameters = inspect.signature(configuration_class(section).__init__).parameters.values()
        fields = {p.name: Any for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD}
    else:
        configuration = configuration_class(section)
        annotations = typing.get_type_hints(configuration)
        fields = {field.name: annotations[field.name] for field in dataclasses.fields(configuration)}
    allowed = ALLOWED | ALLOWED_IN.get(section, {})
    return {name: allowed.get(name, _narrowed(annotation)) for name, annotation in fields.items()}


def check_section(section: str, settings: Mapping[str, Any], where: str) -> None:
    """Compare one recipe section with the library class it configures.

    Raises:
        InputError: a key that the class does not know (the nearest is named) or that the pipeline owns, or a value
            that its annotation or the library's own code does not allow.
    """
    accepted = accepted_keys(section)
    owned = OWNED_ACCELERATE if section in ("accelerate", "fsdp_config", "deepspeed_config") else OWNED
    owned = owned | OWNED_SAMPLING if section == "sampling" else owned
    for key, value in settings.items():
        if key in owned and key in {**accepted, "task_type": str}:
            raise InputError(f"{where}.{key}: this is set by {owned[key]}; take it out of the recipe")
        if key not in accepted:
            owner = TRAINERS[section].configuration if section in TRAINERS else CONFIGURATIONS.get(section, LAUNCHER)
            raise InputError(f"{where}: unknown key {key!r}; {hint(key, accepted.keys() - owned.keys(), owner)}")
        _check_value(accepted[key], value, f"{where}.{key}")
    if section not in TRAINERS:
        return
    for names in TRAINERS[section].required:
        if not any(name in settings for name in names):
            expected = " or ".join(repr(name) for name in names)
            raise InputError(f"{where}: {expected} is missing; the library's defaults change, so a recipe states it")
    if "max_steps" in settings and "num_train_epochs" in settings:
        raise InputError(f"{where}: max_steps and num_train_epochs both say how long to train; take one of them out")
    selects = settings.get("eval_strategy", "no") != "no" or settings.get("load_best_model_at_end")
    if selects and not TRAINERS[section].selects:
        raise InputError(f"{where}.eval_strategy: no validation split fits the method {section}; take it out")


def check_sampling(sampling: Mapping[str, Any], where: str) -> None:
    """Check a section that configures how a model is sampled.

    Raises:
        InputError: as `check_section` and `construct`, or the limit is missing, or samples are not drawn at random.
    """
    check_section("sampling", sampling, where)
    if "max_new_tokens" not in sampling:
        raise InputError(f"{where}: 'max_new_tokens' is missing")
    if where.endswith(("samples.sampling", "pass_rates.sampling")) and not sampling.get("do_sample"):
        raise InputError(f"{where}.do_sample must be true: greedy samples of a problem are all the same")
    if sampling.get("min_new_tokens", 0) > sampling["max_new_tokens"]:
        raise InputError(
            f"{where}.min_new_tokens is {sampling['min_new_tokens']}, more than the {sampling['max_new_tokens']} of "
            "max_new_tokens; lower it"
        )
    configuration = construct("sampling", sampling, where)
    try:
        configuration.validate(
            strict=True
        )  # what has no effect beside the others, such as a temperature without chance
    except ValueError as error:
        raise InputError(f"{where}: {reason_of(error)}") from None
    try_sampling(sampling, where)


def check_evaluate(section: EvaluateSection, where: object) -> None:
    """Check how the evaluation sets are answered; `where` is the recipe.

    Raises:
        InputError: as `check_sampling`, or the engine cannot load an earlier phase.
    """
    check_sampling(section.sampling, f"{where}: evaluate.sampling")
    if section.engine == "vllm" and section.before is not None:
        raise InputError(
            f"{where}: evaluate.before is {section.before}, but evaluate.engine is 'vllm', which answers as the base "
            "and as the trained model alone; set evaluate.engine to transformers, or evaluate.before to null"
        )
    if section.samples is not None:
        check_sampling(section.samples.sampling, f"{where}: evaluate.samples.sampling")


def check_greedy(section: EvaluateSection, where: object) -> None:
    """Check that answers which are compared with final answers are greedy; `where` is the recipe.

    Raises:
        InputError: they are drawn.
    """
    if section.sampling.get("do_sample"):
        raise InputError(f"{where}: evaluate.sampling.do_sample is true, but accuracies are of greedy answers")


def construct(section: str, settings: Mapping[str, Any], where: str) -> Any:
    """The library's own class of a section, whose constructor refuses what it knows to be wrong.

    Raises:
        InputError: it refuses.
    """
    configuration = configuration_class(section)
    try:
        return configuration(**settings)
    except Exception as error:  # the libraries raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{where}: {configuration.__name__} refuses it: {reason}") from None


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
    expected = str(problem["msg"]).removeprefix("Input should be ").removeprefix("a valid ")
    return expected[0].lower() + expected[1:]


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
