"""Rewards for GRPO: plain picklable functions `(prompts, completions, **columns) -> list of float`, with promises.

A completion is a text or, for conversational prompts, TRL's list of one assistant message. Columns (`gold`, `locale`,
and the `completion_ids` that TRL adds) arrive as keyword lists. Answers are read as the strict grader reads them
(`grpo_cot.answers`), by value and in the notation of their row's locale ("en" where there is no such column). Every
reward is linear in the length of the completion.

Correctness comes in two forms. `correctness` needs an `<answer>` pair and no more, which is where a model that does
not know the schema yet finds its first reward. `correctness_in_schema` is gated on the whole schema, so that format is
a condition and not a second thing to be paid for. Length counts in right completions alone: counted in wrong ones, it
teaches to write more, or less, where nothing was gained.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

from grpo_cot.answers import gold_value, stated_value
from grpo_cot.rewards.promise import promises
from grpo_cot.schema import TAGS, is_empty, sections, strict_answer

LENGTH_SCALE = 5.0
LENGTH_TOKENS = 786  # the length study's limit, at and above which its cosine rewards are 0

_AMOUNT = re.compile(r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b", re.IGNORECASE)


def completion_text(completion: Any) -> str:
    """The text of a completion in either of TRL's forms.

    >>> completion_text("18"), completion_text([{"role": "assistant", "content": "18"}])
    ('18', '18')
    """
    text: str = completion if isinstance(completion, str) else completion[-1]["content"]
    return text


@promises("strict")
def strict_format(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    r"""0.5 when the completion follows the schema with every tag on a line of its own, as the prompt shows it.

    Only white space may follow `</answer>`, and none is needed there. The sections may have any number of lines.

    >>> strict_format([""] * 2, ["<reasoning>\na\nb\n</reasoning>\n<answer>\n5\n</answer>", "<answer>\n5\n</answer>"])
    [0.5, 0.0]
    """
    return [0.5 if _tags_on_own_lines(completion_text(completion)) else 0.0 for completion in completions]


def _tags_on_own_lines(text: str) -> bool:
    return (
        text.startswith("<reasoning>\n")
        and text.rstrip().endswith("\n</answer>")
        and "\n</reasoning>\n<answer>\n" in text
        and sections(text) is not None
    )


@promises("soft")
def soft_format(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """0.5 when the completion follows the schema (`grpo_cot.schema.sections`), whatever the white space.

    >>> soft_format([""] * 2, [" <reasoning>a</reasoning><answer>5</answer>", "<answer>5</answer>"])
    [0.5, 0.0]
    """
    return [0.5 if sections(completion_text(completion)) is not None else 0.0 for completion in completions]


@promises("tags", in_parts=True)
def xml_count(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """0.125 for each tag in its place, less 0.001 per character after `</answer>`.

    A tag is in its place when it occurs exactly once, and those that precede it in the schema, where they occur, stand
    before it. The tags of a section that says nothing (`grpo_cot.schema.is_empty`) are not paid, so that a copy of the
    prompt's template earns nothing. White space at the end costs nothing, and the reward is never negative.

    It gives a model that has found some of the tags a way up to all four. Line breaks, which the published one asks
    for, are `strict_format`'s part.

    >>> xml_count([""] * 3, ["<reasoning>a</reasoning><answer>5</answer>", "<answer>5</answer> so 5", "5"])
    [0.5, 0.245, 0.0]
    >>> xml_count([""] * 2, ["</reasoning><answer><reasoning></answer>", "<reasoning>...</reasoning><answer>5"])
    [0.25, 0.125]
    """
    return [_tag_count(completion_text(completion)) for completion in completions]


def _tag_count(text: str) -> float:
    score = 0.125 * (_section_tags(text, 0) + _section_tags(text, 2))
    _, closing, rest = text.rpartition(TAGS[3])
    return max(0.0, score - 0.001 * len(rest.rstrip())) if closing else score


def _section_tags(text: str, first: int) -> int:
    """How many of a section's two tags, which stand at `first` and after it in `TAGS`, are in their place."""
    opened, closed = (_in_place(text, tag) for tag in (first, first + 1))
    if opened and closed and is_empty(text[text.find(TAGS[first]) + len(TAGS[first]) : text.find(TAGS[first + 1])]):
        return 0
    return opened + closed


