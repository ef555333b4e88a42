"""What the phases other than GRPO learn from: worked solutions, and the model's own completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grpo_cot.evaluation import sampled
from grpo_cot.files import InputError, Row
from grpo_cot.generation import generate
from grpo_cot.recipes import SamplesSection
from grpo_cot.rewards import correctness_in_schema
from grpo_cot.schema import worked


def worked_solutions(prompts: Sequence[Row]) -> list[Row]:
    """Rows of messages and completion: every problem with its worked solution in the schema.

    Raises:
        InputError: the data set gives no worked solutions.
    """
    rows = [
        {"id": row["id"], "messages": row["messages"], "completion": worked(row["solution"], row["gold"])}
        for row in prompts
        if row["solution"]
    ]
    if not rows:
        raise InputError("no training row has a worked solution to learn from; name its column in the source file")
    return rows


def own_completions(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Row],
    section: SamplesSection, *, batch_size: int, chat_template_kwargs: Mapping[str, Any], seed: int,
) -> list[Row]:  # fmt: skip
    """Rows of a problem (id, messages) and the different completions, right and wrong, that the model drew for it.

    Right is what follows the schema and states the gold's value.
    """
    chosen = sampled(prompts, section.problems, seed)
    repeated = [row for row in chosen for _ in range(section.count)]
    drawn = generate(
        model, tokenizer, [row["messages"] for row in repeated], section.sampling, batch_size=batch_size,
        chat_template_kwargs=chat_template_kwargs, seed=seed, progress="samples",
    )  # fmt: skip
    paid = correctness_in_schema(
        [row["messages"] for row in repeated],
        [completion.text for completion in drawn],
        gold=[row["gold"] for row in repeated],
        locale=[row["locale"] for row in repeated],
    )
    rows = []
    for position, row in enumerate(chosen):
        group = slice(position * section.count, (position + 1) * section.count)
        right: dict[str, None] = {}  # an ordered set
        wrong: dict[str, None] = {}
        for completion, reward in zip(drawn[group], paid[group], strict=True):
            (right if reward else wrong)[completion.text] = None
        rows.append({"id": row["id"], "messages": row["messages"], "right": list(right), "wrong": list(wrong)})
    return rows


def right_completions(samples: Sequence[Row]) -> list[Row]:
    """Rows of messages and completion: every different right completion of every problem.

    Raises:
        InputError: the model drew none.
    """
    rows = [
        {"id": row["id"], "messages": row["messages"], "completion": completion}
        for row in samples
        for completion in row["right"]
    ]
    if not rows:
        raise InputError(
            f"the model answered none of {len(samples)} problems rightly in the schema: there is nothing to learn "
            "from; draw more samples, or put a phase sft before this one"
        )
    return rows


def preference_pairs(samples: Sequence[Row]) -> list[Row]:
    """Rows of messages, chosen and rejected: each problem's right completions paired off with its wrong ones.

    Raises:
        InputError: no problem has both.
    """
    rows = [
        {"id": row["id"], "messages": row["messages"], "chosen": chosen, "rejected": rejected}
        for row in samples
        for chosen, rejected in zip(row["right"], row["wrong"], strict=False)
    ]
    if not rows:
        raise InputError(
            f"none of {len(samples)} problems has both a right and a wrong completion: there is no pair to learn "
            "from; draw more samples, or raise the temperature"
        )
    return rows


def completion_dataset(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, Any], longest: int
) -> Dataset:
    """Token ids with a mask of the completion (end token included), for a trainer that learns the completion alone.

    Rows of more than `longest` tokens are left out, and counted on standard output: a cut one would teach the model to
    stop in mid-sentence.

    Raises:
        InputError: every row is longer.
    """
    encoded = [
        {"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)}
        for prompt, completion in _encoded(rows, tokenizer, chat_template_kwargs)
        if len(prompt) + len(completion) <= longest
    ]
    if not encoded:
        raise InputError(f"max_length is {longest}, and all {len(rows)} rows are longer with their completion; raise it")
    if len(encoded) < len(rows):
        print(f"{len(rows) - len(encoded)} of {len(rows)} rows are longer than max_length {longest} and left out.")
    return Dataset.from_list(encoded)


def encoder_decoder_dataset(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, Any]
) -> Dataset:
    """Token ids of the prompt for the encoder, and of the completion (end token included) as labels."""
    return Dataset.from_list(
        [
            {"input_ids": prompt, "attention_mask": [1] * len(prompt), "labels": completion}
            for prompt, completion in _encoded(rows, tokenizer, chat_template_kwargs)
        ]
    )


def preference_dataset(rows: Sequence[Row], chat_template_kwargs: Mapping[str, Any]) -> Dataset:
    """Conversations as TRL's DPOTrainer takes them."""
    extra = {"chat_template_kwargs": dict(chat_template_kwargs)} if chat_template_kwargs else {}
    return Dataset.from_list(
        [
            {
                "prompt": row["messages"],
                **{name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")},
                **extra,
            }
            for row in rows
        ]
    )


def _encoded(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, Any]
) -> list[tuple[list[int], list[int]]]:
    # Prompt and completion apart, as they meet when the model answers: the completion's first token is its own.
    prompts = tokenizer.apply_chat_template(
        [row["messages"] for row in rows], tokenize=False, add_generation_prompt=True, **chat_template_kwargs
    )
    completions = [row["completion"] + tokenizer.eos_token for row in rows]
    ids = [tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (prompts, completions)]
    return list(zip(*ids, strict=True))
