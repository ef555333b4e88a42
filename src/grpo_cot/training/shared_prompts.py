"""A group's prompt is read once, when GRPO samples its completions and when it scores them.

TRL repeats the prompt before each of a group's completions, eight times and more. A completion sees its prompt and
itself. So one row can hold a prompt and all of its completions, each blind to the others (Liu et al., 2025, "Prefix
Grouper", arXiv:2506.05433), and sampling can read a prompt once and give its keys and values to every completion. The
log-probabilities are the same but for the order of sums; the first batch is scored both ways and compared.
"""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from trl.trainer import grpo_trainer
from trl.trainer.utils import selective_log_softmax, selective_log_softmax_and_entropy

from grpo_cot.models.drawing import draws, roomy_cache, sample
from grpo_cot.models.sampling_layers import in_few_operations
from grpo_cot.training.rollouts import replaced
from grpo_cot.training.workload import Workload

# The largest mean difference, in nats a token, of a first batch's log-probabilities, in float32 and in 16 bits. With
# SmolLM2-135M rounding makes 0.000002 and 0.02, positions that are not looked at 0.27, and a mask that is not 1.3.
LARGEST_GAP = 0.02
LARGEST_GAP_OF_16_BITS = 0.08


class Packed(NamedTuple):
    """Rows of a prompt and its completions: `ids` and `positions` (prompts, tokens), and `mask` (prompts, 1, tokens,
    tokens), true where a token sees another. Completion i is in the slot `place[i]` of all rows' `slots` slots."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    place: torch.Tensor
    slots: int


def pack(input_ids: torch.Tensor, attention_mask: torch.Tensor, length: int) -> Packed:
    """Put completions to the same prompt into one row, behind one copy of it.

    `input_ids` and `attention_mask` (completions, tokens) are TRL's: prompts padded on the left, then completions of
    `length` tokens padded on the right. A slot holds the tokens that predict a completion's: the prompt's last one and
    all of the completion's but its last.
    """
    held, device = attention_mask.bool(), input_ids.device
    begin = input_ids.shape[1] - length - 1
    prompts = torch.where(held, input_ids, -1)[:, : begin + 1]
    prompts, row = torch.unique(prompts, dim=0, return_inverse=True)
    before = torch.nn.functional.one_hot(row, len(prompts)).cumsum(dim=0)  # completions to each prompt, up to each
    slot = before.gather(1, row[:, None]).squeeze(1) - 1
    slots = int(slot.max()) + 1
    ids = input_ids.new_zeros(len(prompts), begin + slots * length)
    holds = torch.zeros_like(ids, dtype=torch.bool)
    ids[:, :begin], holds[:, :begin] = prompts[:, :begin].clamp(min=0), prompts[:, :begin] >= 0
    within = torch.arange(length, device=device)
    places = begin + slot[:, None] * length + within
    ids[row[:, None], places] = input_ids[:, begin:-1]
    holds[row[:, None], places] = held[:, begin:-1]
    step = torch.arange(ids.shape[1], device=device)
    part = (step - begin).div(length, rounding_mode="floor").clamp(min=-1)  # a token's slot; -1 is the prompt
    sees = ((part == part[:, None]) | (part == -1)) & (step <= step[:, None])
    # Padding sees itself, for nothing is no distribution.
    mask = (sees & holds[:, None, :]) | torch.eye(len(step), dtype=torch.bool, device=device)
    sizes = holds[:, :begin].sum(dim=1, keepdim=True)
    inside = torch.where(part == -1, step - begin, (step - begin) % length)
    return Packed(ids, (sizes + inside).clamp(min=0), mask[:, None], row * slots + slot, slots)


def read_prompts_once(trainer: Any) -> None:
    """Have a GRPO trainer read each prompt once a batch, where its model can.

    It cannot where attention is not torch's own, looks back over a window only, or where experts balance their load.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not can_share(base) or trainer.aux_loss_enabled or trainer.use_liger_kernel:
        return
    # Where weights are sharded, all processes run the model equally often.
    if not (trainer.use_vllm or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        model.generate = partial(_generate, model)
    settings = trainer.args
    if settings.steps_per_generation > 1 and keeps_groups(vars(settings), trainer.num_generations):
        _keep_groups(trainer)
    _share_rows(trainer)


def keeps_groups(settings: Mapping[str, Any], size: int) -> bool:
    """Whether a batch can hold whole groups of `size` completions: with them a step learns from the completions that it
    would learn from without, and each counts the same."""
    batches = settings["steps_per_generation"] or settings["gradient_accumulation_steps"]
    one_step = settings["gradient_accumulation_steps"] % batches == 0 and settings["loss_type"] != "bnpo"
    return bool(settings["per_device_train_batch_size"] % size == 0 and (batches == 1 or one_step))


def can_share(model: Any) -> bool:
    """Whether a model takes a mask of its own for each row, and sees all that the mask lets it see."""
    configuration = model.config.get_text_config(decoder=True)
    known = inspect.signature(model.forward).parameters
    whole = set(getattr(configuration, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    window = getattr(configuration, "sliding_window", None)
    sdpa = configuration._attn_implementation == "sdpa" and not getattr(configuration, "alibi", False)
    return sdpa and whole and window is None and {"position_ids", "logits_to_keep"} <= known.keys()


def as_read(work: Workload, model: Any) -> Workload:
    """A workload in which a model that cannot share prompts reads one for each completion."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return work if can_share(base) else replace(work, group=1)


@torch.no_grad()
def _generate(model: Any, *positional: Any, **settings: Any) -> Any:
    """The model's `generate`, reading each different prompt once, but for its last token."""
    with in_few_operations(model):
        if positional or not _can_share_keys(model, settings):
            return type(model).generate(model, *positional, **settings)
        return _generate_from_shared(model, settings)


def _generate_from_shared(model: Any, settings: dict[str, Any]) -> Any:
    cache = roomy_cache(model)
    if cache is not None:
        held = torch.where(settings["attention_mask"].bool(), settings["input_ids"], -1)
        prompts, row = torch.unique(held, dim=0, return_inverse=True)
        if len(prompts) < len(row):
            mask = (prompts >= 0).long()
            model(
                input_ids=prompts[:, :-1].clamp(min=0), attention_mask=mask[:, :-1],
                position_ids=_positions(mask)[:, :-1], past_key_values=cache, use_cache=True, logits_to_keep=1,
            )  # fmt: skip
            cache.batch_select_indices(row)
        own = {"custom_generate": sample} if draws(model, settings) else {}
        settings |= {"past_key_values": cache, **own}
    return type(model).generate(model, **settings)


def _can_share_keys(model: Any, settings: Mapping[str, Any]) -> bool:
    """Whether `generate` with these settings goes on from keys and values that it is given."""
    configuration = settings.get("generation_config") or model.generation_config

    def value(name: str) -> Any:
        return settings.get(name, getattr(configuration, name, None))

    ids = settings.get("input_ids")
    return (
        ids is not None and ids.shape[1] > 1 and settings.get("attention_mask") is not None
        and value("use_cache") is not False
        and all(value(name) in (None, 1) for name in ("num_beams", "num_return_sequences"))
        and all(value(name) is None for name in ("cache_implementation", "prefill_chunk_size", "past_key_values"))
    )  # fmt: skip


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Each token's place in its text, padding on the left left out, as `generate` counts."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _keep_groups(trainer: Any) -> None:
    """Have the trainer mix groups, where it mixes completions before it cuts what it sampled into batches."""
    prepare, size = trainer._prepare_inputs, trainer.num_generations

    def mixed(batch: dict[str, Any]) -> dict[str, Any]:
        rows = len(batch["prompt_ids"])
        order = (torch.randperm(rows // size)[:, None] * size + torch.arange(size)).flatten()
        # A value is one number a completion, or one for all of them.
        return {
            name: value if value is None or (isinstance(value, torch.Tensor) and value.ndim == 0)
            else value[order] if isinstance(value, torch.Tensor) else [value[place] for place in order]
            for name, value in batch.items()
        }  # fmt: skip

    def prepared(*arguments: Any) -> Any:
        with replaced(grpo_trainer, "shuffle_sequence_dict", mixed):
            return prepare(*arguments)

    trainer._prepare_inputs = prepared


def _share_rows(trainer: Any) -> None:
    """Have the trainer score completions in rows of one prompt each, if a first batch comes out the same."""
    plain = trainer._full_logits_logps
    trainer.shares_rows = None  # not known yet

    def scored(model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **settings: Any) -> Any:
        entropy, size = settings.get("compute_entropy", False), settings.get("batch_size") or len(input_ids)
        compare_rows(trainer, model, input_ids[:size], attention_mask[:size], logits_to_keep)
        if not trainer.shares_rows:
            return plain(model, input_ids, attention_mask, logits_to_keep, **settings)
        parts = [
            _scores(trainer, model, input_ids[start : start + size], attention_mask[start : start + size],
                    logits_to_keep, entropy=entropy)
            for start in range(0, len(input_ids), size)
        ]  # fmt: skip
        probabilities, entropies = zip(*parts, strict=True)
        return torch.cat(probabilities), torch.cat(entropies) if entropy else None, None

    trainer._full_logits_logps = scored


def compare_rows(trainer: Any, model: Any, input_ids: Any, attention_mask: Any, length: int) -> None:
    """Find out, with a whole first batch, whether rows of one prompt each come out the same, where that is not known.

    A batch's completions that teach may be one to each prompt, which says nothing of rows that hold several.
    """
    if getattr(trainer, "shares_rows", False) is None:
        trainer.shares_rows = _agrees(trainer, model, input_ids, attention_mask, length)


def _scores(
    trainer: Any, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, length: int, *, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The log-probabilities and, where asked for, the entropies (completions, `length`) of a batch's completions."""
    packed = pack(input_ids, attention_mask, length)
    logits = model(
        input_ids=packed.ids, attention_mask=packed.mask, position_ids=packed.positions,
        logits_to_keep=packed.slots * length, use_cache=False,
    ).logits  # fmt: skip
    logits = logits.reshape(-1, length, logits.shape[-1])
    labels, mask = (values.new_zeros(len(logits), length) for values in (input_ids, attention_mask))
    labels[packed.place], mask[packed.place] = input_ids[:, -length:], attention_mask[:, -length:]
    settings = {"temperature": trainer.temperature, "row_mask": mask}
    if not entropy:
        return selective_log_softmax(logits, labels, **settings)[packed.place], None
    settings["entropy_requires_grad"] = trainer._entropy_bonus_enabled
    probabilities, entropies = selective_log_softmax_and_entropy(logits, labels, **settings)
    return probabilities[packed.place], entropies[packed.place]


@torch.no_grad()
def _agrees(
    trainer: Any, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, length: int
) -> bool | None:
    """Whether a batch's log-probabilities are those of a prompt for each completion; None: it has no completion."""
    counted = attention_mask[:, -length:].bool()
    if not counted.any():
        return None
    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # dropout would differ, and move the random state
    logits = model(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=_positions(attention_mask),
        logits_to_keep=length + 1, use_cache=False,
    ).logits[:, :-1]  # fmt: skip
    alone = selective_log_softmax(logits, input_ids[:, -length:], temperature=trainer.temperature)
    shared, _ = _scores(trainer, model, input_ids, attention_mask, length, entropy=False)
    for module, mode in modes:
        module.training = mode
    gap = (alone - shared).abs()[counted].float().mean().item()
    types = {parameter.dtype for parameter in model.parameters()}
    mixed = getattr(trainer.args, "bf16", False) or getattr(trainer.args, "fp16", False)
    largest = LARGEST_GAP_OF_16_BITS if mixed or types & {torch.bfloat16, torch.float16} else LARGEST_GAP
    if gap <= largest:
        return True
    print(
        f"Each completion is scored with a prompt of its own: with one for a group, this model's log-probabilities are "
        f"{gap:.3f} nats apart on average, where {largest} would be rounding.", flush=True,
    )  # fmt: skip
    return False