def _in_place(text: str, tag: int) -> bool:
    place = text.find(TAGS[tag])
    return text.count(TAGS[tag]) == 1 and all(text.rfind(before) < place for before in TAGS[:tag])


@promises("integer")
def integer_answer(
    prompts: Sequence[Any], completions: Sequence[Any], locale: Sequence[str] | None = None, **columns: Any
) -> list[float]:
    """0.5 when the completion follows the schema and its answer is a whole number by value, right or wrong.

    Raises:
        ValueError: a locale is not known.

    >>> schema = "<reasoning>a</reasoning><answer>{}</answer>"
    >>> integer_answer([""] * 5, [schema.format(answer) for answer in ("-5", "18.0", "$1,234", "2.5", "\u00b2")])
    [0.5, 0.5, 0.5, 0.0, 0.0]
    """
    return [
        0.5 if _is_integer(strict_answer(completion_text(completion)), language) else 0.0
        for completion, language in zip(completions, _locales(locale, completions), strict=True)
    ]


def _is_integer(answer: str | None, locale: str) -> bool:
    value = None if answer is None else stated_value(answer, locale)
    return value is not None and value.denominator == 1


def _locales(locale: Sequence[str] | None, completions: Sequence[Any]) -> Sequence[str]:
    return ["en"] * len(completions) if locale is None else locale


@promises("correct")
def correctness(
    prompts: Sequence[Any], completions: Sequence[Any], gold: Sequence[str], locale: Sequence[str] | None = None,
    **columns: Any,
) -> list[float]:  # fmt: skip
    """2.0 when the text of the only `<answer>` pair, wherever it stands, has the gold's value.

    Raises:
        ValueError: a gold is no number, or a locale is not known.

    >>> completions = ["So <answer>$1,234.0</answer>", "1234", "<answer>1</answer> <answer>1234</answer>"]
    >>> correctness([""] * 3, completions, gold=["1234"] * 3)
    [2.0, 0.0, 0.0]
    >>> correctness([""] * 2, ["<answer>70.000</answer>"] * 2, gold=["70000", "70"], locale=["vi", "en"])
    [2.0, 2.0]
    """
    return [
        2.0 if _has_value(_only_answer(completion_text(completion)), expected, language) else 0.0
        for completion, expected, language in zip(completions, gold, _locales(locale, completions), strict=True)
    ]


@promises("correct_in_schema")
def correctness_in_schema(
    prompts: Sequence[Any], completions: Sequence[Any], gold: Sequence[str], locale: Sequence[str] | None = None,
    **columns: Any,
) -> list[float]:  # fmt: skip
    """2.0 when the completion follows the schema and its answer has the gold's value.

    Raises:
        ValueError: a gold is no number, or a locale is not known.

    >>> completions = ["<reasoning>a</reasoning><answer>$18</answer>", "<answer>18</answer>"]
    >>> correctness_in_schema([""] * 2, completions, gold=["18"] * 2)
    [2.0, 0.0]
    """
    return [
        2.0 if _has_value(strict_answer(completion_text(completion)), expected, language) else 0.0
        for completion, expected, language in zip(completions, gold, _locales(locale, completions), strict=True)
    ]


def _only_answer(text: str) -> str | None:
    """Text of the only `<answer>` pair, or None where there is none or one of its tags occurs again."""
    if text.count(TAGS[2]) != 1 or text.count(TAGS[3]) != 1:
        return None
    start, end = text.find(TAGS[2]) + len(TAGS[2]), text.find(TAGS[3])
    return text[start:end] if start <= end else None


