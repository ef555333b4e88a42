"""What the phases other than GRPO and PPO learn from: worked solutions, pairs of answers, and the model's own
completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.models.generation import Completion, encode, generate, sampled
from grpo_cot.models.opening import Opening, opening
from grpo_cot.models.turns import answer_ids
from grpo_cot.recipes.phases import OwnSamplesSection
from grpo_cot.recipes.recipe import PromptSection
from grpo_cot.rewards.ours import correctness_in_schema
from grpo_cot.rewards.registry import check_golds
from grpo_cot.schema import model_answer


def worked_solutions(prompts: Sequence[Row], begun: Opening) -> list[Row]:
    """Rows of messages and completion: every problem with its worked solution in the schema, or of a pair of answers
    the chosen one, without what the prompts have `begun` of it.

    Raises:
        InputError: the data set gives no worked solutions.
    """
    rows = [
        {"id": row["id"], "messages": row["messages"], "completion": begun.target(answer)}
        for row in prompts
        if (answer := model_answer(row)) is not None
    ]
    if not rows:
        raise InputError(
            "no training row has an answer to learn from: a worked solution, whose column the source file names, a "
            "chosen answer, or a text of more than one word"
        )
    return rows


def own_completions(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Row],
    section: OwnSamplesSection, prompt: PromptSection, seed: int,
) -> list[Row]:  # fmt: skip
    """Rows of a problem (id, messages) and the different completions, right and wrong, that the model drew for it.

    Right is what follows the schema and states the gold's value, judged with what the prompts open; the rows hold what
    the model wrote, for that is what it learns from. What the length limit cut off is neither.

    Raises:
        InputError: a problem has no final answer.
    """
    check_golds(prompts)
    problems = sampled(prompts, section.problems, seed)
    rows = []
    for row, group in zip(problems, judged_draws(model, tokenizer, problems, section, prompt, seed), strict=True):
        right: dict[str, None] = {}  # an ordered set
        wrong: dict[str, None] = {}
        for completion, is_right in group:
            if not completion.truncated:
                (right if is_right else wrong)[completion.text] = None
        rows.append({"id": row["id"], "messages": row["messages"], "right": list(right), "wrong": list(wrong)})
    return rows


def judged_draws(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Row],
    section: OwnSamplesSection, prompt: PromptSection, seed: int,
) -> list[list[tuple[Completion, bool]]]:  # fmt: skip
    """Of each problem the completions that the model drew for it, as written, and whether each is right in the schema,
    judged with what the prompts open."""
    repeated = [row for row in problems for _ in range(section.count)]
    encoded = encode(tokenizer, [row["messages"] for row in repeated], prompt.chat_template_kwargs)
    completions = generate(
        model, tokenizer, encoded, section.sampling, batch_size=section.batch_size, seed=seed, progress="samples"
    )
    begun = opening(tokenizer, problems[0]["messages"], prompt)
    paid = correctness_in_schema(
        [row["messages"] for row in repeated],
        [begun.judged(completion.text) for completion in completions],
        gold=[row["gold"] for row in repeated],
        locale=[row["locale"] for row in repeated],
    )
    pairs = [(completion, amount > 0) for completion, amount in zip(completions, paid, strict=True)]
    return [pairs[start : start + section.count] for start in range(0, len(pairs), section.count)]


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


def published_pairs(prompts: Sequence[Row], begun: Opening) -> list[Row]:
    """Rows of messages, chosen and rejected: the pairs of the data set, without what the prompts have `begun` of them.

    Raises:
        InputError: the data set has none.
    """
    if "rejected" not in prompts[0]:
        raise InputError(
            "'samples' is null, so that the phase learns from the data set's pairs, but its rows are no pairs of "
            "answers (rows: preference in its source file); draw samples, or name another data set"
        )
    return [
        {
            "id": row["id"], "messages": row["messages"], "chosen": begun.target(row["chosen"]),
            "rejected": begun.target(row["rejected"]),
        }
        for row in prompts
    ]  # fmt: skip


def own_pairs(samples: Sequence[Row]) -> list[Row]:
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
    """Token ids with a mask of the completion, turn's end included, for a trainer that learns the completion alone.

    Raises:
        InputError: as `_fitting`.
    """
    encoded = _fitting(rows, _encoded(rows, ("completion",), tokenizer, chat_template_kwargs), longest)
    return Dataset.from_list(
        [
            {"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)}
            for prompt, completion in encoded
        ]
    )


def encoder_decoder_dataset(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, Any]
) -> Dataset:
    """Token ids of the prompt for the encoder, and of the completion (the turn's end included) as labels."""
    return Dataset.from_list(
        [
            {"input_ids": prompt, "attention_mask": [1] * len(prompt), "labels": completion}
            for prompt, completion in _encoded(rows, ("completion",), tokenizer, chat_template_kwargs)
        ]
    )


def preference_dataset(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, Any], longest: int
) -> Dataset:
    """Token ids as DPOTrainer's own preparation would leave them, the turns' ends included.

    Raises:
        InputError: as `_fitting`.
    """
    encoded = _fitting(rows, _encoded(rows, ("chosen", "rejected"), tokenizer, chat_template_kwargs), longest)
    return Dataset.from_list(
        [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in encoded]
    )


def _fitting(rows: Sequence[Row], encoded: Sequence[list[list[int]]], longest: int) -> list[list[list[int]]]:
    """The rows of no more than `longest` tokens, prompt and answer; the others are counted on standard output. A cut
    row would teach the model to stop in mid-sentence.

    Raises:
        InputError: every row is longer.
    """
    fitting = [parts for parts in encoded if len(parts[0]) + max(map(len, parts[1:])) <= longest]
    if not fitting:
        raise InputError(f"max_length is {longest}, and all {len(rows)} rows are longer; raise it")
    if len(fitting) < len(rows):
        print(f"{len(rows) - len(fitting)} of {len(rows)} rows are longer than max_length {longest} and left out.")
    return fitting


def _encoded(
    rows: Sequence[Row], answers: Sequence[str], tokenizer: PreTrainedTokenizerBase,
    chat_template_kwargs: Mapping[str, Any],
) -> list[list[list[int]]]:  # fmt: skip
    # Prompt and answers apart, as they meet when the model answers: an answer's first token is its own.
    prompts = encode(tokenizer, [row["messages"] for row in rows], chat_template_kwargs)
    ended = [answer_ids(tokenizer, [row[name] for row in rows]) for name in answers]
    return [list(parts) for parts in zip(prompts, *ended, strict=True)]
