"""Out of memory in the first minute instead of after hours, and then what to change.

Before a phase's first step its longest batch is run once. Covered: the weights, the optimiser's state (held free where
it is not there yet), the forward pass, the loss and the backward pass (twice where gradients are accumulated), what
the optimiser makes during its step, and where Transformers samples, the reading of all prompts and one token with the
keys and values of completions at full length. Not covered: what vLLM needs within its own share, evaluation, the
samples that a phase draws before it trains, and the fragments that free memory breaks into over many steps.
"""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, DynamicCache, TrainerCallback
from trl.models.utils import disable_gradient_checkpointing

from grpo_cot.files import InputError, read_json
from grpo_cot.memory.estimate import Blueprint, estimate, lengthen, sampled_token
from grpo_cot.models.loading import DEVICE
from grpo_cot.recipes.recipe import GrpoPhase, Phase, Recipe
from grpo_cot.training.workload import (
    USABLE,
    Workload,
    optimiser_state,
    optimiser_step,
    settings_with_defaults,
    workload,
)

GIB = 2**30


class LongestBatch(TrainerCallback):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Runs the probe when everything is as the first step will find it, also when training resumes."""

    def __init__(self, trainer: Any, phase: Phase, recipe: Recipe) -> None:
        """Probe this trainer, which trains that phase of the recipe."""
        self._arguments = (trainer, phase, recipe)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Run the probe, and say what it found where that is known."""
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        probe(*self._arguments)
        if DEVICE == "cuda" and state.is_world_process_zero:
            peak, whole = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
            print(f"The longest batch fits: {peak / GIB:.1f} of {whole / GIB:.1f} GiB.", flush=True)


def probe(trainer: Any, phase: Phase, recipe: Recipe) -> None:
    """Run the longest batch of a phase once, and leave everything as it was.

    `trainer` is prepared for training (as in a callback's `on_train_begin`). Weights, optimiser, gradients, metrics and
    random state are the same afterwards, so that what is trained is to the byte what it would be without. Nothing is
    run where several processes share one model's weights (FSDP, DeepSpeed): there gradients are not the trainer's own.

    Raises:
        torch.OutOfMemoryError: there is not enough memory.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return
    work = workload(recipe, recipe.phases.index(phase), on_gpu=DEVICE == "cuda")
    before, metrics = dict(vars(trainer)), copy.deepcopy(vars(trainer).get("_metrics"))
    modes = [(module, module.training) for module in trainer.model.modules()]
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.train()
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    device = trained[0].device
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            state, update = _optimiser(trainer, work, trained)
            held = torch.empty(state, dtype=torch.uint8, device=device)
            if isinstance(phase, GrpoPhase) and work.drawn and recipe.backend == "transformers":
                _sample(trainer, work, device)
            for _ in range(2 if work.accumulates else 1):
                _backward(trainer, phase, work, device)
            torch.empty(update, dtype=torch.uint8, device=device)
            del held
    finally:
        trainer.model.zero_grad(set_to_none=True)
        for module, training in modes:
            module.training = training
        vars(trainer).clear()
        vars(trainer).update(before | ({} if metrics is None else {"_metrics": metrics}))
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


def _optimiser(trainer: Any, work: Workload, trained: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Bytes that the optimiser will hold and does not yet, and those that it makes for a moment during its step; 0 of
    one that is not known, whose first step will show them."""
    shapes, width = [tuple(parameter.shape) for parameter in trained], trained[0].element_size()
    try:
        state = optimiser_state(work.optimiser, shapes, width)
    except InputError:
        return 0, 0
    return 0 if trainer.optimizer.state else state, optimiser_step(work.optimiser, shapes, width, on_gpu=work.on_gpu)


def _backward(trainer: Any, phase: Phase, work: Workload, device: torch.device) -> None:
    """The loss of the longest batch, and its gradients."""
    if not isinstance(phase, GrpoPhase):
        rows = trainer.train_dataset
        lengths = [sum(len(value) for value in row.values() if isinstance(value, list)) for row in rows]
        order = sorted(range(len(rows)), key=lambda index: -lengths[index])
        batch = trainer.data_collator([rows[index] for index in order[: trainer.args.per_device_train_batch_size]])
        trainer.training_step(trainer.model_wrapped, batch)
        return
    # training_step() would sample first: its batch is made here.
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model_wrapped, _completions(trainer, work, device))
    trainer.accelerator.backward(loss)


