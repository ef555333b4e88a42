"""Out of memory in the first minute instead of after hours.

Before a phase's first step its longest batch is run once. Covered: the weights, the optimiser's state (held free where
it is not there yet), the forward pass, the loss and the backward pass (twice where gradients are accumulated), what
the optimiser makes during its step, and where Transformers samples, the reading of all prompts and one token with the
keys and values of completions at full length. Not covered: what vLLM needs within its own share, evaluation, the
samples that a phase draws before it trains, and the fragments that free memory breaks into over many steps.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache, TrainerCallback
from trl.models.utils import disable_gradient_checkpointing

from grpo_cot.common.errors import InputError
from grpo_cot.models.loading import DEVICE
from grpo_cot.recipes.phases import Phase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training.methods.registry import workload
from grpo_cot.training.shared_prompts import as_read
from grpo_cot.training.workload import Workload, optimiser_state, optimiser_step

GIB = 2**30
SAMPLES_ITSELF = ("selected", "actor_critic")  # trainers with such a loss make their batches in the training step


class LongestBatch(TrainerCallback):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Runs the probe when everything is as the first step will find it, also when training resumes."""

    def __init__(self, trainer: Any, recipe: Recipe, phase: Phase) -> None:
        """Probe this trainer, which trains that phase of the recipe."""
        self._arguments = (trainer, recipe, phase)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Run the probe, and say what it found where that is known."""
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        probe(*self._arguments)
        if DEVICE == "cuda" and state.is_world_process_zero:
            peak, whole = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
            print(f"The longest batch fits: {peak / GIB:.1f} of {whole / GIB:.1f} GiB.", flush=True)


def probe(trainer: Any, recipe: Recipe, phase: Phase) -> None:
    """Run the longest batch of a phase once, and leave everything as it was.

    `trainer` is prepared for training (as in a callback's `on_train_begin`). Weights, optimiser, gradients, metrics,
    random state and what libraries note on the model are the same afterwards, so that what is trained is to the byte
    what it would be without. Nothing is run where several processes share one model's weights (FSDP, DeepSpeed): there
    gradients are not the trainer's own.

    Raises:
        torch.OutOfMemoryError: there is not enough memory.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return
    work = as_read(workload(recipe, recipe.phases.index(phase), on_gpu=DEVICE == "cuda"), trainer.model)
    before, metrics = dict(vars(trainer)), copy.deepcopy(vars(trainer).get("_metrics"))
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    device = trained[0].device
    try:
        with _untouched(trainer.model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            trainer.model.train()
            state, update = _optimiser(trainer, work, trained)
            held = torch.empty(state, dtype=torch.uint8, device=device)
            if work.loss in SAMPLES_ITSELF and work.drawn and recipe.backend == "transformers":
                _sample(trainer, work, device)
            for _ in range(2 if work.accumulates else 1):
                _backward(trainer, work, device)
            torch.empty(update, dtype=torch.uint8, device=device)
            del held
    finally:
        trainer.model.zero_grad(set_to_none=True)
        vars(trainer).clear()
        vars(trainer).update(before | ({} if metrics is None else {"_metrics": metrics}))
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _untouched(model: torch.nn.Module) -> Iterator[None]:
    """Inside, a model may be run; afterwards its buffers and its modules' notes on themselves are what they were.

    Unsloth notes there which batches of how many tokens it has checked, and a position embedding how long its table is:
    after a probe both would treat every batch as one that they know.
    """
    before = [
        (
            module,
            {name: _copied(value) for name, value in vars(module).items() if _is_note(name, value)},
            {name: (buffer, buffer.clone()) for name, buffer in module.named_buffers(recurse=False)},
        )
        for module in model.modules()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, notes, buffers in before:
                for name in [name for name, value in vars(module).items() if _is_note(name, value)]:
                    del vars(module)[name]
                vars(module).update(notes)
                for name, (buffer, content) in buffers.items():
                    module._buffers[name] = buffer.copy_(content)


def _is_note(name: str, value: Any) -> bool:
    return name.startswith("_unsloth") or value is None or isinstance(value, bool | int | float | str)


def _copied(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, dict | list | set) else value


def _optimiser(trainer: Any, work: Workload, trained: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Bytes that the optimiser will hold and does not yet, and those that it makes for a moment during its step; 0 of
    one that is not known, whose first step will show them."""
    shapes, width = [tuple(parameter.shape) for parameter in trained], trained[0].element_size()
    try:
        state = optimiser_state(work.optimiser, shapes, width)
    except InputError:
        return 0, 0
    return 0 if trainer.optimizer.state else state, optimiser_step(work.optimiser, shapes, width, on_gpu=work.on_gpu)


def _backward(trainer: Any, work: Workload, device: torch.device) -> None:
    """The loss of the longest batch, and its gradients."""
    if work.loss not in SAMPLES_ITSELF:
        rows = trainer.train_dataset
        lengths = [sum(len(value) for value in row.values() if isinstance(value, list)) for row in rows]
        order = sorted(range(len(rows)), key=lambda index: -lengths[index])
        batch = trainer.data_collator([rows[index] for index in order[: trainer.args.per_device_train_batch_size]])
        trainer.training_step(trainer.model_wrapped, batch)
        return
    # A training_step() would sample first: its batch is made here.
    batch = _completions(trainer, work, device)
    batch |= _judgements(trainer, batch) if work.loss == "selected" else _rollout(batch)
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model_wrapped, batch)
    trainer.accelerator.backward(loss)


def _completions(trainer: Any, work: Workload, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch's prompts and completions, all as long as can be, with one token of padding.

    The tokens are random: with one token throughout, rows that see each other compute what they would compute alone, so
    that a library's check of its own packing (Unsloth's) would pass whatever it does.
    """
    tokenizer = trainer.processing_class
    known = min(len(tokenizer), trainer.model.get_input_embeddings().num_embeddings)
    texts = torch.tensor(sorted(set(range(known)) - set(tokenizer.all_special_ids)), device=device)
    tokens = texts[torch.randint(len(texts), (work.rows, work.length), device=device)]
    prompts, completions = tokens[:: work.group, : -work.targets], tokens[:, -work.targets :]
    padding = tokenizer.pad_token_id
    prompts[0, 0] = padding
    prompts = prompts.repeat_interleave(work.group, dim=0)
    return {
        "prompt_ids": prompts, "prompt_mask": (prompts != padding).long(), "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
    }  # fmt: skip


def _judgements(trainer: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What GRPOTrainer adds to a batch of completions."""
    completions = batch["completion_ids"]
    zeros = torch.zeros(completions.shape, device=completions.device)
    return {
        "advantages": torch.ones(len(completions), device=completions.device),
        "num_items_in_batch": torch.tensor(completions.numel(), device=completions.device),
        **({"ref_per_token_logps": zeros} if trainer.args.beta else {}),
        **({"old_per_token_logps": zeros, "sampling_per_token_logps": zeros, "importance_sampling_ratio": zeros + 1}
           if trainer.args.use_vllm else {}),
    }  # fmt: skip


def _rollout(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What PpoTrainer adds to a batch of completions."""
    completions = batch["completion_ids"]
    figures = ("old_log_probabilities", "old_values", "advantages", "returns")
    zeros = torch.zeros(completions.shape, device=completions.device)
    return {**dict.fromkeys(figures, zeros), "tokens": torch.tensor(completions.numel(), device=completions.device)}


@torch.no_grad()
def _sample(trainer: Any, work: Workload, device: torch.device) -> None:
    """The reading of all prompts that are sampled from at once, and one token after completions at full length."""
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    model = model.get_base_model() if isinstance(model, PeftModel) else model  # as PEFT's generate() does
    cache = DynamicCache(config=model.config)
    with disable_gradient_checkpointing(model, trainer.args.gradient_checkpointing_kwargs):
        read_prompts(model, cache, work, str(device))
        lengthen(cache, work.drawn_length - 1)
        sampled_token(model, cache, work, 1, work.drawn_length, str(device))


def read_prompts(model: Any, cache: DynamicCache, work: Workload, device: str = "cpu") -> None:
    """The reading of all prompts that are sampled from, each once."""
    each = replace(work, drawn=work.drawn // work.group)
    sampled_token(model, cache, each, work.drawn_prompt, work.drawn_prompt, device)
    if work.group > 1:
        cache.batch_repeat_interleave(work.group)


def sampled_token(model: Any, cache: DynamicCache, work: Workload, new: int, seen: int, device: str = "cpu") -> None:
    """One step of sampling: the model reads `new` tokens, of `seen` in all, and the next one's chances are made."""
    ids, mask = (torch.ones(work.drawn, tokens, dtype=torch.long, device=device) for tokens in (new, seen))
    logits = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    # As in Transformers' generate(): a copy in float32, divided by the temperature.
    scores = logits[:, -1].to(torch.float32, copy=True) / work.temperature
    torch.softmax(scores, dim=-1)


def lengthen(cache: DynamicCache, tokens: int) -> None:
    """Make a cache as long as if it held that many tokens; what they are is arbitrary."""
    for layer in cache.layers:
        *outer, _, size = layer.keys.shape
        layer.keys, layer.values = (held.new_zeros(*outer, tokens, size) for held in (layer.keys, layer.values))
