"""Completions by Transformers: batches by length, stop strings, and the text that comes back."""

import copy
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from tqdm import tqdm
from transformers import (
    DynamicCache,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    set_seed,
)
from transformers.cache_utils import DynamicLayer

from grpo_cot.common.files import Message, Row
from grpo_cot.models.drawing import RoomyLayer, draws, roomy_cache, sample
from grpo_cot.models.turns import end_tokens, stop_tokens


class Completion(NamedTuple):
    """A model's text without special tokens, its length in tokens, and whether the limit cut it off."""

    text: str
    tokens: int
    truncated: bool


class StopText(StoppingCriteria):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Marks each row whose last token completes a stop string in the generated text.

    Transformers' own criterion builds a table of the whole vocabulary for every batch (0.9 s with Qwen2.5's). Here a
    row's last few tokens are read when its last one could end a stop string.
    """

    def __init__(self, stops: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt_length: int) -> None:
        """Look for `stops` after the first `prompt_length` tokens."""
        self._stops = stops
        self._tokenizer = tokenizer
        self._start = prompt_length
        # A token is at least a byte long; one more, since decoders drop a space before the first.
        self._reach = max(len(stop.encode()) for stop in stops) + 1
        self._may_end = {tokenizer.pad_token_id: False}  # a row that ended is filled with it

    def __call__(self, input_ids: torch.Tensor, scores: Any, **unused: Any) -> torch.Tensor:
        """Booleans (rows,): whether generation of a row may end; `input_ids` (rows, tokens) includes the prompts."""
        tails = input_ids[:, max(self._start, input_ids.shape[1] - self._reach) :].tolist()
        ends = [self._can_end(tail[-1]) and self._holds_stop(self._tokenizer.decode(tail)) for tail in tails]
        return torch.tensor(ends, dtype=torch.bool, device=input_ids.device)

    def _holds_stop(self, text: str) -> bool:
        return any(stop in text for stop in self._stops)

    def _can_end(self, token: int) -> bool:
        """Whether a token's text has the last character of a stop string, or may have (white space, half a letter)."""
        if token not in self._may_end:
            text = self._tokenizer.decode([token])
            last = [stop[-1] for stop in self._stops]
            self._may_end[token] = "\ufffd" in text or any(end in text or end.isspace() for end in last)
        return self._may_end[token]


class Prefix(NamedTuple):
    """The tokens that all prompts begin with (a system prompt), and a decoder's keys and values for them, read once."""

    ids: list[int]
    cache: DynamicCache | None

    def inputs(self, tokenizer: PreTrainedTokenizerBase, rows: Sequence[list[int]]) -> dict[str, Any]:
        """A decoder's arguments for one batch: prefix, padding, rest; the prefix's keys and values, where there are."""
        rests = [row[len(self.ids) :] for row in rows]
        inputs = tokenizer.pad({"input_ids": rests}, padding_side="left", return_tensors="pt")
        if self.cache is None:
            return dict(inputs)
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(len(rows))
        prefix = torch.tensor([self.ids], dtype=torch.long).expand(len(rows), -1)
        return {
            "input_ids": torch.cat([prefix, inputs["input_ids"]], dim=1),
            "attention_mask": torch.cat([torch.ones_like(prefix), inputs["attention_mask"]], dim=1),
            "past_key_values": cache,
        }


@torch.inference_mode()
def shared_prefix(
    model: PreTrainedModel | PeftModel, prompts: Sequence[list[int]], cache: DynamicCache | None = None
) -> Prefix:
    """The common start of several prompts; empty for caches that cannot hold it alone, and for encoder-decoders.

    `cache` is an empty one of a kind that can, for the keys and values to be put into, or None.
    """
    first, last = min(prompts), max(prompts)
    ids = [token for token, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
    ids = ids[: min(map(len, prompts)) - 1]  # each prompt keeps a token to go on from
    if len(prompts) == 1 or not ids or model.config.is_encoder_decoder:
        return Prefix([], cache)
    known = {} if cache is None else {"past_key_values": cache}
    cache = model(torch.tensor([ids], device=model.device), use_cache=True, **known).past_key_values
    plain = isinstance(cache, DynamicCache) and all(type(layer) in (DynamicLayer, RoomyLayer) for layer in cache.layers)
    return Prefix(ids, cache) if plain else Prefix([], None)


def sampled(rows: Sequence[Row], size: int | None, seed: int) -> list[Row]:
    """All rows, or that many of them drawn with the seed, in their order."""
    if size is None or size >= len(rows):
        return list(rows)
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), size))]


