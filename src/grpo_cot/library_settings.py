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
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from grpo_cot.files import InputError
from grpo_cot.recipes import Recipe
from grpo_cot.rewards import reward_functions
from grpo_cot.validation import nearest, shown

# What the libraries' code compares against, where their annotation says no more than `str` or nothing at all.
ALLOWED: dict[str, Any] = {
    "loss_type": Literal["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"],
    "scale_rewards": Literal["group", "batch", "none"],
    "importance_sampling_level": Literal["token", "sequence"],
    "multi_objective_aggregation": Literal["sum_then_normalize", "normalize_then_sum"],
    "vllm_mode": Literal["colocate", "server"],
    "vllm_importance_sampling_mode": Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"],
    "report_to": Literal["none", "wandb", "tensorboard"] | list[Literal["wandb", "tensorboard"]],
    "learning_rate": Annotated[float, Field(gt=0, allow_inf_nan=False)],
    "beta": Annotated[float, Field(ge=0, allow_inf_nan=False)],
    "max_steps": Annotated[int, Field(gt=0)],
    "max_completion_length": Annotated[int, Field(gt=0)],
    "num_generations": Annotated[int, Field(ge=2)],
    "logging_steps": Annotated[int, Field(gt=0)],
    "r": Annotated[int, Field(gt=0)],
    "lora_alpha": Annotated[int, Field(gt=0)],
    "lora_dropout": Annotated[float, Field(ge=0, lt=1)],
    "llm_int8_threshold": float,
    "load_in_4bit": bool,
    "load_in_8bit": bool,
    "llm_int8_skip_modules": list[str] | None,
    "bnb_4bit_quant_type": Literal["nf4", "fp4"],
    "bnb_4bit_use_double_quant": bool,
    "bnb_4bit_compute_dtype": Literal["float32", "bfloat16", "float16"],
    "bnb_4bit_quant_storage": Literal["uint8", "float16", "bfloat16", "float32"],
    "do_sample": bool,
    "max_new_tokens": Annotated[int, Field(gt=0)],
    "min_new_tokens": int,
    "num_beams": int,
    "stop_strings": list[str],
    "temperature": Annotated[float, Field(gt=0, allow_inf_nan=False)],
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
}
# What the pipeline sets itself, from params.yaml or from other sections.
OWNED = {
    "output_dir": "the step",
    "seed": "the run's seed in params.yaml",
    "data_seed": "the run's seed in params.yaml",
    "reward_weights": "the section 'rewards'",
    "chat_template_kwargs": "prompt.chat_template_kwargs",
    "resume_from_checkpoint": "the step, which resumes by itself",
    "push_to_hub": "the section 'publish'",
    "hub_token": "the environment of the step publish",
    "task_type": "the pipeline (CAUSAL_LM)",
    "inference_mode": "the step",
    "use_cpu": "the machine: a GPU is used where there is one",
    "auto_find_batch_size": "nobody: the batch is what per_device_train_batch_size says",
    "generation_batch_size": "per_device_train_batch_size and steps_per_generation",
    "eval_strategy": "nobody: the step evaluate judges the model",
    "eos_token_id": "the model",
    "pad_token_id": "the tokenizer",
    "num_return_sequences": "the step, which wants one completion a prompt",
    "return_dict_in_generate": "the step",
}
REQUIRED_GRPO = (
    "max_steps",
    "learning_rate",
    "max_completion_length",
    "beta",
    "loss_type",
    "scale_rewards",
    "temperature",
)


def accepted_keys(section: str) -> dict[str, Any]:
    """The keys that a recipe section may hold and the type of each, read from the installed library's class.

    Sections: grpo (trl.GRPOConfig), lora (peft.LoraConfig), quantization (transformers.BitsAndBytesConfig),
    sampling (transformers.GenerationConfig).
    """
    if section == "grpo":
        from trl import GRPOConfig

        annotations = typing.get_type_hints(GRPOConfig)
        fields = {field.name: annotations[field.name] for field in dataclasses.fields(GRPOConfig)}
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
    else:
        from transformers import GenerationConfig

        fields = {name: Any for name in vars(GenerationConfig()) if not name.startswith("_")}
    return {name: ALLOWED.get(name, _narrowed(annotation)) for name, annotation in fields.items()}


def check_section(section: str, settings: Mapping[str, Any], where: str) -> None:
    """Compare one recipe section with the library class it configures.

    Raises:
        InputError: a key that the class does not know (the nearest is named) or that the pipeline owns, or a value
            that its annotation or the library's own code does not allow.
    """
    accepted = accepted_keys(section)
    for key, value in settings.items():
        if key in OWNED and key in {**accepted, "task_type": str}:
            raise InputError(f"{where}.{key}: this is set by {OWNED[key]}; take it out of the recipe")
        if key not in accepted:
            raise InputError(f"{where}: unknown key {key!r}; {nearest(key, accepted.keys() - OWNED.keys())}")
        _check_value(accepted[key], value, f"{where}.{key}")
    if section == "grpo" and (missing := [key for key in REQUIRED_GRPO if key not in settings]):
        raise InputError(f"{where}: {missing[0]!r} is missing; the library's defaults change, so a recipe states it")


def check_rewards(rewards: Mapping[str, float], where: object) -> None:
    """Check that every reward that a recipe names exists.

    Raises:
        InputError: one does not; the nearest is named.
    """
    try:
        reward_functions(rewards)
    except ValueError as error:
        raise InputError(f"{where}: rewards: {error}") from None


def check_recipe(recipe: Recipe, where: object) -> None:
    """Check every library section of a recipe, and that the library's own class accepts it too.

    Raises:
        InputError: as `check_section`; the first problem is named.
    """
    import torch
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, GenerationConfig
    from trl import GRPOConfig

    check_rewards(recipe.rewards, where)
    if recipe.quantization is not None:
        place = f"{where}: quantization"
        check_section("quantization", recipe.quantization, place)
        if [recipe.quantization.get(flag, False) for flag in ("load_in_4bit", "load_in_8bit")].count(True) != 1:
            raise InputError(f"{place}: set one of load_in_4bit and load_in_8bit to true, or the whole section to null")
        _construct(BitsAndBytesConfig, recipe.quantization, place)
    for number, phase in enumerate(recipe.phases, start=1):
        place = f"{where}: phases.{number}"
        check_section("grpo", phase.grpo, f"{place}.grpo")
        # What only a GPU has is checked by name; the constructor would look for it on this machine.
        settings = {key: value for key, value in phase.grpo.items() if key != "tf32"}
        on_cpu = not torch.cuda.is_available()
        _construct(GRPOConfig, {**settings, "output_dir": "unused", "use_cpu": on_cpu}, f"{place}.grpo")
        if phase.lora is not None:
            check_section("lora", phase.lora, f"{place}.lora")
            if "target_modules" not in phase.lora:
                raise InputError(f"{place}.lora: 'target_modules' is missing; name the layers, or write all-linear")
            _construct(LoraConfig, phase.lora, f"{place}.lora")
    for name, sampling in (("check", recipe.check.sampling), ("evaluate", recipe.evaluate.sampling)):
        check_section("sampling", sampling, f"{where}: {name}.sampling")
        if "max_new_tokens" not in sampling:
            raise InputError(f"{where}: {name}.sampling: 'max_new_tokens' is missing")
        _construct(GenerationConfig, sampling, f"{where}: {name}.sampling")
    if recipe.evaluate.sampling.get("do_sample"):
        raise InputError(f"{where}: evaluate.sampling.do_sample is true, but accuracies are of greedy answers")


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
