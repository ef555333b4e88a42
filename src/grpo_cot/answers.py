r"""The graders' reader: which answer a completion states, wherever it stands, and what number that is.

It reads what a careful person would: the last answer that is announced (`<answer>`, `####`, `\boxed{}`, "the answer
is"), else the number in the final statement. Unlike a last-number extractor it gives no credit for a list of guesses,
for a calculation left undone, or for a number that merely comes last. Rewards read with `grpo_cot.schema` instead, so
that training never pays for what this reader forgives.

Time is linear: of a very long completion only the end is read, and every pattern is free of backtracking over it.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

_READ = 20_000  # characters read at the end of a completion: about 5,000 tokens
_ANNOUNCEMENTS = 100  # announced answers tried, from the last
_STATEMENT = 300  # characters within which an announced answer is looked for
_LONGEST_NUMBER = 400  # characters; Python refuses to convert very long digit strings, and no answer is one
_CURRENCY = "$\u20ac\u00a3\u00a5\u20ab"

# The thousands sign, then the decimal sign. A later notation applies where the earlier cannot: "2.5" has only one
# reading in Vietnamese text too.
_ENGLISH = re.compile(r"(?P<whole>\d{1,3}(?:,\d{3})+|\d*)(?:\.(?P<decimals>\d+))?", re.ASCII)
_VIETNAMESE = re.compile(r"(?P<whole>[1-9]\d{0,2}(?:\.\d{3})+|\d+)(?:,(?P<decimals>\d+))?", re.ASCII)
_NOTATIONS = {"en": (_ENGLISH,), "vi": (_VIETNAMESE, _ENGLISH)}
# 88,000 and 2,750 in Vietnamese text are thousands in English style: nobody writes 2,75 with a third decimal of zero.
_ENGLISH_THOUSANDS = re.compile(r"[1-9]\d{0,2},\d\d0", re.ASCII)

_DIGITS = r"(?:\d++(?:[.,]\d++)*+|(?<!\.)\.\d++)"
_VALUE = re.compile(
    rf"(?P<sign>[-+]?)\s*[{_CURRENCY}]*\s*(?P<inner_sign>[-+]?)(?P<number>{_DIGITS})"
    r"(?:\s*/\s*(?P<denominator>\d+))?\s*(?P<unit>.*)",
    re.ASCII | re.DOTALL,
)
_NUMBER = re.compile(  # a number inside a statement; not the 2 of "x2", not an ordinal
    rf"(?<!\w)[-+]?(?:[{_CURRENCY}]++\s?)?[-+]?{_DIGITS}(?:\s?/\s?\d++)?(?!(?:st|nd|rd|th)\b)(?:\s?%)?",
    re.IGNORECASE,
)

_PUNCTUATION = str.maketrans(
    "\uff0c\uff0e\uff0d\uff0b\uff1d\uff03\uff05\uff04\uff0f\uff1a\uff08\uff09"  # full width
    "\u2212\u2010\u2011\u2013\ufe63\u2248\u2192\u21d2\u00a0\u2009\u202f",  # minus signs, what leads to a result, spaces
    ",.-+=#%$/:()-----===   ",
)
_FORMATTING = (
    (re.compile(r"<<[^<>\n]*>>"), ""),  # GSM8K's calculator annotations
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\(?:times|cdot|div)"), "*"),
    (re.compile(r"\\(?:approx|implies|Rightarrow|to)\b"), "="),
    (re.compile(r"\\[,!;:()\[\]]|\*\*|\$\$|`"), ""),
    (re.compile(r"\\([$%])|\{(,)\}"), r"\1\2"),
)

_MARKER = re.compile(
    r"(?P<tag><answer>\s*+)"
    r"|(?P<rule>\#{4,}[^\S\n]*+)"
    r"|(?P<boxed>\\boxed\s*+\{)"
    r"|(?P<phrase>(?<![\w</])(?:answers?\b[^.,\n\d:=]{0,40}?(?:\b(?:is|be|are|was|equals)\b|[:=])"
    r"|(?:đáp\s(?:án|số)|kết\squả|câu\strả\slời)\b"
    r"[^.,\n\d:=]{0,40}?(?:\blà\b|[:=])))",
    re.IGNORECASE,
)
_LABEL = re.compile(  # "Step 2:", "2. " or "- " before a line's own text
    r"^[^\S\n]*(?:\**(?:step|part|bước|phần)[^\S\n]+\d+\**[:.)]?\**|\d+[.)]|[-*\u2022])[^\S\n]+(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_NEW_QUESTION = re.compile(  # where a base model, done, goes on to ask itself the next one
    r"^[#*\s]{0,8}(?:question|problem|q|user|human|câu hỏi|bài toán)\**[ ]?\d{0,4}\s?:",
    re.IGNORECASE | re.MULTILINE,
)
_RETRACTION = re.compile(r"\b(?:wait|actually|correction|mistake|oops|sorry|nhầm|khoan)\b", re.IGNORECASE)
_CONNECTORS = "or|and|x|times|plus|minus|maybe|hoặc|hay|và"
_ASIDE = re.compile(  # what follows an announced number and does not belong to it
    rf"[;(]|\.\s|,\s+(?!(?:{_CONNECTORS})\b)(?=[^\W\d])|\b(?:because|since|which)\b", re.IGNORECASE
)
_REASON = re.compile(r"\bbecause\b", re.IGNORECASE)
_CONNECTED = re.compile(  # between two numbers that are only together an answer, or are several
    rf"[+*/^:=<>\u00d7\u00f7]|(?<![^\W\d])-|\b(?:{_CONNECTORS})\b|^\s*(?:to|of|đến)\b", re.IGNORECASE
)
_DENIED = re.compile(r"(?:\bnot|n't|\bkhông phải)\s{1,9}$", re.IGNORECASE)
_CALCULATED = re.compile(r"\s*(?:[+^\u00b2\u00b3\u00d7\u00f7]|\*\s*\w)")  # a number so followed is part of a term
_INTRODUCTION = re.compile(  # "So after 3 days, " before the main clause
    r"^\W{0,9}(?:(?:so|thus|therefore|hence|then|finally|vậy)\b,?\s*)?"
    r"(?:after|in|for|with|if|when|on|at|by|over|since|given|from|during|to|sau|trong|với|nếu|khi|để)\b"
    r"[^,=]*,\s+(?=[^\W\d])",
    re.IGNORECASE,
)
_DIGIT = re.compile("[0-9]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def numeric_value(text: str, locale: str = "en") -> Fraction | None:
    """The value of a text that states one number, with or without sign, currency, per cent sign or unit; else None.

    English: commas group thousands, a point starts decimals. Vietnamese (`vi`) the other way round, except where only
    the English reading fits. `a/b` is a fraction, unless it comes out whole: then it is a division left undone, and no
    answer. A per cent sign is a unit, and so is "million": wherever GSM8K's solutions end in one, the gold is without.

    Raises:
        ValueError: the locale is not known.

    >>> [str(numeric_value(text)) for text in ("-$1,234.50", "18 cups.", "1/2", "36/2", "\u2212\uff11\uff18", "3, 4")]
    ['-2469/2', '18', '1/2', 'None', '-18', 'None']
    >>> [str(numeric_value(text, "vi")) for text in ("70.000 đô la", "2,5", "88,000", "2.5")]
    ['70000', '5/2', '88000', '5/2']
    """
    if locale not in _NOTATIONS:
        raise ValueError(f"unknown locale {locale!r}, expected one of {', '.join(_NOTATIONS)}")
    text = text.strip()
    if len(text) > _LONGEST_NUMBER:
        return None
    match = _VALUE.fullmatch(_without_formatting(_plain(text)).strip().removesuffix("."))
    if not match or (match["sign"] and match["inner_sign"]) or not _is_unit(match["unit"]):
        return None
    value = _decimal_value(match["number"], locale)
    if value is None:
        return None
    if match["denominator"]:
        if not int(match["denominator"]):
            return None
        value /= int(match["denominator"])
        if value.denominator == 1:
            return None
    return -value if "-" in match["sign"] + match["inner_sign"] else value


def same_answer(answer: str | None, gold: str, locale: str = "en") -> bool:
    """Whether an answer has the gold's value. The gold is in plain or English notation, whatever the answer's locale.

    >>> same_answer("$1,234.0", "1234"), same_answer("70.000", "70000", "vi"), same_answer("36/2", "18")
    (True, True, False)
    """
    if answer is None:
        return False
    value = numeric_value(answer, locale)
    return value is not None and value == numeric_value(gold)


def lenient_answer(completion: str, locale: str = "en") -> str | None:
    r"""The answer that a completion states last, or None where none is stated.

    An announced answer goes before the final statement, what a retraction ("wait, ...") puts in its place goes before
    both, and whatever follows a new question that the model asks itself is not read. The text inside `<answer>`, after
    `####` or in `\boxed{}` is returned as it stands when it states no single number.

    >>> lenient_answer("12 + 7 = 19\n19 - 5 = 14\nThe answer is 14."), lenient_answer("12 + 7 = 19\n19 - 5 = 14")
    ('14', '14')
    >>> lenient_answer("<reasoning>\nIt must be 14.\n</reasoning>\n<answer>\n$15\n</answer>")
    '$15'
    >>> lenient_answer("She has 18 apples in 2 bags.") is None
    True
    """
    for turn in _NEW_QUESTION.split(_plain(completion.strip()[-_READ:])):
        answer = _announced(turn, locale) or _final_statement(turn, locale)
        if answer is not None:
            return answer
    return None


def _plain(text: str) -> str:
    """Text with ASCII digits, minus signs and spaces. Not NFKC, which would make 182 of 18²."""
    if text.isascii():
        return text
    digits = re.sub(r"[^\D0-9]+", lambda run: "".join(str(unicodedata.decimal(digit)) for digit in run.group()), text)
    return digits.translate(_PUNCTUATION)


def _without_formatting(text: str) -> str:
    for pattern, replacement in _FORMATTING:
        text = pattern.sub(replacement, text)
    return text


def _is_unit(text: str) -> bool:
    """Whether what follows a number leaves it the only one: words, abbreviations, km/h, cm², but no power or sum."""
    return not text.startswith(("\u00b2", "\u00b3", "- ")) and all(
        character.isalpha() or unicodedata.combining(character) or character in " .%-/'()\u00b0\u00b2\u00b3" + _CURRENCY
        for character in text
    )


def _decimal_value(number: str, locale: str) -> Fraction | None:
    notations = (_ENGLISH,) if _ENGLISH_THOUSANDS.fullmatch(number) else _NOTATIONS[locale]
    for notation in notations:
        if match := notation.fullmatch(number):
            whole = re.sub("[.,]", "", match["whole"]) or "0"
            return Fraction(f"{whole}.{match['decimals'] or 0}")
    return None


def _stated_number(statement: str, locale: str, *, announced: bool) -> str | None:
    """The one number that a statement gives: the result of its last equation, else its only number. An announced
    statement may go on after its number ("18 apples in 2 bags"), but not to another candidate ("18 or 20")."""
    text = _without_formatting(statement)
    without_introduction = _INTRODUCTION.sub("", text, count=1)
    if _DIGIT.search(without_introduction):
        text = without_introduction
    leading = _NUMBER.search(text)
    if leading and (aside := (_ASIDE if announced else _REASON).search(text, leading.end())):
        text = text[: aside.start()]
    parts = [part for part in text.split("=") if _DIGIT.search(part)]
    if not parts:
        return None
    result = parts[-1]
    numbers = list(itertools.islice(_NUMBER.finditer(result), 8))  # eight numbers without an equation are a list
    if not numbers:
        return None
    first = numbers[0]
    if _DENIED.search(result, 0, first.start()) or _CALCULATED.match(result, first.end()):
        return None
    sign = "-" if announced and result[: first.start()].strip() == "-" else ""
    if len(numbers) > 1:
        between = result[first.end() : numbers[1].start()]
        values = {numeric_value(number.group(), locale) for number in numbers}
        described = (announced or "=" in text) and any(character.isalpha() for character in between)
        if _CONNECTED.search(between) or not (described or len(values) == 1):
            return None
    if numeric_value(first.group(), locale) is None:
        return None
    return sign + first.group().strip()


def _announcements(turn: str) -> Iterator[tuple[str, str, int]]:
    """Announced statements from the last to the first: the kind of marker, what it announces, where that starts."""
    end = len(turn)
    for marker in reversed(list(_MARKER.finditer(turn))[-_ANNOUNCEMENTS:]):
        kind = marker.lastgroup or ""
        content = turn[marker.end() : min(end, marker.end() + _STATEMENT)]
        end = marker.start()
        if kind == "tag":
            content = content.partition("</answer>")[0].partition("\n\n")[0]
        elif kind == "boxed":
            content = _balanced(content)
        else:
            line, _, rest = content.partition("\n")
            if line.strip(" \t*_:$"):
                content = "" if kind == "rule" and _LABEL.match(line) else line  # "#### Step 2" is a heading
            else:  # announced for the next line, which then holds the number and nothing else
                line = _LABEL.sub("", rest.strip().partition("\n")[0])
                content = line if _NUMBER.fullmatch(_without_formatting(line).strip(" .")) else ""
        yield kind, content.strip(), marker.end()


def _balanced(text: str) -> str:
    """Text up to the brace that closes it."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return text[:position]
    return text


def _announced(turn: str, locale: str) -> str | None:
    for kind, content, start in _announcements(turn):
        answer = _stated_number(content, locale, announced=True)
        if answer is None and kind != "phrase" and _DIGIT.search(content):
            answer = content
        if answer is not None:
            retraction = _RETRACTION.search(turn, start)
            return (retraction and _final_statement(turn[retraction.end() :], locale)) or answer
    return None


def _final_statement(turn: str, locale: str) -> str | None:
    """The number in the last sentence that has one, or that it alone puts in bold."""
    for sentence in reversed(_SENTENCE_END.split(_LABEL.sub("", turn))):
        if _DIGIT.search(sentence):
            answer = _stated_number(sentence, locale, announced=False)
            bold = re.findall(r"\*\*([^*]{1,80})\*\*", sentence)
            return _stated_number(bold[0], locale, announced=False) if answer is None and len(bold) == 1 else answer
    return None
