"""The recipe's own questions, answered by the base and by the trained model."""

from pathlib import Path
from typing import Any

from grpo_cot.evaluation.pairs import both
from grpo_cot.models.description import read_description
from grpo_cot.models.generation import encode, generate
from grpo_cot.models.opening import opening
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.prompts import conversation, system_messages
from grpo_cot.recipes.recipe import CheckSection, PromptSection


def transcribe(model_json: Path, prompt: PromptSection, section: CheckSection, seed: int) -> list[dict[str, Any]]:
    """For each of the section's questions the `greedy` and the `sampled` answer of the base and of the trained model.

    Before an answer stands what the prompt opened; a thought stays in it, for people to read.

    Raises:
        InputError: a model cannot be loaded, or its tokenizer has no chat template.
    """
    tokenizer = load_tokenizer(Path(read_description(model_json).base))
    system = system_messages(tokenizer, prompt)
    conversations = [conversation(system, prompt.examples, question) for question in section.questions]
    begun = opening(tokenizer, conversations[0], prompt).text
    encoded = encode(tokenizer, conversations, prompt.chat_template_kwargs)
    greedy = {"do_sample": False, "max_new_tokens": section.sampling["max_new_tokens"]}
    transcripts: list[dict[str, Any]] = [{"question": text, "greedy": {}, "sampled": {}} for text in section.questions]
    for name, one in both(model_json, before=None):
        for kind, sampling in (("greedy", greedy), ("sampled", section.sampling)):
            progress = f"{name} {kind}"
            answers = generate(one, tokenizer, encoded, sampling, batch_size=len(encoded), seed=seed, progress=progress)
            for transcript, answer in zip(transcripts, answers, strict=True):
                transcript[kind][name] = begun + answer.text
        del one  # before the next is loaded
    return transcripts
