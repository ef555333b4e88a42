"""The settings of a trainer as made, read back from it and compared with the recipe.

A library may replace a setting in silence or with a warning (Unsloth does: batch size, clipping, masking, precision).
Such a run is not the recipe's, so it stops before its first step, with every changed field, the value asked and the
value got.
"""

import copy
import dataclasses
import enum
import math
from collections.abc import Iterator
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import BitsAndBytesConfig, Trainer, get_scheduler
from transformers.integrations import is_deepspeed_zero3_enabled

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.phases import DpoPhase, GrpoPhase, Phase, PpoPhase, SftPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training.ppo.trainer import REFERENCE, VALUE_HEAD
from grpo_cot.training.unsloth import library_class

Difference = tuple[str, Any, Any]  # field, expected, actual
ABSENT = "nothing"
# What a recipe does not state, trainers may set for themselves where it changes no result: these, and without an
# evaluation in training those.
THEIR_OWN = {"gradient_checkpointing_kwargs", "label_names", "dataset_num_proc"}
OF_EVALUATION = {"bf16_full_eval", "fp16_full_eval", "eval_accumulation_steps"}
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def snapshot(configuration: Any) -> Any:
    """A copy of a resolved configuration that a trainer, which writes into its own, cannot change."""
    expected = copy.copy(configuration)
    for field in dataclasses.fields(configuration):
        if field.init:
            setattr(expected, field.name, copy.deepcopy(getattr(configuration, field.name)))
    return expected


def tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    """What of a tokenizer decides which tokens are trained, to compare after a trainer had its hands on it."""
    names = ("pad_token", "eos_token", "bos_token", "padding_side", "truncation_side", "chat_template")
    return {name: getattr(tokenizer, name) for name in names} | {"length": len(tokenizer)}


def compare_tokenizer(recipe: Recipe, phase: Phase, expected: dict[str, Any], trainer: Any) -> None:
    """Compare a trainer's tokenizer with the one that it was given (`tokenizer_facts`).

    Raises:
        InputError: as `compare`.
    """
    actual = tokenizer_facts(trainer.processing_class)
    differences = [(f"the tokenizer's {name}", value, actual[name]) for name, value in expected.items()]
    _refuse(recipe, phase, [difference for difference in differences if difference[1] != difference[2]])


def compare_settings(recipe: Recipe, phase: Phase, expected: Any, configuration: Any) -> None:
    """Compare the configuration that a trainer gets with the one that the library makes of the recipe alone.

    Raises:
        InputError: they differ; every such field is named.
    """
    _refuse(recipe, phase, _settings(phase, expected, configuration))


def compare(recipe: Recipe, phase: Phase, expected: Any, trainer: Any) -> None:
    """Compare a trainer, as made, with the recipe: settings, the loss's own attributes, batch, precision and model.

    `expected` is the configuration as the library resolved the recipe (`snapshot`), before any trainer saw it.

    Raises:
        InputError: something differs; every such field is named.
    """
    differences = [
        *_settings(phase, expected, trainer.args),
        *_attributes(phase, expected, trainer),
        *_weights(recipe, trainer.model),
        *_adapter(recipe, trainer.model),
        *_quantization(recipe, trainer.model),
        *_reference(recipe, phase, trainer),
    ]
    _refuse(recipe, phase, differences)


def compare_running(recipe: Recipe, phase: Phase, expected: Any, state: Any, running: dict[str, Any]) -> None:
    """Compare what exists only when training begins: optimizer, learning rates and gradient checkpointing.

    `state` and `running` (model, optimizer, lr_scheduler) are what a callback's `on_train_begin` gets.

    Raises:
        InputError: as `compare`.
    """
    _refuse(recipe, phase, _running(phase, expected, state, running))


def _refuse(recipe: Recipe, phase: Phase, differences: Iterator[Difference] | list[Difference]) -> None:
    message = "; ".join(
        f"{field} asked {_shown(expected)}, got {_shown(actual)}" for field, expected, actual in differences
    )
    if message:
        number = next(number for number, other in enumerate(recipe.phases, start=1) if other is phase)
        raise InputError(
            f"phases.{number}: the backend {recipe.backend} does not train what the recipe asks: {message}; state what "
            "it does, or use another backend"
        )


def _shown(value: Any) -> str:
    return value if value is ABSENT else repr(value)


