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

LOCALES = ("en", "vi")
LONGEST_NUMBER = 400  # characters; Python refuses to convert very long digit strings, and no answer is one
CURRENCY = "$\u20ac\u00a3\u00a5\u20ab"

# The thousands sign, then the decimal sign. In Vietnamese text the English notation applies where the other cannot:
# "2.5" has only one reading, and so has "1,234,567".
_ENGLISH = re.compile(r"(?P<whole>\d{1,3}(?:,\d{3})+|\d*)(?:\.(?P<decimals>\d+))?", re.ASCII)
_VIETNAMESE = re.compile(r"(?P<whole>[1-9]\d{0,2}(?:\.\d{3})+|\d+)(?:,(?P<decimals>\d+))?", re.ASCII)
# 88,000 and 2,750 in Vietnamese text are thousands in English style: nobody writes 2,75 with a third decimal of zero.
_ENGLISH_THOUSANDS = re.compile(r"[1-9]\d{0,2},\d\d0", re.ASCII)
_ENGLISH_MONEY = re.compile(r"[1-9]\d{0,2},\d{3}", re.ASCII)  # $1,255: no price has three decimals
_NUMBER = re.compile(r"(?P<sign>[-+\u2212]?)(?P<digits>\d[\d.,]*|\.\d[\d.,]*)", re.ASCII)


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


def worked(solution: str, gold: str, locale: str = "en") -> str:
    """The completion that a worked solution would be: the target of supervised training and of perplexity.

    The gold, which is in plain notation, is written in the locale's.

    >>> worked("2 + 3 = 5", "5")
    '<reasoning>\\n2 + 3 = 5\\n</reasoning>\\n<answer>\\n5\\n</answer>'
    >>> worked("9 / 8", "1.125", "vi").split()[-2]
    '1,125'
    """
    answer = gold.replace(".", ",") if locale == "vi" else gold
    return f"<reasoning>\n{solution}\n</reasoning>\n<answer>\n{answer}\n</answer>"


def decimal(digits: str, locale: str = "en", *, money: bool = False) -> Fraction | None:
    """The value of ASCII digits with their thousands and decimal signs, else None; `money` when they have a currency.

    English: commas group thousands, a point starts decimals. Vietnamese (`vi`) the other way round, except where only
    the English reading fits. No other number's size decides between them.

    Raises:
        ValueError: the locale is not known.

    >>> [str(decimal(digits)) for digits in ("70.000", "2,5", "88,000", "2.5")]
    ['70', 'None', '88000', '5/2']
    >>> [str(decimal(digits, "vi")) for digits in ("70.000", "2,5", "88,000", "2.5")]
    ['70000', '5/2', '88000', '5/2']
    """
    if locale not in LOCALES:
        raise ValueError(f"unknown locale {locale!r}, expected one of {', '.join(LOCALES)}")
    if len(digits) > LONGEST_NUMBER:
        return None
    if digits.isascii() and digits.isdigit():
        return Fraction(int(digits))
    match = None
    if locale == "vi" and not (_ENGLISH_MONEY if money else _ENGLISH_THOUSANDS).fullmatch(digits):
        match = _VIETNAMESE.fullmatch(digits)
    match = match or _ENGLISH.fullmatch(digits)
    if not match or not digits:
        return None
    whole, decimals = match["whole"].replace(",", "").replace(".", ""), match["decimals"] or ""
    return Fraction(int(whole + decimals), 10 ** len(decimals))


def number(text: str, locale: str = "en") -> Fraction | None:
    """The value of a text that states one number and nothing else but a currency sign, a per cent sign, a unit of
    letters, or a closing full stop; else None. The locale says how its digits are read (`decimal`).

    Raises:
        ValueError: the locale is not known.

    >>> number("-$1,234.50"), number("18 dollars."), number("18.0"), number("3 or 4"), number("²")
    (Fraction(-2469, 2), Fraction(18, 1), Fraction(18, 1), None, None)
    >>> number("70.000 đồng", "vi"), number("2,5", "vi")
    (Fraction(70000, 1), Fraction(5, 2))
    """
    text = text.strip().removesuffix(".")
    sign, text = (text[0], text[1:].lstrip()) if text[:1] in tuple("-+\u2212") else ("", text)
    money = text[:1] in tuple(CURRENCY)
    text = text.lstrip(CURRENCY).lstrip() if money else text
    match = _NUMBER.match(text)
    if not match or (sign and match["sign"]):
        return None
    unit = text[match.end() :].strip()
    if unit and not (unit[0].isalpha() or unit[0] in f"%{CURRENCY}"):
        return None
    if not all(character.isalpha() or character in f" .-%{CURRENCY}" for character in unit):
        return None
    value = decimal(match["digits"], locale, money=money or unit.startswith(tuple(CURRENCY)))
    if value is None:
        return None
    return -value if (sign or match["sign"]) in ("-", "\u2212") else value


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
    written = re.fullmatch(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?", text[:LONGEST_NUMBER], re.ASCII)
    if len(text) > LONGEST_NUMBER or not written or not re.search(r"\d", text):
        raise ValueError(f"expected a number after '####', found {text[:60]!r}")
    return text.replace(",", "").removeprefix("+")
