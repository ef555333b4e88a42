"""From rows to prompts: chat messages with the schema's system prompt, measured in the tokenizer's template."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message, Row
from grpo_cot.models.opening import check_template
from grpo_cot.models.turns import turn_end
from grpo_cot.recipes.recipe import Example, PromptSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_MORE = ("chosen", "rejected", "text", "label", "wanted")  # of pairs of answers, and of texts


def system_messages(tokenizer: "PreTrainedTokenizerBase", section: PromptSection) -> list[Message]:
    """The system message to send, possibly an empty one: some templates (Qwen2.5) inject a default in its absence.

    Raises:
        InputError: the base has no chat template, or one that fails, that inserts today's date with nothing to fix it,
            or that has no place for the recipe's system message; or nothing ends its answers.
    """
    source = _source(tokenizer)
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        raise InputError(
            f"the base has no chat template: write one into its source file, {source}, as chat_template, for instance "
            "chat_template: \"{% for message in messages %}{{ message['content'] + '\\n\\n' }}{% endfor %}\""
        ) from None
    if "strftime_now" in template and "date_string" not in section.chat_template_kwargs:
        raise InputError(
            "the chat template inserts today's date, so that prompts would change every day: "
            "fix it in the recipe, for instance prompt.chat_template_kwargs: {date_string: '26 Jul 2024'}"
        )
    if turn_end(tokenizer) is None:
        raise InputError(
            "neither the base's chat template nor its tokenizer has a token that ends an answer, so that a model never "
            "stops; choose a base that has one"
        )
    user = [{"role": "user", "content": "question"}]
    message = {"role": "system", "content": section.system or ""}
    texts, failure = _rendered(tokenizer, [[message, *user]], section)
    if section.system is None:
        [without] = _texts(tokenizer, [user], section)
        return [message] if texts and len(without) > len(texts[0]) else []
    if failure:
        _texts(tokenizer, [user], section)  # where a question alone fails too, the system message is not the reason
    if not texts or message["content"].strip() not in texts[0]:
        raise InputError(
            f"prompt.system is given, but the base's chat template takes no system message "
            f"({failure or 'it leaves the message out'}): set prompt.system to null (prompt.examples can show the "
            f"form), or give the base a template that writes it before the question, as chat_template in {source}"
        )
    return [message]


def _source(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The source file of the tokenizer's base."""
    return f"sources/bases/{Path(tokenizer.name_or_path).name}.yaml"


def _rendered(
    tokenizer: "PreTrainedTokenizerBase", conversations: Sequence[Sequence[Message]], section: PromptSection
) -> tuple[list[str], str]:
    """The conversations' prompts as text; or none, and why the chat template fails on one."""
    try:
        texts: list[str] = tokenizer.apply_chat_template(
            list(map(list, conversations)), tokenize=False, add_generation_prompt=True, **section.chat_template_kwargs
        )
    except Exception as error:  # a template is a program, and raises what it likes
        return [], " ".join(str(error).split())[:100] or type(error).__name__
    return texts, ""


def _texts(
    tokenizer: "PreTrainedTokenizerBase", conversations: Sequence[Sequence[Message]], section: PromptSection
) -> list[str]:
    """The conversations' prompts as text.

    Raises:
        InputError: the chat template fails on one.
    """
    texts, failure = _rendered(tokenizer, conversations, section)
    if failure:
        raise InputError(
            f"the base's chat template fails ({failure}); give it what it needs in prompt.chat_template_kwargs, or "
            f"give the base another template, as chat_template in {_source(tokenizer)}"
        )
    return texts


def conversation(system: Sequence[Message], examples: Sequence[Example], question: str) -> list[Message]:
    """The messages that ask one question, after the worked examples."""
    turns = [turn for shown in examples for turn in (("user", shown.question), ("assistant", shown.completion))]
    turns.append(("user", question))
    return [*system, *({"role": role, "content": content} for role, content in turns)]


def map_rows(
    rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", section: PromptSection
) -> tuple[list[Row], list[str]]:
    """Prompts of all rows short enough, and the ids of the others.

    A prompt has id, messages, gold, locale, solution, tokens, of a pair of answers chosen and rejected, and of a text
    that it begins text, label and wanted.

    Raises:
        InputError: as `system_messages` and `check_template`.
    """
    system = system_messages(tokenizer, section)
    messages = [conversation(system, section.examples, row["question"]) for row in rows]
    texts = _texts(tokenizer, messages, section)
    check_template(tokenizer, texts, section)
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    prompts, too_long = [], []
    for row, turns, tokens in zip(rows, messages, lengths, strict=True):
        if tokens > section.max_prompt_length:
            too_long.append(row["id"])
        else:
            fields = {"gold": row["gold"], "locale": row["locale"], "solution": row.get("solution")}
            fields |= {field: row[field] for field in _MORE if field in row}
            prompts.append({"id": row["id"], "messages": turns, **fields, "tokens": tokens})
    return prompts, too_long


def variant_sets(section: PromptSection, sets: Collection[str]) -> dict[str, str]:
    """The sets with fewer worked examples: by their names, the evaluation set whose questions they ask.

    Raises:
        InputError: the data set, whose own sets are `sets`, has one of such a name.
    """
    made = {variant: name for name in sets for variant in section.variants(name)}
    if taken := sorted(made.keys() & set(sets)):
        raise InputError(
            f"prompt.also_with makes a set {taken[0]!r} of {made[taken[0]]!r}, but the data set has a set of that name "
            "itself; rename that one in the source file, or take the number out of prompt.also_with"
        )
    return made


def map_variants(
    name: str, rows: Sequence[Row], prompts: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", section: PromptSection
) -> dict[str, list[Row]]:
    """Prompts of the sets that ask the evaluation set `name` with fewer worked examples, by their names.

    They ask the questions of the set's own `prompts` and no others, so that answers are paired.

    Raises:
        InputError: as `map_rows`.
    """
    kept = {prompt["id"] for prompt in prompts}
    asked = [row for row in rows if row["id"] in kept]
    return {variant: map_rows(asked, tokenizer, fewer)[0] for variant, fewer in section.variants(name).items()}