def _plain(value: Any) -> Any:
    """A setting in the form in which two of them can be compared."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return list(value) if isinstance(value, tuple | set) else value


def _same(name: str, value: Any, actual: Any) -> bool:
    # Transformers writes "all tokens" as 0, vLLM as -1.
    return bool(value == actual or (name == "top_k" and {value, actual} <= {None, 0, -1}))


def _settings(phase: Phase, expected: Any, configuration: Any) -> Iterator[Difference]:
    evaluates = _plain(expected.eval_strategy) != "no"
    free = (THEIR_OWN if evaluates else THEIR_OWN | OF_EVALUATION) - phase.settings.keys()
    for field in dataclasses.fields(library_class(type(expected))):
        if not field.init or field.name in free:
            continue
        value, actual = (_plain(getattr(owner, field.name)) for owner in (expected, configuration))
        if not _same(field.name, value, actual):
            yield f"{phase.section}.{field.name}", value, actual


def _attributes(phase: Phase, expected: Any, trainer: Any) -> Iterator[Difference]:
    """The trainer's own copies of its settings, which its loss and its sampling read."""
    # None leaves it to the trainer, and `generation_kwargs` are merged with the rest.
    values = {field.name: getattr(expected, field.name) for field in dataclasses.fields(expected) if field.init}
    stated = {name: value for name, value in values.items() if value is not None and name != "generation_kwargs"}
    owners = [(trainer, stated)]
    if isinstance(phase, GrpoPhase):
        stated["epsilon_low"] = expected.epsilon
        stated["epsilon_high"] = expected.epsilon if expected.epsilon_high is None else expected.epsilon_high
        stated["reward_weights"] = torch.tensor(expected.reward_weights)
        sampling = {name: values[name] for name in SAMPLING} | (expected.generation_kwargs or {})
        length = expected.max_completion_length
        if phase.rollouts is None:
            sampling |= {"do_sample": True, "max_new_tokens": length}
            owners.append((trainer.generation_config, sampling))
        else:
            owners.append((trainer.vllm_generation, sampling | {"max_completion_length": length}))
    if isinstance(phase, PpoPhase):
        sampling = {"do_sample": True, "max_new_tokens": expected.max_completion_length}
        sampling |= {"temperature": expected.temperature, **(expected.generation_kwargs or {})}
        owners.append((trainer.generation_config, sampling))
    for owner, settings in owners:
        for name in settings.keys() & vars(owner).keys():
            value, actual = _plain(settings[name]), _plain(vars(owner)[name])
            if not _same(name, value, actual):
                yield f"{phase.section}.{name}", value, actual
    if trainer.args.n_gpu > 1:  # in one process, where each of them gets a batch
        batch = f"{trainer.args.train_batch_size} over {trainer.args.n_gpu} GPUs (give the step one of them)"
        yield f"{phase.section}.per_device_train_batch_size", expected.per_device_train_batch_size, batch
    precision = "bf16" if expected.bf16 else "fp16" if expected.fp16 else "no"
    if trainer.accelerator.mixed_precision != precision:
        yield f"{phase.section}.mixed_precision", precision, trainer.accelerator.mixed_precision
    if isinstance(phase, SftPhase):
        labels = trainer.train_dataset[0].get("labels", [ABSENT])
        if labels[0] != -100:  # every row begins with the prompt
            yield "sft.completion_only_loss", True, False
    if isinstance(phase, GrpoPhase) and phase.rollouts is not None and phase.rollouts.sync == "shared":
        shared = getattr(trainer.model, "vllm_engine", None)
        if shared is None or trainer.vllm_generation.llm is not shared:
            yield "rollouts.sync", "shared", "an engine with weights of its own"


def _weights(recipe: Recipe, model: Any) -> Iterator[Difference]:
    """The type of the base's weights and of those that are trained, and how attention is computed."""
    if model.config._attn_implementation != recipe.model.attn_implementation:
        yield "model.attn_implementation", recipe.model.attn_implementation, model.config._attn_implementation
    if is_deepspeed_zero3_enabled():  # holds shards, in types of its own
        return
    kept = _plain(model.get_input_embeddings().weight.dtype)
    if kept != recipe.model.dtype:
        yield "model.dtype", recipe.model.dtype, kept
    # The adapter is trained in float32 (grpo_cot.training.phases), all weights in the base's type.
    trained = "float32" if recipe.phases[0].lora is not None else recipe.model.dtype
    actual_types = {
        _plain(parameter.dtype)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(VALUE_HEAD)  # PPO's, in float32 always
    }
    if actual_types != {trained}:
        yield "the type of what is trained", trained, ", ".join(sorted(actual_types)) or ABSENT


