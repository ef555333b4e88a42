"""The five well-known GRPO rewards for GSM8K with the XML schema, and two of a length study, for comparison with ours.

They compute what the code that circulates computes, defects included, each of which a test shows:

- both format patterns lack `re.DOTALL`, so that reasoning or an answer of several lines never pays;
- the strict pattern also asks for a line break after `</answer>`, which chat models do not write;
- the XML count takes 0.001 per character of the *whole* completion when that ends at `</answer>`, and can be negative;
- "integer" is `str.isdigit`: no -5, 18.0 or 1,234, but ² and full-width digits;
- correctness compares texts, so 18.0 or $18 is wrong for 18, and a bare 18 without any tag is right;
- the length study's penalty falls with the length of a wrong completion, so that writing more pays where nothing is
  right.

The length study's rewards read the answer as our `correctness` does, and measure the text before the first `<answer>`,
tokenised again (`reasoning_tokens`, which `grpo_cot.rewards.registry` counts); the one without the penalty keeps its
promise.

Use `grpo_cot.rewards.ours` to train. The soft pattern takes quadratic time on adversarial text.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from grpo_cot.rewards import ours
from grpo_cot.rewards.promise import promises

_STRICT = re.compile(r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$")
_SOFT = re.compile(r"<reasoning>.*?</reasoning>\s*<answer>.*?</answer>")


def _texts(completions: Sequence[Any]) -> list[str]:
    return [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]


def _extracted_answer(text: str) -> str:
    """What follows the last `<answer>`, up to the next `</answer>`; the whole text where there is neither."""
    return text.split("<answer>")[-1].split("</answer>")[0].strip()


@promises("strict")
def published_strict_format(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    r"""0.5 when the completion is the schema with one line per section, ending in a line break.

    >>> schema = "<reasoning>\n{}\n</reasoning>\n<answer>\n18\n</answer>{}"
    >>> completions = [schema.format("x", "\n"), schema.format("x", ""), schema.format("x\ny", "\n")]
    >>> published_strict_format([""] * 3, completions)
    [0.5, 0.0, 0.0]
    """
    return [0.5 if _STRICT.match(text) else 0.0 for text in _texts(completions)]


@promises("soft")
def published_soft_format(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    r"""0.5 when the completion starts with both sections, each without a line break.

    >>> completions = ["<reasoning>x</reasoning><answer>5</answer> so", "<reasoning>\nx</reasoning> <answer>5</answer>"]
    >>> published_soft_format([""] * 2, completions)
    [0.5, 0.0]
    """
    return [0.5 if _SOFT.match(text) else 0.0 for text in _texts(completions)]


@promises("tags", in_parts=True)
def published_xml_count(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    r"""0.125 per tag that occurs once with its line breaks, less 0.001 per character after each form of `</answer>`.

    >>> text = "<reasoning>\nx\n</reasoning>\n<answer>\n18\n</answer>"
    >>> len(text), [round(reward, 3) for reward in published_xml_count([""] * 2, [text, text + "\n"])]
    (48, [0.453, 0.5])
    """
    return [_xml_count(text) for text in _texts(completions)]


def _xml_count(text: str) -> float:
    score = 0.125 * ((text.count("<reasoning>\n") == 1) + (text.count("\n</reasoning>\n") == 1))
    if text.count("\n<answer>\n") == 1:
        score += 0.125 - len(text.split("\n</answer>\n")[-1]) * 0.001
    if text.count("\n</answer>") == 1:
        score += 0.125 - (len(text.split("\n</answer>")[-1]) - 1) * 0.001
    return score


@promises("integer")
def published_integer_answer(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """0.5 when the extracted answer consists of digits, in the sense of `str.isdigit`.

    >>> answers = ["<answer>18</answer>", "<answer>-5</answer>", "<answer>\u00b2</answer>", "18"]
    >>> published_integer_answer([""] * 4, answers)
    [0.5, 0.0, 0.5, 0.5]
    """
    return [0.5 if _extracted_answer(text).isdigit() else 0.0 for text in _texts(completions)]


@promises("correct")
def published_correctness(
    prompts: Sequence[Any], completions: Sequence[Any], gold: Sequence[str], **columns: Any
) -> list[float]:
    """2.0 when the extracted answer is the gold's text.

    >>> published_correctness([""] * 3, ["<answer>18</answer>", "<answer>18.0</answer>", "18"], gold=["18"] * 3)
    [2.0, 0.0, 2.0]
    """
    texts = _texts(completions)
    return [2.0 if _extracted_answer(text) == expected else 0.0 for text, expected in zip(texts, gold, strict=True)]


@promises("correct")
def published_length_cosine(
    prompts: Sequence[Any], completions: Sequence[Any], gold: Sequence[str], reasoning_tokens: Sequence[int],
    locale: Sequence[str] | None = None, max_completion_length: int = ours.LENGTH_TOKENS, **columns: Any,
) -> list[float]:  # fmt: skip
    """5·cos(x) for a right completion and 0 for a wrong one, by the length of the text before `<answer>`.

    x = clip(tokens / max_completion_length, 0, 1)·π/2, of the phase's limit, which was 786 in the study.

    >>> rewards = published_length_cosine([""] * 3, ["<answer>5</answer>"] * 3, ["5", "5", "6"], [0, 786, 0])
    >>> [round(reward, 2) for reward in rewards]
    [5.0, 0.0, 0.0]
    """
    right = ours.correctness(prompts, completions, gold, locale)
    return [
        ours.length_cosine_of(tokens, max_completion_length) if paid else 0.0
        for paid, tokens in zip(right, reasoning_tokens, strict=True)
    ]


@promises("correct")
def published_length_cosine_penalty(
    prompts: Sequence[Any], completions: Sequence[Any], gold: Sequence[str], reasoning_tokens: Sequence[int],
    locale: Sequence[str] | None = None, max_completion_length: int = ours.LENGTH_TOKENS, **columns: Any,
) -> list[float]:  # fmt: skip
    """As `published_length_cosine`, but -5·cos(x) for a wrong completion: the longer it is, the less it costs.

    >>> answers = ["<answer>5</answer>"] * 3
    >>> rewards = published_length_cosine_penalty([""] * 3, answers, ["5", "6", "6"], [0, 0, 786])
    >>> [round(reward, 2) for reward in rewards]
    [5.0, -5.0, -0.0]
    """
    right = ours.correctness(prompts, completions, gold, locale)
    return [
        math.copysign(ours.length_cosine_of(tokens, max_completion_length), paid - 1.0)
        for paid, tokens in zip(right, reasoning_tokens, strict=True)
    ]
