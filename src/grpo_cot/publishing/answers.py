"""What a published model says, loaded as its users load it: with plain Transformers, from its folder alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from grpo_cot.common.files import Message

PROBLEMS = 4
NEW_TOKENS = 48


@torch.inference_mode()
def greedy_answers(
    folder: Path, architecture: Literal["causal", "seq2seq"], conversations: Sequence[Sequence[Message]],
    chat_template_kwargs: Mapping[str, Any], threads: int,
) -> list[str]:  # fmt: skip
    """The model's greedy answers, of at most NEW_TOKENS tokens each, to `conversations`, one after the other.

    `threads` of the CPU are used.
    """
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind = AutoModelForCausalLM if architecture == "causal" else AutoModelForSeq2SeqLM
    model = kind.from_pretrained(folder).eval()
    answers = []
    for messages in conversations:
        prompt = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_dict=True, return_tensors="pt", **chat_template_kwargs
        )
        output = model.generate(**prompt, do_sample=False, max_new_tokens=NEW_TOKENS)[0]
        begin = prompt["input_ids"].shape[1] if architecture == "causal" else 0
        answers.append(tokenizer.decode(output[begin:]))
    return answers