def _adapter(recipe: Recipe, model: Any) -> Iterator[Difference]:
    """The adapter's configuration, and on which layers with which rank and scale it lies."""
    if recipe.phases[0].lora is None:
        if isinstance(model, PeftModel):
            yield "lora", None, "an adapter"
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        if frozen:
            yield "the weights that are trained", "all", f"{frozen[0]} and {len(frozen) - 1} others are not"
        return
    if not isinstance(model, PeftModel):
        yield "lora", "an adapter", ABSENT
        return
    lora, expected, actual = recipe.phases[0].lora, LoraConfig(**recipe.phases[0].lora), model.peft_config["default"]
    for name in lora.keys() - {"target_modules"}:
        if _plain(getattr(expected, name)) != _plain(getattr(actual, name)):
            yield f"lora.{name}", _plain(getattr(expected, name)), _plain(getattr(actual, name))
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    if isinstance(expected.target_modules, set) and not (expected.layers_to_transform or expected.exclude_modules):
        names = {name.removesuffix(".base_layer") for name, _ in model.named_modules()}
        targets = {name for name in names if any(name.endswith(f".{target}") for target in expected.target_modules)}
        if missed := targets ^ layers.keys():
            others = f"{len(missed)} layers otherwise ({min(missed)})"
            yield "lora.target_modules", sorted(expected.target_modules), others
    if not (expected.rank_pattern or expected.alpha_pattern):
        scale = expected.lora_alpha / (math.sqrt(expected.r) if expected.use_rslora else expected.r)
        scales = {(layer.r["default"], layer.scaling["default"]) for layer in layers.values()}
        if scales != {(expected.r, scale)}:
            yield "lora.r and scale", (expected.r, scale), sorted(scales)


def _quantization(recipe: Recipe, model: Any) -> Iterator[Difference]:
    """The quantized layers themselves: a configuration may be written over what a library did otherwise."""
    if recipe.quantization is None:
        if any(isinstance(module, Linear4bit | Linear8bitLt) for module in model.modules()):
            yield "quantization", None, "quantized layers"
        return
    expected = BitsAndBytesConfig(**recipe.quantization)
    kind = Linear4bit if expected.load_in_4bit else Linear8bitLt
    layers = [module for module in model.modules() if isinstance(module, kind)]
    if not layers:
        yield "quantization", "4 bits" if expected.load_in_4bit else "8 bits", ABSENT
    for layer in layers[:1] if expected.load_in_4bit else ():
        weight: Any = layer.weight
        state = weight.quant_state  # None where the weights are still to be sharded
        for name, actual in (
            ("quant_type", weight.quant_type),
            ("use_double_quant", state.nested if state else expected.bnb_4bit_use_double_quant),
            ("compute_dtype", layer.compute_dtype),
            ("quant_storage", weight.quant_storage),
        ):
            value = getattr(expected, f"bnb_4bit_{name}")
            if value != actual:
                yield f"quantization.bnb_4bit_{name}", _plain(value), _plain(actual)


def _reference(recipe: Recipe, phase: Phase, trainer: Any) -> Iterator[Difference]:
    """What the KL is measured to: the base model in the first phase, then what the phase before left."""
    if not isinstance(phase, GrpoPhase | DpoPhase | PpoPhase) or recipe.phases[0].lora is None:
        return
    penalty = "init_kl_coef" if isinstance(phase, PpoPhase) else "beta"
    if phase is not recipe.phases[0] and phase.settings[penalty] and REFERENCE not in trainer.model.peft_config:
        yield f"{phase.section}.{penalty}'s reference", "what the phase before left", "the base model"


def _running(phase: Phase, expected: Any, state: Any, running: dict[str, Any]) -> Iterator[Difference]:
    section = phase.section
    if expected.max_steps > 0 and state.max_steps != expected.max_steps:
        yield f"{section}.max_steps", expected.max_steps, state.max_steps
    if state.train_batch_size != expected.per_device_train_batch_size:
        yield f"{section}.per_device_train_batch_size", expected.per_device_train_batch_size, state.train_batch_size
    if running["model"].is_gradient_checkpointing != expected.gradient_checkpointing:
        checkpointing = running["model"].is_gradient_checkpointing
        yield f"{section}.gradient_checkpointing", expected.gradient_checkpointing, checkpointing
    optimizer, scheduler = running["optimizer"], running["lr_scheduler"]
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    while hasattr(scheduler, "scheduler"):
        scheduler = scheduler.scheduler
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(expected, running["model"])
    if type(optimizer) is not kind:
        yield f"{section}.optim", kind.__name__, type(optimizer).__name__
    settings["weight_decay"] = expected.weight_decay
    for group in optimizer.param_groups[:1]:
        for name, value in settings.items():
            actual = group.get("initial_lr" if name == "lr" else name, value)
            if _plain(actual) != _plain(value):
                yield f"{section}.optim's {name}", _plain(value), _plain(actual)
    schedule = get_scheduler(
        expected.lr_scheduler_type, torch.optim.SGD([torch.zeros(1)], lr=expected.learning_rate),
        num_warmup_steps=expected.get_warmup_steps(state.max_steps), num_training_steps=state.max_steps,
        scheduler_specific_kwargs=expected.lr_scheduler_kwargs,
    )  # fmt: skip
    if type(scheduler) is not type(schedule):
        yield f"{section}.lr_scheduler_type", type(schedule).__name__, type(scheduler).__name__
    elif hasattr(schedule, "lr_lambdas"):
        for step in range(state.max_steps):
            rates = [expected.learning_rate * curve.lr_lambdas[0](step) for curve in (schedule, scheduler)]
            if rates[0] != rates[1]:
                yield f"{section}.lr_scheduler_type's rate at step {step}", *rates
                break
