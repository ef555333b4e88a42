"""What a trainer really trains with, read back from it and compared with what the recipe asked for.

A library may replace a setting in silence or with a warning (Unsloth does: batch size, clipping, masking, precision).
Such a run is not the recipe's, so it stops before its first step, with every changed field, what was asked and what
is there.
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
from grpo_cot.recipes.phases import DpoPhase, GrpoPhase, Phase, RejectionSamplingPhase, SftPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training.unsloth import library_class

Difference = tuple[str, Any, Any]  # field, asked, got
ABSENT = "nothing"
# What a recipe does not state, trainers may set for themselves where it changes no result: these, and without an
# evaluation in training those.
THEIR_OWN = {"gradient_checkpointing_kwargs", "label_names", "dataset_num_proc"}
OF_EVALUATION = {"bf16_full_eval", "fp16_full_eval", "eval_accumulation_steps"}
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def snapshot(configuration: Any) -> Any:
    """A copy of a resolved configuration that a trainer, which writes into its own, cannot change."""
    asked = copy.copy(configuration)
    for field in dataclasses.fields(configuration):
        if field.init:
            setattr(asked, field.name, copy.deepcopy(getattr(configuration, field.name)))
    return asked


def compare_settings(recipe: Recipe, phase: Phase, asked: Any, configuration: Any) -> None:
    """Compare the configuration that a trainer gets with the one that the library makes of the recipe alone.

    Raises:
        InputError: they differ; every such field is named.
    """
    _refuse(recipe, phase, _settings(phase, asked, configuration))


def compare(recipe: Recipe, phase: Phase, asked: Any, trainer: Any) -> None:
    """Compare a trainer, as made, with the recipe: settings, the loss's own attributes, batch, precision and model.

    `asked` is the configuration as the library resolved the recipe (`snapshot`), before any trainer saw it.

    Raises:
        InputError: something differs; every such field is named.
    """
    differences = [
        *_settings(phase, asked, trainer.args),
        *_attributes(phase, asked, trainer),
        *_weights(recipe, trainer.model),
        *_adapter(recipe, trainer.model),
        *_quantization(recipe, trainer.model),
        *_reference(recipe, phase, trainer),
    ]
    _refuse(recipe, phase, differences)


def compare_running(recipe: Recipe, phase: Phase, asked: Any, state: Any, running: dict[str, Any]) -> None:
    """Compare what exists only when training begins: optimizer, learning rates and gradient checkpointing.

    `state` and `running` (model, optimizer, lr_scheduler) are what a callback's `on_train_begin` gets.

    Raises:
        InputError: as `compare`.
    """
    _refuse(recipe, phase, _running(phase, asked, state, running))


def _refuse(recipe: Recipe, phase: Phase, differences: Iterator[Difference] | list[Difference]) -> None:
    said = "; ".join(f"{field} asked {_shown(asked)}, got {_shown(got)}" for field, asked, got in differences)
    if said:
        number = next(number for number, other in enumerate(recipe.phases, start=1) if other is phase)
        raise InputError(
            f"phases.{number}: the backend {recipe.backend} does not train what the recipe asks: {said}; state what "
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


def _same(name: str, wanted: Any, got: Any) -> bool:
    # Transformers writes "all tokens" as 0, vLLM as -1.
    return bool(wanted == got or (name == "top_k" and {wanted, got} <= {None, 0, -1}))


def _settings(phase: Phase, asked: Any, configuration: Any) -> Iterator[Difference]:
    evaluates = _plain(asked.eval_strategy) != "no"
    free = (THEIR_OWN if evaluates else THEIR_OWN | OF_EVALUATION) - phase.settings.keys()
    for field in dataclasses.fields(library_class(type(asked))):
        if not field.init or field.name in free:
            continue
        wanted, got = (_plain(getattr(owner, field.name)) for owner in (asked, configuration))
        if not _same(field.name, wanted, got):
            yield f"{phase.section}.{field.name}", wanted, got


def _attributes(phase: Phase, asked: Any, trainer: Any) -> Iterator[Difference]:
    """The trainer's own copies of its settings, which its loss and its sampling read."""
    # None leaves it to the trainer, and `generation_kwargs` are merged with the rest.
    values = {field.name: getattr(asked, field.name) for field in dataclasses.fields(asked) if field.init}
    wanted = {name: value for name, value in values.items() if value is not None and name != "generation_kwargs"}
    owners = [(trainer, wanted)]
    if isinstance(phase, GrpoPhase):
        wanted["epsilon_low"] = asked.epsilon
        wanted["epsilon_high"] = asked.epsilon if asked.epsilon_high is None else asked.epsilon_high
        wanted["reward_weights"] = torch.tensor(asked.reward_weights)
        sampling = {name: values[name] for name in SAMPLING} | (asked.generation_kwargs or {})
        length = asked.max_completion_length
        if phase.rollouts is None:
            sampling |= {"do_sample": True, "max_new_tokens": length}
            owners.append((trainer.generation_config, sampling))
        else:
            owners.append((trainer.vllm_generation, sampling | {"max_completion_length": length}))
    for owner, settings in owners:
        for name in settings.keys() & vars(owner).keys():
            asked_for, got = _plain(settings[name]), _plain(vars(owner)[name])
            if not _same(name, asked_for, got):
                yield f"{phase.section}.{name}", asked_for, got
    if trainer.args.n_gpu > 1:  # in one process, where each of them gets a batch
        batch = f"{trainer.args.train_batch_size} over {trainer.args.n_gpu} GPUs (give the step one of them)"
        yield f"{phase.section}.per_device_train_batch_size", asked.per_device_train_batch_size, batch
    precision = "bf16" if asked.bf16 else "fp16" if asked.fp16 else "no"
    if trainer.accelerator.mixed_precision != precision:
        yield f"{phase.section}.mixed_precision", precision, trainer.accelerator.mixed_precision
    if isinstance(phase, SftPhase | RejectionSamplingPhase):
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
    found = {_plain(parameter.dtype) for parameter in model.parameters() if parameter.requires_grad}
    if found != {trained}:
        yield "the type of what is trained", trained, ", ".join(sorted(found)) or ABSENT


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
    lora, asked, got = recipe.phases[0].lora, LoraConfig(**recipe.phases[0].lora), model.peft_config["default"]
    for name in lora.keys() - {"target_modules"}:
        if _plain(getattr(asked, name)) != _plain(getattr(got, name)):
            yield f"lora.{name}", _plain(getattr(asked, name)), _plain(getattr(got, name))
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    if isinstance(asked.target_modules, set) and not (asked.layers_to_transform or asked.exclude_modules):
        names = {name.removesuffix(".base_layer") for name, _ in model.named_modules()}
        wanted = {name for name in names if any(name.endswith(f".{target}") for target in asked.target_modules)}
        if missed := wanted ^ layers.keys():
            yield "lora.target_modules", sorted(asked.target_modules), f"{len(missed)} layers otherwise ({min(missed)})"
    if not (asked.rank_pattern or asked.alpha_pattern):
        scale = asked.lora_alpha / (math.sqrt(asked.r) if asked.use_rslora else asked.r)
        found = {(layer.r["default"], layer.scaling["default"]) for layer in layers.values()}
        if found != {(asked.r, scale)}:
            yield "lora.r and scale", (asked.r, scale), sorted(found)


