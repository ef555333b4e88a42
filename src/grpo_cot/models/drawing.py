"""Completions by a causal model in bfloat16 on a CPU, sampled or greedy: Transformers' loop without three things that
cost it half its time.

- `torch.multinomial` draws a random number for each token of the vocabulary (50,000 a row, on one core). One a row is
  enough: the token is where it falls in the cumulated probabilities.
- Transformers copies all keys and values to add those of one token. Here there is room behind them.
- Completions that have ended are computed until the last one has. Here they leave the batch.

The distribution is the same, and so is the likeliest token but for rounding. What a seed draws is not, so a model in
float32 keeps Transformers' loop and the results that it had.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from grpo_cot.common.errors import InputError

ROOM = 64  # tokens
LEAVING = 0.25  # the share of a batch's rows that leave together, for the others' keys and values are copied then
# What can be set: with these a row's scores and its end depend on this row alone.
SETTINGS = {
    "_from_model_config", "attention_mask", "bos_token_id", "disable_compile", "do_sample", "eos_token_id",
    "generation_config", "input_ids", "max_length", "max_new_tokens", "min_p", "pad_token_id",
    "repetition_penalty", "temperature", "top_k", "top_p", "transformers_version", "use_cache",
}  # fmt: skip
TAKEN = {"input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}  # by a model


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Keys and values (rows, heads, tokens, size) with room for more behind them."""

    keys: torch.Tensor
    values: torch.Tensor
    _room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *unused: Any, **also_unused: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put those of new tokens behind those that are held, and return all. Gradients do not pass."""
        held = self.get_seq_length()
        if not held:
            found: tuple[torch.Tensor, torch.Tensor] = super().update(key_states, value_states)
            return found
        length = held + key_states.shape[-2]
        if self._room is None or self._room[0].data_ptr() != self.keys.data_ptr() or length > self._room[0].shape[-2]:
            self._room = _roomy(self.keys, length + ROOM), _roomy(self.values, length + ROOM)
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[..., held:length, :] = states
        self.keys, self.values = (room[..., :length, :] for room in self._room)
        return self.keys, self.values


def _roomy(states: torch.Tensor, tokens: int) -> torch.Tensor:
    rows, heads, held, size = states.shape
    room = states.new_empty(rows, heads, tokens, size)
    room[..., :held, :] = states
    return room


def roomy_cache(model: Any) -> DynamicCache | None:
    """An empty cache for a decoder's keys and values; None where a layer keeps them in another way."""
    cache = DynamicCache(config=model.config)
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [RoomyLayer() for _ in cache.layers]
    return cache


def draws(model: Any, settings: Mapping[str, Any]) -> bool:
    """Whether `sample` can take the place of Transformers' loop, in `generate` with these settings."""
    configuration = settings.get("generation_config") or model.generation_config
    given = {**model.generation_config.to_diff_dict(), **configuration.to_diff_dict(), **settings}
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    sixteen = model.dtype == torch.bfloat16 and model.device.type == "cpu"
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    takes = inspect.signature(base.forward).parameters.keys() >= TAKEN and not model.config.is_encoder_decoder
    return sixteen and takes and given.get("pad_token_id") is not None and given.keys() <= SETTINGS


def draw(scores: torch.Tensor) -> torch.Tensor:
    """One token for each row of `scores` (rows, vocabulary), unnormalised log-probabilities; (rows,).

    Raises:
        InputError: a row's scores are no numbers.
    """
    heaps = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    _refuse_broken(heaps[:, -1])
    points = torch.rand(len(heaps), 1, dtype=heaps.dtype) * heaps[:, -1:]
    return torch.searchsorted(heaps, points, right=True).squeeze(1)  # right: no token without probability


def likeliest(scores: torch.Tensor) -> torch.Tensor:
    """The first of the likeliest tokens of each row of `scores` (rows, vocabulary); (rows,).

    Raises:
        InputError: a row's scores are no numbers.
    """
    highest, tokens = scores.max(dim=-1)
    _refuse_broken(highest)
    return tokens


def _refuse_broken(sums: torch.Tensor) -> None:
    """Refuse scores by what was made of each row's, which is no finite number where one of them is none."""
    if broken := int((~sums.isfinite()).sum()):
        raise InputError(
            f"the model gives no next token for {broken} of {len(sums)} texts: its scores are not finite numbers; its "
            "weights are broken or its training diverged: fetch the base anew, or train with a lower learning_rate or "
            "max_grad_norm"
        )


def sample(
    model: Any, input_ids: torch.Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
    **state: Any,
) -> torch.Tensor:  # fmt: skip
    """For `generate(custom_generate=sample)`: prompts `input_ids` (rows, tokens) and their completions, padded.

    `state` has what `generate` found out: a cache, which may hold all of the prompts but their last tokens, and the
    prompts' mask and positions. Rows leave, so a criterion may look at each row alone.

    Raises:
        InputError: the model's scores are no numbers.
    """
    choose = draw if generation_config.do_sample else likeliest
    cache, mask, positions = state["past_key_values"], state["attention_mask"], state["position_ids"]
    ids, rows, going = input_ids, torch.arange(len(input_ids)), torch.ones(len(input_ids), dtype=torch.bool)
    found = input_ids.new_full((len(input_ids), generation_config.max_length), generation_config.pad_token_id)
    while going.any():
        if going.sum() <= (1 - LEAVING) * len(going):
            ids, rows, mask, positions = ids[going], rows[going], mask[going], positions[going]
            cache.batch_select_indices(going)
            going = going[going]
        held = cache.get_seq_length()
        logits = model(
            input_ids=ids[:, held:], attention_mask=mask, position_ids=positions[:, held:], past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        tokens = choose(logits_processor(ids, logits.float()))
        tokens = torch.where(going, tokens, generation_config.pad_token_id)
        ids = torch.cat([ids, tokens[:, None]], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = torch.cat([positions, positions[:, -1:] + 1], dim=1)
        found[rows, : ids.shape[1]] = ids
        going = going & ~stopping_criteria(ids, None)
    return found[:, : ids.shape[1]]