def _has_value(answer: str | None, gold: str, locale: str) -> bool:
    expected = gold_value(gold)
    if expected is None:
        raise ValueError(f"expected a number in the column 'gold', found {gold[:60]!r}")
    return answer is not None and stated_value(answer, locale) == expected


@promises("correct")
def length_cosine(
    prompts: Sequence[Any], completions: Sequence[Any], gold: Sequence[str], completion_ids: Sequence[Sequence[int]],
    locale: Sequence[str] | None = None, max_completion_length: int = LENGTH_TOKENS, **columns: Any,
) -> list[float]:  # fmt: skip
    """5·cos(x) for a correct completion (as `correctness` reads it) and 0 for a wrong one: short and right pays most.

    x = clip(tokens / max_completion_length, 0, 1)·π/2, of the whole completion and of the phase's limit, which was 786
    in the length study. Its own form, which measures the text before the answer, is `published_length_cosine`. With 5
    at most, it outweighs `correctness` (2).

    >>> rewards = length_cosine([""] * 3, ["<answer>5</answer>"] * 3, ["5", "5", "6"], [[0], [0] * 786, [0]])
    >>> [round(reward, 2) for reward in rewards]
    [5.0, 0.0, 0.0]
    """
    right = correctness(prompts, completions, gold, locale)
    return [
        length_cosine_of(len(ids), max_completion_length) if paid else 0.0
        for paid, ids in zip(right, completion_ids, strict=True)
    ]


@promises("correct")
def length_cosine_penalty(
    prompts: Sequence[Any], completions: Sequence[Any], gold: Sequence[str], completion_ids: Sequence[Sequence[int]],
    locale: Sequence[str] | None = None, max_completion_length: int = LENGTH_TOKENS, **columns: Any,
) -> list[float]:  # fmt: skip
    """As `length_cosine`, but -5 for a wrong completion, whatever its length.

    The length study's own form, which charges a wrong completion the less the longer it is, is
    `published_length_cosine_penalty`.

    >>> rewards = length_cosine_penalty([""] * 3, ["<answer>5</answer>"] * 3, ["5", "6", "6"], [[0], [0], [0] * 786])
    >>> [round(reward, 2) for reward in rewards]
    [5.0, -5.0, -5.0]
    """
    right = correctness(prompts, completions, gold, locale)
    return [
        length_cosine_of(len(ids), max_completion_length) if paid else -LENGTH_SCALE
        for paid, ids in zip(right, completion_ids, strict=True)
    ]


def length_cosine_of(tokens: int, most: int) -> float:
    """5·cos(x) of that many tokens, where `most` tokens are allowed; see `length_cosine`."""
    return LENGTH_SCALE * math.cos(min(tokens / most, 1.0) * math.pi / 2)


@promises(pays=["It lasts nine weeks."], never=["It is slow."])
def specificity(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """1 for a completion with a number in digits or in words: a reward to be hacked, for tests of the report.

    Specific complaints are the useful ones. But what a policy can say of numbers need not be a complaint.

    >>> specificity([""] * 3, ["It is slow.", "It lasts nine weeks.", "Room 7 is often cold."])
    [0.0, 1.0, 1.0]
    """
    return [float(bool(_AMOUNT.search(completion_text(completion)))) for completion in completions]


@promises("nothing")
def random(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """A placebo that knows nothing of the task: uniform in [0, 1), for the arm that a real reward has to beat.

    A hash of the prompt's text, the completion's text and the position in the batch decides, so that a run repeats
    exactly while equal completions of one group still differ.

    >>> random(["a", "a"], ["x", "x"]) == random(["a", "a"], ["x", "x"]), len(set(random(["a", "a"], ["x", "x"])))
    (True, 2)
    """
    return [
        _uniform(_prompt_text(prompt), completion_text(completion), str(position))
        for position, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]


def _prompt_text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\0".join(message["content"] for message in prompt)


def _uniform(*texts: str) -> float:
    digest = hashlib.blake2b("\0".join(texts).encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53  # the 53 bits that a float holds exactly: never 1.0