def _quantization(recipe: Recipe, model: Any) -> Iterator[Difference]:
    """The quantized layers themselves: a configuration may be written over what a library did otherwise."""
    if recipe.quantization is None:
        if any(isinstance(module, Linear4bit | Linear8bitLt) for module in model.modules()):
            yield "quantization", None, "quantized layers"
        return
    asked = BitsAndBytesConfig(**recipe.quantization)
    kind = Linear4bit if asked.load_in_4bit else Linear8bitLt
    layers = [module for module in model.modules() if isinstance(module, kind)]
    if not layers:
        yield "quantization", "4 bits" if asked.load_in_4bit else "8 bits", ABSENT
    for layer in layers[:1] if asked.load_in_4bit else ():
        weight: Any = layer.weight
        state = weight.quant_state  # None where the weights are still to be sharded
        for name, got in (
            ("quant_type", weight.quant_type),
            ("use_double_quant", state.nested if state else asked.bnb_4bit_use_double_quant),
            ("compute_dtype", layer.compute_dtype),
            ("quant_storage", weight.quant_storage),
        ):
            wanted = getattr(asked, f"bnb_4bit_{name}")
            if wanted != got:
                yield f"quantization.bnb_4bit_{name}", _plain(wanted), _plain(got)


def _reference(recipe: Recipe, phase: Phase, trainer: Any) -> Iterator[Difference]:
    """What the KL is measured to: the base model in the first phase, then what the phase before left."""
    if not isinstance(phase, GrpoPhase | DpoPhase) or recipe.phases[0].lora is None or phase is recipe.phases[0]:
        return
    if phase.settings["beta"] and "ref" not in trainer.model.peft_config:
        yield f"{phase.section}.beta's reference", "what the phase before left", "the base model"


def _running(phase: Phase, asked: Any, state: Any, running: dict[str, Any]) -> Iterator[Difference]:
    section = phase.section
    if asked.max_steps > 0 and state.max_steps != asked.max_steps:
        yield f"{section}.max_steps", asked.max_steps, state.max_steps
    if state.train_batch_size != asked.per_device_train_batch_size:
        yield f"{section}.per_device_train_batch_size", asked.per_device_train_batch_size, state.train_batch_size
    if running["model"].is_gradient_checkpointing != asked.gradient_checkpointing:
        checkpointing = running["model"].is_gradient_checkpointing
        yield f"{section}.gradient_checkpointing", asked.gradient_checkpointing, checkpointing
    optimizer, scheduler = running["optimizer"], running["lr_scheduler"]
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    while hasattr(scheduler, "scheduler"):
        scheduler = scheduler.scheduler
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(asked, running["model"])
    if type(optimizer) is not kind:
        yield f"{section}.optim", kind.__name__, type(optimizer).__name__
    settings["weight_decay"] = asked.weight_decay
    for group in optimizer.param_groups[:1]:
        for name, wanted in settings.items():
            got = group.get("initial_lr" if name == "lr" else name, wanted)
            if _plain(got) != _plain(wanted):
                yield f"{section}.optim's {name}", _plain(wanted), _plain(got)
    expected = get_scheduler(
        asked.lr_scheduler_type, torch.optim.SGD([torch.zeros(1)], lr=asked.learning_rate),
        num_warmup_steps=asked.get_warmup_steps(state.max_steps), num_training_steps=state.max_steps,
        scheduler_specific_kwargs=asked.lr_scheduler_kwargs,
    )  # fmt: skip
    if type(scheduler) is not type(expected):
        yield f"{section}.lr_scheduler_type", type(expected).__name__, type(scheduler).__name__
    elif hasattr(expected, "lr_lambdas"):
        for step in range(state.max_steps):
            rates = [asked.learning_rate * curve.lr_lambdas[0](step) for curve in (expected, scheduler)]
            if rates[0] != rates[1]:
                yield f"{section}.lr_scheduler_type's rate at step {step}", *rates
                break