def _completions(trainer: Any, work: Workload, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch as GRPOTrainer makes it of its completions, all as long as can be, with one token of padding."""
    padding, ends = trainer.processing_class.pad_token_id, trainer.processing_class.eos_token_id
    token = next(number for number in range(3) if number not in (padding, ends))
    shape = (work.rows, work.targets)
    prompts = torch.full((work.rows, work.length - work.targets), token, device=device)
    prompts[0, 0] = padding
    completions = torch.full(shape, token, device=device)
    zeros = torch.zeros(shape, device=device)
    return {
        "prompt_ids": prompts, "prompt_mask": (prompts != padding).long(), "completion_ids": completions,
        "completion_mask": torch.ones_like(completions), "advantages": torch.ones(work.rows, device=device),
        "num_items_in_batch": torch.tensor(completions.numel(), device=device),
        **({"ref_per_token_logps": zeros} if trainer.args.beta else {}),
        **({"old_per_token_logps": zeros, "sampling_per_token_logps": zeros, "importance_sampling_ratio": zeros + 1}
           if trainer.args.use_vllm else {}),
    }  # fmt: skip


@torch.no_grad()
def _sample(trainer: Any, work: Workload, device: torch.device) -> None:
    """The reading of all prompts that are sampled from at once, and one token after completions at full length."""
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    model = model.get_base_model() if isinstance(model, PeftModel) else model  # as PEFT's generate() does
    cache = DynamicCache(config=model.config)
    with disable_gradient_checkpointing(model, trainer.args.gradient_checkpointing_kwargs):
        sampled_token(model, cache, work, work.drawn_prompt, work.drawn_prompt, str(device))
        lengthen(cache, work.drawn_length - 1)
        sampled_token(model, cache, work, 1, work.drawn_length, str(device))


def out_of_memory(recipe: Recipe, number: int, base: Path) -> InputError:
    """What to say when memory ran out in the phase of that number (from 1); to be asked while that error is handled."""
    if DEVICE != "cuda":
        return InputError(advice(recipe, number, base, None))
    free, whole = torch.cuda.mem_get_info()
    settings = settings_with_defaults(recipe.phases[number - 1])
    colocated = settings.get("use_vllm") and settings["vllm_mode"] == "colocate"
    vllm = settings["vllm_gpu_memory_utilization"] * whole if colocated else 0
    return InputError(advice(recipe, number, base, int(free + torch.cuda.memory_reserved() - vllm)))


def advice(recipe: Recipe, number: int, base: Path, available: int | None) -> str:
    """One sentence on which settings of the phase of that number (from 1) to change, and to what.

    `base` is the base's folder, `available` the bytes that training can have at most. Where both the backend and the
    memory are known, it is the first change by which the phase is estimated to fit; the estimate of the recipe as it
    stands is known to be too low by as much as it is below what was available, and all are raised by that.
    """
    phase = recipe.phases[number - 1]
    place = f"phases.{number}"
    begin = f"{place} ({phase.method}) needs more GPU memory than there is"
    options = list(_remedies(recipe, number))
    if not options:
        return f"{begin}, and nothing in it can be made smaller: use a larger GPU, or a smaller base"
    # Unsloth has rewritten the model's code, which the estimate would run, for a GPU alone.
    if available is None or recipe.backend == "unsloth":
        return f"{begin}: {_said(recipe, number, options[0])}"
    begin += f" ({available / GIB:.1f} GiB)"
    settings = read_json(base / "config.json")
    blueprint = Blueprint(
        AutoConfig.from_pretrained(base), settings.get("tie_word_embeddings") is False, recipe.model,
        recipe.quantization, recipe.phases[0].lora,
    )  # fmt: skip

    def needs(changed: Recipe) -> int:
        memory = estimate(blueprint, workload(changed, number - 1, on_gpu=True))
        return memory.total - memory.kept["CUDA itself"]

    try:
        correction = max(1.0, available / needs(recipe))
    except InputError:  # of an optimiser that is not known
        return f"{begin}: {_said(recipe, number, options[0])}"
    least = 0.0
    for changes in options:
        least = needs(_changed(recipe, number, changes)) * correction
        if least <= USABLE * available:
            return f"{begin}: {_said(recipe, number, changes)}; estimated to need {least / GIB:.1f} GiB then"
    return (
        f"{begin}: {_said(recipe, number, changes)}; but even then it is estimated to need {least / GIB:.1f} GiB: "
        "use a larger GPU, or a smaller base"
    )


def _remedies(recipe: Recipe, number: int) -> Iterator[dict[str, Any]]:
    """Changes of a phase's settings that need less memory and give a recipe that is valid; the harmless ones first.

    Smaller batches that add up to the same step, gradient checkpointing, both, and these with half of the length.
    """
    phase = recipe.phases[number - 1]
    settings = settings_with_defaults(phase)
    rows, accumulation = settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]
    splits: list[dict[str, Any]] = []
    for parts in range(2, rows + 1):
        if rows % parts == 0:
            split = {
                "per_device_train_batch_size": rows // parts, "gradient_accumulation_steps": accumulation * parts,
            }  # fmt: skip
            if phase.settings.get("steps_per_generation"):
                split["steps_per_generation"] = phase.settings["steps_per_generation"] * parts
            splits.append(split)
    checkpointing: list[dict[str, Any]] = (
        [] if settings["gradient_checkpointing"] else [{"gradient_checkpointing": True}]
    )
    both = [first | split for first in checkpointing for split in splits]
    name = "max_completion_length" if isinstance(phase, GrpoPhase) else "max_length"
    half = {name: settings[name] // 2} if settings.get(name) else {}
    smallest = [*checkpointing, *splits, *both][-1:] or [{}]
    shorter = [last | half for last in ({}, *checkpointing, *smallest)] if half else []
    for changes in [*splits, *checkpointing, *both, *shorter]:
        try:
            _changed(recipe, number, changes)
        except ValueError:
            continue
        yield changes


def _changed(recipe: Recipe, number: int, changes: dict[str, Any]) -> Recipe:
    content = recipe.model_dump()
    content["phases"][number - 1][recipe.phases[number - 1].section] |= changes
    return Recipe.model_validate(content)


def _said(recipe: Recipe, number: int, changes: dict[str, Any]) -> str:
    """`set phases.1.grpo.NAME to NEW (it is OLD) and ...`."""
    phase = recipe.phases[number - 1]
    settings = settings_with_defaults(phase)
    parts = [f"{name} to {str(value).lower()} (it is {str(settings[name]).lower()})" for name, value in changes.items()]
    *others, last = parts
    return f"set phases.{number}.{phase.section}.{', '.join(others)}{' and ' if others else ''}{last}"
