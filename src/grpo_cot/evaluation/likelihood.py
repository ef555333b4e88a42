"""A model's likelihood of the gold solution, the prompt left out: the basis of perplexity."""

import math
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grpo_cot.common.files import Message
from grpo_cot.models.generation import Prefix, encode, in_batches, shared_prefix
from grpo_cot.models.turns import answer_ids

LOGITS = 2**28  # at once, which is 1 GiB in float32: large vocabularies get smaller batches
MASKED = -100


class Likelihood(NamedTuple):
    """A text's log-likelihood after its prompt (natural logarithm, summed over its tokens) and number of tokens."""

    log_likelihood: float
    tokens: int


def likelihoods(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]], targets: Sequence[str], *, batch_size: int,
    chat_template_kwargs: Mapping[str, Any], progress: str, finished: MutableMapping[str, Any],
) -> list[Likelihood | None]:  # fmt: skip
    """The likelihood of each target text and its turn's end as the answer to its conversation, as `of_tokens`.

    Prompt and target are encoded separately and joined, as a model meets them when it answers.
    """
    prompts, answers = encode(tokenizer, conversations, chat_template_kwargs), answer_ids(tokenizer, targets)
    return of_tokens(
        model, tokenizer, prompts, answers, batch_size=batch_size, progress=progress, finished=finished
    )  # fmt: skip


def of_tokens(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]],
    answers: Sequence[list[int]], *, batch_size: int, progress: str, finished: MutableMapping[str, Any],
) -> list[Likelihood | None]:  # fmt: skip
    """The likelihood of each answer after its prompt (token ids), in their order; None where both together have more
    tokens than the model has positions.

    There is at least one; an answer may be empty. The logarithm of the softmax is taken in float32, whatever the
    model's own type. `finished` is for resuming, as in `in_batches`.
    """
    limit = getattr(model.config, "max_position_embeddings", None) or math.inf  # encoder-decoders' are relative
    totals = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    fitting = [index for index, total in enumerate(totals) if answers[index] and total <= limit]
    results = [None if answer else Likelihood(0.0, 0) for answer in answers]
    if not fitting:
        return results
    prompts, answers = ([texts[index] for index in fitting] for texts in (prompts, answers))
    longest = max(map(len, answers)) + 1
    size = max(1, min(batch_size, LOGITS // (longest * model.config.vocab_size)))
    prefix = shared_prefix(model, prompts)

    def work(number: int, batch: list[int]) -> list[Likelihood]:
        batch_answers, batch_prompts = ([texts[index] for index in batch] for texts in (answers, prompts))
        with torch.inference_mode():
            if model.config.is_encoder_decoder:
                sums = _after_encoder(model, tokenizer, batch_prompts, batch_answers)
            else:
                sums = _after_prompt(model, tokenizer, prefix, batch_prompts, batch_answers)
        return [Likelihood(value, len(answer)) for value, answer in zip(sums, batch_answers, strict=True)]

    values = in_batches([totals[index] for index in fitting], size, work, progress, "solution", finished)
    for index, fields in zip(fitting, values, strict=True):
        results[index] = Likelihood(*fields)
    return results


def _after_prompt(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prefix: Prefix,
    prompts: Sequence[list[int]], answers: Sequence[list[int]],
) -> list[float]:  # fmt: skip
    """Log-likelihoods by a decoder. Padded on the left, the answers end together; only their logits are computed."""
    inputs = prefix.inputs(tokenizer, [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    labels = _padded(answers, "left").to(model.device)
    mask = inputs["attention_mask"].to(model.device)
    start = len(prefix.ids)
    logits = model(
        input_ids=inputs["input_ids"][:, start:].to(model.device),
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, start:],
        past_key_values=inputs.get("past_key_values"),
        logits_to_keep=labels.shape[1] + 1,
        use_cache="past_key_values" in inputs,
    ).logits[:, :-1]
    return _sums(logits, labels)


def _after_encoder(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
) -> list[float]:  # fmt: skip
    """Log-likelihoods by an encoder-decoder, whose decoder reads the answer shifted by its start token."""
    inputs = tokenizer.pad({"input_ids": prompts}, padding_side="right", return_tensors="pt").to(model.device)
    labels = _padded(answers, "right").to(model.device)
    shifted = labels.roll(1, dims=1)
    decoder_inputs = shifted.masked_fill(shifted == MASKED, tokenizer.pad_token_id)
    decoder_inputs[:, 0] = model.config.decoder_start_token_id
    logits = model(**inputs, decoder_input_ids=decoder_inputs, use_cache=False).logits
    return _sums(logits, labels)


def _padded(answers: Sequence[list[int]], side: str) -> torch.Tensor:
    """Label ids (rows, longest answer), masked where an answer has no token."""
    longest = max(map(len, answers))
    rows = []
    for answer in answers:
        filler = [MASKED] * (longest - len(answer))
        rows.append(filler + answer if side == "left" else answer + filler)
    return torch.tensor(rows)


def _sums(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """The labels' log-probabilities summed by row; logits (rows, tokens, vocabulary), labels (rows, tokens)."""
    losses = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=MASKED, reduction="none")
    sums: list[float] = (-losses.view(labels.shape).double().sum(dim=1)).tolist()
    return sums
