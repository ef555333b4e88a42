"""The XML answer schema: the form of a completion, and the gold answer of a worked solution.

Training rewards and the strict grader share this module, `numbers` and `answers`. So a change to the lenient reader
(`grpo_cot.grading.lenient`) never makes a trained model stale. Everything here is linear in the length of its input.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_cot.numbers import LONGEST_NUMBER

SYSTEM_PROMPT = (
    "Work the problem out step by step, then give the final number. Answer in this form:\n"
    "<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>"
)
SHAPELESS = "\u115f\u1160\u3164\uffa0"  # letters by Unicode's word that print nothing
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


def sections(completion: str) -> tuple[str, str] | None:
    """Text of the two sections of a completion that follows the schema, else None.

    The schema: the four tags, once each and in order, only white space before, between and after the sections, and
    neither section empty (`is_empty`). Line breaks around a section's text are its own and are stripped.

    >>> sections("<reasoning>\\n2 + 3 = 5\\n</reasoning>\\n<answer>\\n5\\n</answer>")
    ('2 + 3 = 5', '5')
    >>> sections("<answer>5</answer>") is None
    True
    """
    text = completion.strip()
    if not text.startswith(TAGS[0]) or not text.endswith(TAGS[3]) or any(text.count(tag) != 1 for tag in TAGS):
        return None
    reasoning_end, answer_start = text.find(TAGS[1]), text.find(TAGS[2])
    if answer_start < reasoning_end or text[reasoning_end + len(TAGS[1]) : answer_start].strip():
        return None
    reasoning = text[len(TAGS[0]) : reasoning_end].strip()
    answer = text[answer_start + len(TAGS[2]) : -len(TAGS[3])].strip()
    return None if is_empty(reasoning) or is_empty(answer) else (reasoning, answer)


def is_empty(text: str) -> bool:
    """Whether a section says nothing: it has no letter and no digit, as the prompt's own "..." has none.

    >>> [is_empty(text) for text in ("2 + 3", "...", "\u200b", "\u3164")]
    [False, True, True, True]
    """
    return not any(character.isalnum() and character not in SHAPELESS for character in text)


def strict_answer(completion: str) -> str | None:
    """Text of the answer of a completion that follows the schema, else None.

    >>> strict_answer("<reasoning>\\n617 + 617\\n</reasoning>\\n<answer>\\n$1,234\\n</answer>\\n")
    '$1,234'
    >>> strict_answer("The answer is 5.") is None
    True
    """
    texts = sections(completion)
    return texts[1] if texts else None


def worked(solution: str, gold: str, locale: str = "en") -> str:
    """A worked solution as a completion: the target of supervised training and of perplexity.

    The gold is in plain notation; the completion has it in the locale's. In Vietnamese, zeros at the end of decimals
    are left out, since 2,750 reads as thousands (`grpo_cot.numbers`).

    >>> worked("2 + 3 = 5", "5")
    '<reasoning>\\n2 + 3 = 5\\n</reasoning>\\n<answer>\\n5\\n</answer>'
    >>> worked("9 / 8", "1.125", "vi").split()[-2], worked("11 / 4", "2.750", "vi").split()[-2]
    ('1,125', '2,75')
    """
    answer = gold
    if locale == "vi" and "." in gold:
        answer = re.sub(r"(?<!\d)\.", "0.", gold).rstrip("0").removesuffix(".").replace(".", ",")
    return f"<reasoning>\n{solution}\n</reasoning>\n<answer>\n{answer}\n</answer>"


def model_answer(prompt: Mapping[str, Any]) -> str | None:
    """The answer that a prompt's row holds up to a model: the chosen one of a pair, the rest of a text that the prompt
    begins, else the worked solution in the schema; None where it has none of them."""
    if "chosen" in prompt:
        return str(prompt["chosen"])
    if "text" in prompt:
        return prompt["text"][len(prompt["messages"][-1]["content"]) :] or None
    return worked(prompt["solution"], prompt["gold"], prompt["locale"]) if prompt["solution"] else None


def whole_text(prompt: Sequence[Mapping[str, str]], completion: str) -> str:
    """The text that a prompt's last message begins and a completion ends.

    A tokenizer may take the space at a completion's start for its own; a beginning ends with a whole word.

    >>> whole_text([{"role": "user", "content": "The lecturer"}], " explains"), whole_text([{"content": "Good"}], "!")
    ('The lecturer explains', 'Good!')
    >>> whole_text([{"content": "The lecturer"}], "explains")
    'The lecturer explains'
    """
    return prompt[-1]["content"] + (" " if completion[:1].isalnum() else "") + completion


def gold(answer: str) -> str:
    """The final answer of a worked solution: the number after its only `####`, without commas, with sign and decimals.

    Raises:
        ValueError: there is no `####`, more than one, or no number after it.

    >>> gold("He has 1,000 + 234 = 1,234.\\n#### 1,234"), gold("#### -5"), gold("#### 2.50")
    ('1234', '-5', '2.50')
    """
    parts = answer.split("####")
    if len(parts) != 2:
        raise ValueError(f"expected one '####' before the final answer, found {len(parts) - 1}")
    text = parts[1].strip()
    match = re.fullmatch(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?", text[:LONGEST_NUMBER], re.ASCII)
    if len(text) > LONGEST_NUMBER or not match or not re.search(r"\d", text):
        raise ValueError(f"expected a number after '####', found {text[:60]!r}")
    return text.replace(",", "").removeprefix("+")
