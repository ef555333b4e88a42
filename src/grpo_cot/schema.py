"""The XML answer schema: what a completion must look like, and what a gold answer is.

Training rewards and the strict grader share this module and nothing else, so that a change to the lenient reader
(`grpo_cot.answers`) never makes a trained model stale. Everything here is linear in the length of its input.
"""

import re
from fractions import Fraction

SYSTEM_PROMPT = (
    "Work the problem out step by step, then give the final number. Answer in this form:\n"
    "<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>"
)
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")

_NUMBER = re.compile(r"(?P<sign>[-+\u2212]?)(?P<whole>\d{1,3}(?:,\d{3})+|\d+)?(?P<decimals>\.\d+)?", re.ASCII)
_LONGEST_NUMBER = 400  # characters; Python refuses to convert very long digit strings, and no answer is one
_CURRENCY = "$\u20ac\u00a3\u00a5\u20ab"


def sections(completion: str) -> tuple[str, str] | None:
    """Text of the two sections of a completion that follows the schema, else None.

    The schema: the four tags, once each and in order, only white space before, between and after the sections, and
    neither section empty. Line breaks around a section's text are its own and are stripped.

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
    return (reasoning, answer) if reasoning and answer else None


def strict_answer(completion: str) -> str | None:
    """Text of the answer of a completion that follows the schema, else None.

    >>> strict_answer("<reasoning>\\n...\\n</reasoning>\\n<answer>\\n$1,234\\n</answer>\\n")
    '$1,234'
    >>> strict_answer("The answer is 5.") is None
    True
    """
    found = sections(completion)
    return found[1] if found else None


def number(text: str) -> Fraction | None:
    """The value of a text that states one number and nothing else but a currency sign, a per cent sign, a unit of
    letters, or a closing full stop; else None. English notation: commas group thousands, a point starts decimals.

    >>> number("-$1,234.50"), number("18 dollars."), number("18.0"), number("3 or 4"), number("²")
    (Fraction(-2469, 2), Fraction(18, 1), Fraction(18, 1), None, None)
    """
    text = text.strip().removesuffix(".")
    sign, text = (text[0], text[1:].lstrip()) if text[:1] in tuple("-+\u2212") else ("", text)
    text = text.lstrip(_CURRENCY).lstrip() if text[:1] in tuple(_CURRENCY) else text
    match = _NUMBER.match(text)
    if not match or not (match["whole"] or match["decimals"]) or (sign and match["sign"]):
        return None
    unit = text[match.end() :].strip()
    if unit and not (unit[0].isalpha() or unit[0] in f"%{_CURRENCY}"):
        return None
    if not all(character.isalpha() or character in f" .-%{_CURRENCY}" for character in unit):
        return None
    sign = sign or match["sign"]
    if len(match.group()) > _LONGEST_NUMBER:
        return None
    value = Fraction((match["whole"] or "0").replace(",", "") + (match["decimals"] or ""))
    return -value if sign in ("-", "\u2212") else value


def gold(answer: str) -> str:
    """The final answer of a worked solution: what follows its only `####`, with commas removed, sign and decimals kept.

    Raises:
        ValueError: there is no `####`, more than one, or no number after it.

    >>> gold("He has 1,000 + 234 = 1,234.\\n#### 1,234"), gold("#### -5"), gold("#### 2.50")
    ('1234', '-5', '2.50')
    """
    parts = answer.split("####")
    if len(parts) != 2:
        raise ValueError(f"expected one '####' before the final answer, found {len(parts) - 1}")
    text = parts[1].strip()
    written = re.fullmatch(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?", text[:_LONGEST_NUMBER], re.ASCII)
    if len(text) > _LONGEST_NUMBER or not written or not re.search(r"\d", text):
        raise ValueError(f"expected a number after '####', found {text[:60]!r}")
    return text.replace(",", "").removeprefix("+")
