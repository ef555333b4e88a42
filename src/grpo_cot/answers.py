r"""The graders' reader: the answer that a completion states, wherever it stands, and its value.

It reads as a careful person reads: the last announced answer (`<answer>`, `####`, `\boxed{}`, "the answer is"), else
the number in the final statement. Unlike a last-number extractor it gives no credit for a list of guesses, for a
calculation left undone, or for a number that merely comes last. Rewards read with `grpo_cot.schema` instead, so that
training pays for nothing that only this reader forgives.

math-verify is the better tool for symbolic answers. It is not used, because it does the sum that a model left undone
(36/2, or the square root of 16), takes the last of a list of guesses, reads 70.000 as seventy in any locale and -$5 not
at all, needs a millisecond a completion, and sets a signal, which works on the main thread only.

Time is linear: of a very long completion only the end is read, and no pattern backtracks over it.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator
from fractions import Fraction

from grpo_cot.numbers import CURRENCY, LOCALES, LONGEST_NUMBER, decimal

_READ = 20_000  # characters read at the end of a completion: about 5,000 tokens
_ANNOUNCEMENTS = 100  # announced answers tried, from the last
_STATEMENT = 300  # characters within which an announced answer is looked for

_PLAIN_NUMBER = re.compile(r"-?\d{1,18}", re.ASCII)
_DIGITS = r"(?:\d++(?:[.,]\d++)*+|(?<!\.)\.\d++)"
_FRACTION = r"(?:(?:\s(?:(?:and|và)\s)?(?P<numerator>\d++))?\s?/\s?(?P<denominator>\d++))?"  # 1/2, or 3 1/2
_EXPONENT = r"(?P<exponent>e[-+]?\d{1,3}(?!\w))?"
_VALUE = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<currency>[{CURRENCY}]*)\s*(?P<inner_sign>[-+]?)(?P<number>{_DIGITS})"
    rf"{_EXPONENT}{_FRACTION}\s*(?P<unit>.*)",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_NO_GROUPS = re.sub(r"\?P<\w+>", "?:", _EXPONENT + _FRACTION)
_NUMBER_TEXT = rf"(?<!\w)(?<!\d[.,])[-+]?(?:[{CURRENCY}]++\s?)?[-+]?{_DIGITS}{_NO_GROUPS}"
# a number inside a statement; not the 2 of "x2", not an ordinal
_NUMBER = re.compile(rf"{_NUMBER_TEXT}(?!(?:st|nd|rd|th)\b)(?:\s?%)?", re.IGNORECASE)

_SUPERSCRIPTS = dict(
    zip("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-", strict=True)
)
_PUNCTUATION = dict(
    zip(
        "\uff0c\uff0e\uff0d\uff0b\uff1d\uff03\uff05\uff04\uff0f\uff1a\uff08\uff09"  # full width
        "\u2212\u2010\u2011\u2013\ufe63\u2248\u2192\u21d2\u00a0\u2009\u202f"  # minus, signs before a result, spaces
        "\u0130",  # the one letter that is two when lowered
        ",.-+=#%$/:()-----===   I",
        strict=True,
    )
)
_PUNCTUATION |= {  # \u00bd is 1/2, so that 3\u00bd is 3 1/2
    character: f" {unicodedata.normalize('NFKC', character).replace(chr(0x2044), '/')}"
    for character in ("\u00bc", "\u00bd", "\u00be", *map(chr, range(0x2150, 0x215F)))
}
_UNUSUAL = re.compile(rf"[^\D0-9]|[{''.join(_PUNCTUATION)}]")
# Each of the patterns after it needs one of these characters.
_FORMATTED = re.compile(r"[\\*`<{^$_\u2070\u00b9\u00b2\u00b3\u2074-\u2079]")
_FORMATTING: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"<<[^<>\n]*>>"), ""),  # GSM8K's calculator annotations
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}"), r" \1 "),
    (
        re.compile(r"(?:(?<=[^\W\d]{2})|(?<=\sm))\s?\^\s?(?:([23])(?!\d)|\{([23])\})"),
        lambda power: "\u00b2\u00b3"[int(power[1] or power[2]) - 2],
    ),
    (re.compile(r"\^\s?(?:\\circ|\{\\circ\})"), "\u00b0"),
    (re.compile(r"(?<![^\W_])_+|_+(?![^\W_])"), ""),
    (re.compile(r"(?<=\d)(?=\\[dt]?frac)"), " "),
    (re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))"), r"\1\2/\3\4"),
    (re.compile(r"\\(?:times|cdot|div)(?![a-z])"), "*"),
    (re.compile(r"\\(?:approx|implies|Rightarrow|to)\b"), "="),
    (re.compile(r"\\[,!;:()\[\]]|\*\*|\$\$|`"), ""),
    (re.compile(r"\\([$%])|\{(,)\}"), r"\1\2"),
    (re.compile(r"(?<=\d)\s?[x*\u00d7]\s?10\s?\^\s?(?:(-?\d{1,3})(?!\d)|\{(-?\d{1,3})\})", re.IGNORECASE), r"e\1\2"),
    (
        re.compile(rf"(?<=\d)\s?[x*\u00d7]\s?10([{''.join(_SUPERSCRIPTS)}]{{1,3}})", re.IGNORECASE),
        lambda power: "e" + "".join(map(_SUPERSCRIPTS.__getitem__, power[1])),
    ),
)

# The starts of a marker, in lower case. A search backwards from the end is faster than a match at every position.
_MARKER_STARTS = ("<answer>", "####", "\\boxed", "answer")
_VIETNAMESE_MARKER_STARTS = (*_MARKER_STARTS, "đáp", "kết", "câu")
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
_NEW_QUESTION = re.compile(  # a base model that is done goes on to ask itself the next question
    r"\n[#*\s]{0,8}(?:question|problem|q|user|human|câu hỏi|bài toán)\**[ ]?\d{0,4}\s?:", re.IGNORECASE
)
_RETRACTION = re.compile(r"\b(?:wait|actually|correction|mistake|oops|sorry|nhầm|khoan)\b", re.IGNORECASE)
_CONNECTORS = "or|and|x|times|plus|minus|maybe|hoặc|hay|và"
# words after an announced number that do not belong to it
_ASIDE = re.compile(rf"[;(]|\.\s|,\s+(?!(?:{_CONNECTORS})\b)(?=[^\W\d])|\b(?:because|since|which)\b", re.IGNORECASE)
_REASON = {
    "en": re.compile(r"\bbecause\b", re.IGNORECASE),
    "vi": re.compile(r"\b(?:because|vì(?!\s(?:vậy|thế))|bởi|(?<!lý\s)do(?!\s(?:đó|vậy)))\b", re.IGNORECASE),
}
_CONCLUSION = re.compile(  # between a premise and its conclusion
    r",\s(?:and\s)?(?:so(?!\s(?:that|với)\b)|therefore|thus|hence|(?:vì\s)?vậy|vì\sthế|do\sđó)\b|\bnên\b", re.IGNORECASE
)
_RESULT = re.compile(  # "the number of apples after 3 days is 14"
    r"(?<!which\s)(?<!each\s)(?<!that\s)\b(?:is|are|equals|là|để\sđược|tương\sđương\svới)\s"
    rf"(?P<result>{_NUMBER_TEXT}(?:(?!\b(?:{_CONNECTORS})\b)[^\d=])*+)$",
    re.IGNORECASE,
)
_SOLVED = re.compile(  # "20 = A", where the number stands before the last sign of equality
    rf"(?:^|[=;]|,\s|\b(?:or|so|hoặc|hay|vậy)\b)\s?(?P<result>{_NUMBER_TEXT})\s?=\s?[^\W\d]\W*$", re.IGNORECASE
)
_SEVERAL = re.compile(  # "x = 5, y = 18"
    rf"\b([^\W\d])\s?=\s?{_NUMBER_TEXT}\s?(?:,|;|\b(?:and|or|và|hoặc)\b)\s?(?:and\s|và\s)?(?!\1)[^\W\d]\s?=",
    re.IGNORECASE,
)
_TERM = rf"{_NUMBER_TEXT}(?:\s?(?:[-+*\u00d7\u00f7x]|nhân|chia|cộng|trừ)\s?|\s/\s)"
_EXPLANATION = re.compile(  # "16 hours (400/25)", "110 dollars at 20*5.5"
    rf"(?<=[\w%])\s\((?=[^()\d]*+\d[\d.,]*+[^()\d]++\d)[^()]*\)\W*$"
    rf"|\s(?:{_TERM}){{1,8}}{_NUMBER_TEXT}\W*$|(?<!and\s)\bsince\b",
    re.IGNORECASE,
)
_CIRCUMSTANCE = re.compile(  # "5 giờ để đọc 120 trang"
    r"\b(?:(?:sau|trong)\skhi|để(?!\s(?:được|có)\b)|bằng\s(?:tổng|hiệu|tích|thương|cách))\b", re.IGNORECASE
)
# a word that makes the number after it a name: day 3, tháng 4
_NAME = re.compile(r"\b(?:day|week|month|year|step|(?<!mỗi\s)(?:thứ|ngày|tuần|tháng|năm|lớp|bước))\s$", re.IGNORECASE)
_CONNECTED = re.compile(  # between two numbers that together are one answer, or that are several
    rf"[+*/^:=<>\u00d7\u00f7]|(?<![^\W\d])-|\b(?:{_CONNECTORS})\b|^\s*(?:to|of|đến)\b", re.IGNORECASE
)
_DENIED = re.compile(r"(?:(?:\bnot|n't|\bkhông phải)\s{1,9}|\\sqrt\{?|\u221a)$", re.IGNORECASE)
_NEGATIVE = re.compile(r"(?:\bnegative|\bâm|^\s*minus)\s{1,9}$", re.IGNORECASE)
# A number so followed is part of a term.
_CALCULATED = re.compile(r"\s*(?:[+^\u00b2\u00b3\u00d7\u00f7\u221a\u03c0]|\\(?:sqrt|pi)|\*\s*\w)")
_INTRODUCTION = re.compile(  # "So after 3 days, " before the main clause
    r"^\W{0,9}(?:(?:so|thus|therefore|hence|then|finally|(?:vì\s)?vậy|vì\sthế|do\sđó|như\svậy)\b,?\s*)?"
    r"(?:after|in|for|with|if|when|on|at|by|over|since|given|from|during|to|sau|trong|với|nếu|khi|để)\b"
    r"[^,=]*,\s+(?=[^\W\d])",
    re.IGNORECASE,
)
_DIGIT = re.compile("[0-9]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


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
    if locale not in LOCALES:
        raise ValueError(f"unknown locale {locale!r}, expected one of {', '.join(LOCALES)}")
    text = text.strip()
    if len(text) > LONGEST_NUMBER:
        return None
    if _PLAIN_NUMBER.fullmatch(text):
        return Fraction(int(text))
    match = _VALUE.fullmatch(_without_formatting(_plain(text)).strip().removesuffix("."))
    if not match or (match["sign"] and match["inner_sign"]) or not _is_unit(match["unit"]):
        return None
    value = decimal(match["number"], locale, money=bool(match["currency"]) or match["unit"].startswith(tuple(CURRENCY)))
    if value is None:
        return None
    if match["exponent"]:
        value *= Fraction(10) ** int(match["exponent"][1:])
    if match["denominator"]:
        value = _with_fraction(value, match["numerator"], int(match["denominator"]))
    return -value if value is not None and "-" in match["sign"] + match["inner_sign"] else value


def _with_fraction(value: Fraction, numerator: str | None, denominator: int) -> Fraction | None:
    """value / denominator, or value + numerator / denominator; None where that is no way to write an answer."""
    if not denominator:
        return None
    fraction = value / denominator if numerator is None else Fraction(int(numerator), denominator)
    if fraction.denominator == 1 or (numerator and (value.denominator != 1 or fraction > 1)):
        return None
    return fraction if numerator is None else value + fraction


@functools.lru_cache(maxsize=4096)
def _gold_value(gold: str) -> Fraction | None:
    return numeric_value(gold)


def same_answer(answer: str | None, gold: str, locale: str = "en") -> bool:
    """Whether an answer has the gold's value. The gold is in plain or English notation, whatever the answer's locale.

    >>> same_answer("$1,234.0", "1234"), same_answer("70.000", "70000", "vi"), same_answer("36/2", "18")
    (True, True, False)
    """
    if answer is None:
        return False
    value = numeric_value(answer, locale)
    return value is not None and value == _gold_value(gold)


def lenient_answer(completion: str, locale: str = "en") -> str | None:
    r"""The answer that a completion states last, or None where none is stated.

    An announced answer goes before the final statement. The text after a retraction ("wait, ...") goes before both. The
    text after a new question that the model asks itself is not read. The text inside `<answer>`, after `####` or in
    `\boxed{}` is returned as it stands when it states no single number.

    >>> lenient_answer("12 + 7 = 19\n19 - 5 = 14\nThe answer is 14."), lenient_answer("12 + 7 = 19\n19 - 5 = 14")
    ('14', '14')
    >>> lenient_answer("<reasoning>\nIt must be 14.\n</reasoning>\n<answer>\n$15\n</answer>")
    '$15'
    >>> lenient_answer("She has 18 apples in 2 bags.") is None
    True
    """
    for turn in _NEW_QUESTION.split("\n" + _plain(completion.strip()[-_READ:])):
        answer = _announced(turn, locale) or _final_statement(turn, locale)
        if answer is not None:
            return answer
    return None


def _plain(text: str) -> str:
    """Text with ASCII digits, minus signs and spaces. Not NFKC, which would make 182 of 18²."""
    if text.isascii():
        return text
    return _UNUSUAL.sub(lambda match: _PUNCTUATION.get(match[0]) or str(unicodedata.decimal(match[0])), text)


def _without_formatting(text: str) -> str:
    if _FORMATTED.search(text):
        for pattern, replacement in _FORMATTING:
            text = pattern.sub(replacement, text)
    return text


def _is_unit(text: str) -> bool:
    """Whether the text after a number leaves it the only one: words, abbreviations, km/h, cm², but no power or sum."""
    return not text.startswith(("\u00b2", "\u00b3", "- ")) and all(
        character.isalpha() or unicodedata.combining(character) or character in " .%-/'()\u00b0\u00b2\u00b3" + CURRENCY
        for character in text
    )


def _stated_number(statement: str, locale: str, *, announced: bool) -> str | None:
    """The one number that a statement gives: the result of its last equation, else its only number. An announced
    statement may go on after its number ("18 apples in 2 bags"), but not to another candidate ("18 or 20")."""
    if _PLAIN_NUMBER.fullmatch(statement):
        return statement
    text = _without_formatting(statement)
    if _SEVERAL.search(text):
        return None
    text = _main_clause(text, locale, announced=announced)
    parts = [part for part in text.split("=") if _DIGIT.search(part)]
    if not parts:
        return None
    solved = _SOLVED.search(text)
    result = solved["result"] if solved else parts[-1]
    numbers = list(itertools.islice(_NUMBER.finditer(result), 8))  # eight numbers without an equation are a list
    if len(numbers) > 1 and not announced:
        numbers = [number for number in numbers if not _before(_NAME, number)] or numbers
    if not numbers:
        return None
    first = numbers[0]
    if _before(_DENIED, first) or _CALCULATED.match(result, first.end()):
        return None
    negative = (announced and result[: first.start()].strip() == "-") or _before(_NEGATIVE, first)
    if len(numbers) > 1:
        between = result[first.end() : numbers[1].start()]
        values = {numeric_value(number.group(), locale) for number in numbers}
        described = (announced or "=" in text) and any(character.isalpha() for character in between)
        if _CONNECTED.search(between) or not (described or len(values) == 1):
            return None
    if numeric_value(first.group(), locale) is None:
        return None
    return ("-" if negative else "") + first.group().strip()


def _before(words: re.Pattern[str], number: re.Match[str]) -> bool:
    """Whether such words stand right before a number."""
    return words.search(number.string, max(0, number.start() - 30), number.start()) is not None


def _main_clause(text: str, locale: str, *, announced: bool) -> str:
    """A statement without the introduction and the explanation of its number."""
    for _ in range(3):
        introduction = _INTRODUCTION.match(text)
        if not introduction or not _DIGIT.search(text, introduction.end()):
            break
        text = text[introduction.end() :]
    if announced:
        return _without(_ASIDE, text)
    *_, conclusion = _CONCLUSION.split(text)
    if _DIGIT.search(conclusion) and ("=" in conclusion or "=" not in text):
        text = conclusion
    text = _without(_REASON[locale], text)
    if "=" in text:
        return text
    text = _without(_EXPLANATION, text)
    result = _RESULT.search(text)
    return result["result"] if result else _without(_CIRCUMSTANCE, text)


def _without(aside: re.Pattern[str], text: str) -> str:
    """A statement up to the first aside that follows a number."""
    number = _NUMBER.search(text)
    match = aside.search(text, number.end()) if number else None
    return text[: match.start()] if match else text


def _markers(turn: str) -> Iterator[re.Match[str]]:
    """The markers that announce an answer, from the last to the first."""
    lowered = turn.lower()
    last = {start: lowered.rfind(start) for start in (_MARKER_STARTS if turn.isascii() else _VIETNAMESE_MARKER_STARTS)}
    while True:
        start = max(last, key=last.__getitem__)
        if last[start] < 0:
            return
        if marker := _MARKER.match(turn, last[start]):
            yield marker
        last[start] = lowered.rfind(start, 0, last[start])


def _announcements(turn: str) -> Iterator[tuple[str, str, int]]:
    """Announced statements from the last to the first: the kind of marker, the statement, where that starts."""
    end = len(turn)
    for marker in itertools.islice(_markers(turn), _ANNOUNCEMENTS):
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
                heading = kind == "rule" and not line.startswith("- ") and _LABEL.match(line)  # "#### Step 2"
                content = "" if heading else line
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
    end = len(turn)
    while end > 0:
        start = turn.rfind("\n", 0, end) + 1
        line, end = turn[start:end], start - 1
        if not _DIGIT.search(line):
            continue
        for sentence in reversed(_SENTENCE_END.split(_LABEL.sub("", line))):
            if _DIGIT.search(sentence):
                answer = _stated_number(sentence, locale, announced=False)
                bold = re.findall(r"\*\*([^*]{1,80})\*\*", sentence)
                return _stated_number(bold[0], locale, announced=False) if answer is None and len(bold) == 1 else answer
    return None