def generate(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]], sampling: Mapping[str, Any], *, batch_size: int, seed: int, progress: str,
    finished: MutableMapping[str, Any] | None = None,
) -> list[Completion]:  # fmt: skip
    """One completion for every prompt (token ids, see `encode`), in their order, by a decoder or an encoder-decoder.

    Prompts are batched longest first, so that little is padding and memory peaks at once, not at the end.
    `sampling` holds GenerationConfig's parameters; any other parameter is off, whatever the model's own default and the
    library's (top_k 50). `finished` is for resuming, as in `in_batches`: each batch has a random state of its own,
    so that a resumed run's completions are an uninterrupted one's.
    """
    stops = sampling.get("stop_strings") or []
    configuration = generation_configuration(model, tokenizer, sampling)
    # PEFT's layers stay, though they take a third of the time: with the adapter rounded an answer in twelve is another.
    cache = roomy_cache(model) if draws(model, {"generation_config": configuration}) else None
    loop = {} if cache is None else {"custom_generate": sample}
    # Beams would multiply the prefix's keys and values once more.
    prefix = shared_prefix(model, prompts, cache) if sampling.get("num_beams", 1) == 1 else Prefix([], None)

    def complete(number: int, batch: list[int]) -> list[Completion]:
        set_seed(random.Random(f"{seed} {number}").getrandbits(32))
        return _complete(model, tokenizer, prefix, [prompts[index] for index in batch], configuration, stops, loop)

    store = {} if finished is None else finished
    results = in_batches(list(map(len, prompts)), batch_size, complete, progress, "prompt", store)
    return [Completion(*fields) for fields in results]


def generation_configuration(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, sampling: Mapping[str, Any]
) -> GenerationConfig:
    """The library's settings for `sampling`, less its stop strings: what it does not name is off.

    The model's end tokens and the turn's end all end a completion, as they do where TRL samples.
    """
    settings = {
        **({"top_k": 0} if sampling.get("do_sample") else {}),
        "eos_token_id": stop_tokens(model.generation_config.eos_token_id, tokenizer) or None,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": model.config.decoder_start_token_id if model.config.is_encoder_decoder else None,
    }
    return GenerationConfig(**settings | {key: value for key, value in sampling.items() if key != "stop_strings"})


def in_batches(
    lengths: Sequence[int], size: int, work: Callable[[int, list[int]], Sequence[Any]], progress: str, unit: str,
    finished: MutableMapping[str, Any],
) -> list[Any]:  # fmt: skip
    """The results of `work` on items of these lengths, in their order; it gets a batch's number and the items' indices.

    A batch's results are stored in `finished` under `progress` and its number, and taken from there where they are.
    """
    batches = {f"{progress} {number}": batch for number, batch in enumerate(by_length(lengths, size))}
    results: list[Any] = [None] * len(lengths)
    before = sum(len(batch) for name, batch in batches.items() if name in finished)
    with tqdm(total=len(lengths), initial=before, desc=progress, unit=unit) as bar:
        for number, (name, batch) in enumerate(batches.items()):
            if name not in finished:
                finished[name] = list(work(number, batch))
                bar.update(len(batch))
            for index, result in zip(batch, finished[name], strict=True):
                results[index] = result
    return results


def encode(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]],
    chat_template_kwargs: Mapping[str, Any],
) -> list[list[int]]:  # fmt: skip
    """The token ids of every conversation in the chat template, ready for the answer."""
    texts = tokenizer.apply_chat_template(
        list(map(list, conversations)), tokenize=False, add_generation_prompt=True, **chat_template_kwargs
    )
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of at most `size`, the longest first; equals keep their order.

    >>> by_length([3, 9, 3, 5], 2)
    [[1, 3], [0, 2]]
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + size] for start in range(0, len(order), size)]


def completion(
    row: Iterable[int], tokenizer: PreTrainedTokenizerBase, ends: set[int], stops: Sequence[str], limit: int
) -> Completion:
    """Cut a generated row at its first end token, or at the padding that follows a stop string in a longer batch."""
    row = list(row)
    end = next((position for position, token in enumerate(row) if token in ends), None)
    tokens = row[:end]
    while end is None and tokens and tokens[-1] == tokenizer.pad_token_id:
        tokens.pop()
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    stopped = any(stop in text for stop in stops)
    return Completion(text, len(tokens), end is None and not stopped and len(tokens) >= limit)


def _complete(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prefix: Prefix,
    prompts: Sequence[list[int]], configuration: GenerationConfig, stops: Sequence[str], loop: Mapping[str, Any],
) -> list[Completion]:  # fmt: skip
    """One batch's completions. A decoder's output goes on from the prompt, an encoder-decoder's from a start token.
    `loop` has what `generate` is to call in its own loop's place."""
    if model.config.is_encoder_decoder:
        inputs, length = dict(tokenizer.pad({"input_ids": prompts}, padding_side="right", return_tensors="pt")), 1
    else:
        inputs = prefix.inputs(tokenizer, prompts)
        length = inputs["input_ids"].shape[1]
    inputs |= {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
    criteria = StoppingCriteriaList([StopText(stops, tokenizer, length)] if stops else [])
    with torch.inference_mode():
        output = model.generate(**inputs, generation_config=configuration, stopping_criteria=criteria, **loop)
    ends, limit = end_tokens(configuration.eos_token_id), configuration.max_new_tokens
    return [completion(row, tokenizer, ends, stops, limit) for row in output[:, length:].tolist()]
