"""From rows to prompts: chat messages with the schema's system prompt, measured in the tokenizer's template."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message, Row
from grpo_cot.models.opening import check_template
from grpo_cot.recipes.recipe import Example, PromptSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def system_messages(tokenizer: "PreTrainedTokenizerBase", section: PromptSection) -> list[Message]:
    """The system message to send, possibly an empty one: some templates (Qwen2.5) inject a default in its absence.

    Raises:
        InputError: the tokenizer has no chat template, or its template inserts today's date and nothing fixes it.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        raise InputError("the tokenizer has no chat template: add one to the base model's tokenizer_config.json")
    if "strftime_now" in template and "date_string" not in section.chat_template_kwargs:
        raise InputError(
            "the chat template inserts today's date, so that prompts would change every day: "
            "fix it in the recipe, for instance prompt.chat_template_kwargs: {date_string: '26 Jul 2024'}"
        )
    if section.system is not None:
        return [{"role": "system", "content": section.system}]
    user = [{"role": "user", "content": "question"}]
    empty = [{"role": "system", "content": ""}]
    without, with_empty = (
        tokenizer.apply_chat_template(messages, tokenize=False, **section.chat_template_kwargs)
        for messages in (user, empty + user)
    )
    return empty if len(without) > len(with_empty) else []


def conversation(system: Sequence[Message], example: Example | None, question: str) -> list[Message]:
    """The messages that ask one question."""
    turns = [("user", question)]
    if example:
        turns = [("user", example.question), ("assistant", example.completion), *turns]
    return [*system, *({"role": role, "content": content} for role, content in turns)]


def map_rows(
    rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", section: PromptSection
) -> tuple[list[Row], list[str]]:
    """Prompts (id, messages, gold, locale, solution, tokens) of all rows short enough, and the ids of the others.

    Raises:
        InputError: as `system_messages` and `check_template`.
    """
    system = system_messages(tokenizer, section)
    messages = [conversation(system, section.example, row["question"]) for row in rows]
    texts = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **section.chat_template_kwargs
    )
    check_template(tokenizer, texts, section)
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    prompts, too_long = [], []
    for row, turns, tokens in zip(rows, messages, lengths, strict=True):
        if tokens > section.max_prompt_length:
            too_long.append(row["id"])
        else:
            fields = {field: row[field] for field in ("gold", "locale", "solution")}
            prompts.append({"id": row["id"], "messages": turns, **fields, "tokens": tokens})
    return prompts, too_long
