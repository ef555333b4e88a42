"""Proof that the merged model is the trained one: both, loaded from disk, read the same texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from grpo_cot.files import InputError
from grpo_cot.generation import encode, generate
from grpo_cot.models.loading import DEVICE, load
from grpo_cot.prompts import Message
from grpo_cot.recipes.recipe import MergeSection


def parity(
    model_json: Path, merged_folder: Path, conversations: Sequence[Sequence[Message]],
    chat_template_kwargs: Mapping[str, Any], section: MergeSection,
) -> dict[str, Any]:  # fmt: skip
    """Compare the trained model with the merged one, loaded from disk by plain Transformers.

    Both compute in the type that training computed in, so that the figures show the merge and not the arithmetic. The
    trained model answers every prompt greedily; both models then read that text. Returned: `token_agreement`, the share
    of the answers' tokens at which both would choose the same next token, and `logit_difference`, the mean over prompts
    of ||merged - trained|| / ||trained|| of the answer's logits.

    Raises:
        InputError: the trained model is missing or corrupt.
    """
    trained, tokenizer, description = load(model_json)
    loader = AutoModelForSeq2SeqLM if trained.config.is_encoder_decoder else AutoModelForCausalLM
    dtype = getattr(torch, description.model.dtype)
    merged = loader.from_pretrained(merged_folder, dtype=dtype, device_map={"": DEVICE}).eval()
    answers = generate(
        trained, tokenizer, conversations, {"do_sample": False, "max_new_tokens": section.new_tokens}, batch_size=32,
        chat_template_kwargs=chat_template_kwargs, seed=0, progress="parity",
    )  # fmt: skip
    prompts = encode(tokenizer, conversations, chat_template_kwargs)
    agreeing = tokens = 0
    differences = []
    with torch.inference_mode():
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = tokenizer(answer.text + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
            read = [torch.tensor([part], device=trained.device) for part in (prompt, ids)]
            expected, found = (answer_logits(model, *read) for model in (trained, merged))
            agreeing += int((found.argmax(-1) == expected.argmax(-1)).sum())
            tokens += expected.shape[1]
            differences.append(float((found - expected).norm() / expected.norm()))
    return {
        "prompts": len(conversations),
        "tokens": tokens,
        "token_agreement": agreeing / tokens,
        "logit_difference": sum(differences) / len(differences),
    }


def answer_logits(model: PreTrainedModel | PeftModel, prompt: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """Logits (1, answer tokens, vocabulary) for every token of an answer (1, tokens) to a prompt (1, tokens)."""
    if model.config.is_encoder_decoder:
        logits = model(input_ids=prompt, labels=answer).logits
    else:
        logits = model(input_ids=torch.cat([prompt, answer], dim=1)).logits[:, prompt.shape[1] - 1 : -1]
    wide: torch.Tensor = logits.float()
    return wide


def gate(figures: dict[str, Any], section: MergeSection, quantized: bool) -> bool:
    """Whether parity holds.

    On the original base of a quantized training it need not: that is another model by choice, and publishing asks.

    Raises:
        InputError: parity fails where it must hold.
    """
    holds = bool(
        figures["token_agreement"] >= section.token_agreement
        and figures["logit_difference"] <= section.logit_difference
    )
    if not holds and not (section.base == "original" and quantized):
        raise InputError(
            f"the merged model is not the trained one: {figures['token_agreement']:.2%} of greedy tokens agree "
            f"(merge.token_agreement asks for {section.token_agreement:.2%}) and logits differ by "
            f"{figures['logit_difference']:.2%} (merge.logit_difference allows {section.logit_difference:.2%}); "
            "try merge.dtype: float16, or look at what the adapter targets"
        )
    return holds
