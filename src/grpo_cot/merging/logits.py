"""The logits that models give to the same answers, and how much of what training changed in them another model has."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

VOCABULARY = 4096  # tokens whose logits the norms take; of a larger vocabulary they are drawn once


class Reading(NamedTuple):
    """For every token of all answers: the token that the model would choose there, and logits (tokens, vocabulary)."""

    choices: torch.Tensor
    logits: torch.Tensor


@torch.inference_mode()
def read(model: Any, texts: Sequence[tuple[Sequence[int], Sequence[int]]], name: str) -> Reading:
    """What a model makes of prompts and their answers, both as token ids. `name` stands at the progress bar."""
    choices, logits = [], []
    for prompt, answer in tqdm(texts, desc=f"parity, {name}", unit="prompt"):
        ids = [torch.tensor([part], device=model.device) for part in (prompt, answer)]
        found = answer_logits(model, *ids)[0]
        choices.append(found.argmax(-1).cpu())
        logits.append(found[:, _drawn(found.shape[-1])].float().cpu())
    return Reading(torch.cat(choices), torch.cat(logits))


def _drawn(vocabulary: int) -> torch.Tensor:
    return torch.randperm(vocabulary, generator=torch.Generator().manual_seed(0))[:VOCABULARY]


def answer_logits(model: Any, prompt: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """Logits (1, answer tokens, vocabulary) for every token of an answer (1, tokens) to a prompt (1, tokens)."""
    if model.config.is_encoder_decoder:
        return model(input_ids=prompt, labels=answer).logits  # type: ignore[no-any-return]
    whole: torch.Tensor = model(input_ids=torch.cat([prompt, answer], dim=1)).logits
    return whole[:, prompt.shape[1] - 1 : -1]


def shares(base: Reading, trained: Reading, merged: Reading, rounded: Reading, own: Reading) -> dict[str, float | None]:
    """How much of the effect of training the merged model has, and what else it has, in shares of that effect.

    `rounded` is the trained model with weights rounded to the stored type, `own` the trained model in the arithmetic of
    its training. All but `effect` are None where training changed no logit.
    """
    effect = trained.logits - base.logits
    size = float(effect.norm())
    result: dict[str, float | None] = {"effect": size / float(base.logits.norm())}
    if size == 0:
        return result | dict.fromkeys(("kept", "left_over", "beyond_rounding", "arithmetic"))
    moved = merged.logits - base.logits
    kept = float((moved * effect).sum()) / size**2
    return result | {
        "kept": kept,
        "left_over": float((moved - kept * effect).norm()) / size,
        "beyond_rounding": float((merged.logits - rounded.logits).norm()) / size,
        "arithmetic": float((own.logits - trained.logits).norm()) / size,
    }
