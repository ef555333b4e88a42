r"""One number as people write it, and its value: the notation of English and of Vietnamese.

Golds, rewards and readers share this module. A unit is free. A word that changes the value is no unit: it multiplies
(`70 nghìn`, `18 thousand`, `18k`, `3 dozen`), it adds a half (`2 giờ rưỡi`, `18 and a half`), or the text states no
number (`18 minus one`, `18 or nineteen`, `18x`). Everything here is linear in the length of its input.
"""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

LOCALES = ("en", "vi")
LONGEST_NUMBER = 400  # characters; Python refuses to convert very long digit strings, and no answer is one
CURRENCY = "$\u20ac\u00a3\u00a5\u20ab\u20b9\u20a9\u20bd\u20b1\u20ba\u20a6\u0e3f\u00a2"

# The thousands sign, then the decimal sign. In Vietnamese text the English notation applies where the other cannot:
# "2.5" has only one reading, and so has "1,234,567".
_ENGLISH = re.compile(r"(?P<whole>\d{1,3}(?:,\d{3})+|\d*)(?:\.(?P<decimals>\d+))?", re.ASCII)
_VIETNAMESE = re.compile(r"(?P<whole>[1-9]\d{0,2}(?:\.\d{3})+|\d+)(?:,(?P<decimals>\d+))?", re.ASCII)
# 88,000 and 2,750 in Vietnamese text are thousands in English style: nobody writes 2,75 with a third decimal of zero.
_ENGLISH_THOUSANDS = re.compile(r"[1-9]\d{0,2},\d\d0", re.ASCII)
_ENGLISH_MONEY = re.compile(r"[1-9]\d{0,2},\d{3}", re.ASCII)  # $1,255: no price has three decimals

_SCALES = {
    "hundred": 100, "hundreds": 100, "thousand": 1_000, "thousands": 1_000, "million": 10**6, "millions": 10**6,
    "billion": 10**9, "billions": 10**9, "bn": 10**9, "trillion": 10**12, "dozen": 12, "dozens": 12, "k": 1_000,
    "trăm": 100, "nghìn": 1_000, "ngàn": 1_000, "vạn": 10_000, "triệu": 10**6, "tr": 10**6, "tỷ": 10**9, "tỉ": 10**9,
    "chục": 10, "tá": 12, "lakh": 10**5, "crore": 10**7, "nghin": 1_000, "ngan": 1_000, "trieu": 10**6, "ty": 10**9,
}  # fmt: skip
# "18k" and "$18M" are abbreviations only where nothing parts them from the digits; 18 m are metres.
SCALE = (
    r"(?:\s{0,2}(?:hundreds?|thousands?|millions?|billions?|bn|trillion|dozens?|trăm|nghìn|ngàn|vạn|triệu|tr|tỷ|tỉ|chục|tá|lakh|crore|nghin|ngan|trieu|ty"
    r")(?!\w)|(?<=\d)[kK](?!\w)|(?<=\d)(?-i:[MB])(?!\w))"
)
# 1 000 000; 1,000.5; .5
DIGITS = r"(?:\d{1,3}(?>(?:\s\d{3})+)(?:[.,]\d{1,2})?(?!\d|[.,]\d)|\d++(?>(?:[.,]\d++)*)|(?<![.\d])\.\d++)"
FRACTION = r"(?:(?:\s(?:(?:and|và)\s)?(?P<numerator>\d++))?\s?/\s?(?P<denominator>\d++)(?![\d/]))?"  # 1/2, or 3 1/2
EXPONENT = r"(?P<exponent>e[-+]?\d{1,3}(?!\w))?"
CURRENCY_SIGN = rf"(?:(?-i:US|AUD?|CAD?|HK|NZ|NT|SG?|R|MX)?[{CURRENCY}]++)"
PLAIN_NUMBER = re.compile(r"-?\d{1,18}", re.ASCII)
_VALUE = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<currency>{CURRENCY_SIGN}?)\s*(?P<inner_sign>[-+]?)(?P<number>{DIGITS})"
    rf"{EXPONENT}{FRACTION}(?P<scaled>{SCALE}*)(?P<more>(?:\s{DIGITS}{SCALE}+)*)\s*(?P<unit>.*)",
    re.IGNORECASE | re.DOTALL,
)
_SCALED = re.compile(rf"({DIGITS})({SCALE}+)", re.IGNORECASE)
_SCALE_WORD = re.compile(r"[^\W\d]+")
# -5 with a half is -5.5. "rưỡi" follows its unit, or a scale, of which it is the half.
_HALF = re.compile(
    r"(?:(?:and|with|và|\w+ and)\s(?:a|one|một)\s)(?:half|nửa)\b|(?:[^\W\d]+\s)??rư[ỡở]i\b", re.IGNORECASE
)
NUMBER_WORD = (
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|half|một|hai|ba|bốn|năm|sáu|bảy"
    r"|tám|chín|mười|mươi|trăm)"
)
NO_UNIT = re.compile(
    r"^(?:and|plus|và|cộng|with|to|đến|by)\b"
    r"|\b(?:or|minus|plus|hoặc|trừ|cộng|nhân|chia|hay|divided|multiplied|squared|cubed|maybe|perhaps|factorial"
    r"|doubled|halved|tripled|twice|mod|choose|negative|wrong|incorrect|gross|remainder|dư|bình\sphương)\b"
    rf"|\b(?:and|times|over|by|to|và|đến)\s(?:a\s|another\s|{NUMBER_WORD}\b)"
    rf"|^(?!năm\b(?!\s{NUMBER_WORD})){NUMBER_WORD}(?=$|[\s-]{NUMBER_WORD}\b)"
    r"|^(?:less|add|subtract|not)\b|\b(?:is|are|was)\s(?:not|false|wrong)\b"
    r"|\b(?:halves|thirds|fourths|fifths|sixths|sevenths|eighths|ninths|tenths|(?:hundred|thousand)ths)\b"
    rf"|^phần\s(?!trăm\b)(?:tư|{NUMBER_WORD})\b"
    r"|\b(?:below|under|less than)\s(?:zero|freezing)\b|\bdưới\skhông\b"
    r"|^(?:half|nửa|rưỡi)\b|\b(?:thousand|nghìn|ngàn)\b"
    r"|^(?!a\s\w)(?-i:[abefijknoqrxyzBDEGHIOPQRSUXYZ])(?!\w)(?!\.)|[\u0370-\u03bb\u03bd-\u03ff]",
    re.IGNORECASE,
)
_MONEY_UNIT = re.compile(rf"(?:[{CURRENCY}]|đ\b|đồng\b|vn[dđ]\b|usd\b|đô\b|dollar)", re.IGNORECASE)

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
    (re.compile(r"<<[^<>\n]*>>"), " "),  # GSM8K's calculator annotations
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{([^{}]*)\}"), r" \1 "),
    (
        re.compile(r"(?:(?<=[^\W\d]{2})|(?<=\sm))\s?\^\s?(?:([23])(?!\d)|\{([23])\})"),
        lambda power: "\u00b2\u00b3"[int(power[1] or power[2]) - 2],
    ),
    (re.compile(r"\^\s?(?:\\circ|\{\\circ\})"), "\u00b0"),
    (re.compile(r"(?<![^\W_])_+|_+(?![^\W_])"), ""),
    (re.compile(r"(?<=\d)(?=\\[dt]?frac)"), " "),
    (re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))"), r"\1\2/\3\4 "),
    (re.compile(r"\\boxed\s*\{([^{}]*)\}"), r" \1 "),  # around a fraction
    (re.compile(r"\\(?:times|cdot|div)(?![a-z])"), "*"),
    (re.compile(r"\\(?:approx|implies|Rightarrow|to)\b"), "="),
    (re.compile(r"\\[,!;:()\[\]]|\*\*|\$\$|`"), " "),
    (re.compile(r"\\([$%])|\{(,)\}"), r"\1\2"),
    (re.compile(r"(?<=\d)\s?[x*\u00d7]\s?10\s?\^\s?(?:(-?\d{1,3})(?!\d)|\{(-?\d{1,3})\})", re.IGNORECASE), r"e\1\2"),
    (
        re.compile(rf"(?<=\d)\s?[x*\u00d7]\s?10([{''.join(_SUPERSCRIPTS)}]{{1,3}})", re.IGNORECASE),
        lambda power: "e" + "".join(map(_SUPERSCRIPTS.__getitem__, power[1])),
    ),
)


def decimal(digits: str, locale: str = "en", *, money: bool = False) -> Fraction | None:
    """The value of ASCII digits with their thousands and decimal signs, else None; `money` when they have a currency.

    English: commas group thousands, a point starts decimals. Vietnamese (`vi`) the other way round, except where only
    the English reading fits. Spaces group thousands in both. No other number's size decides between them.

    Raises:
        ValueError: the locale is not known.

    >>> [str(decimal(digits)) for digits in ("70.000", "2,5", "88,000", "2.5", "1 000 000")]
    ['70', 'None', '88000', '5/2', '1000000']
    >>> [str(decimal(digits, "vi")) for digits in ("70.000", "2,5", "88,000", "2.5")]
    ['70000', '5/2', '88000', '5/2']
    """
    if locale not in LOCALES:
        raise ValueError(f"unknown locale {locale!r}, expected one of {', '.join(LOCALES)}")
    if len(digits) > LONGEST_NUMBER:
        return None
    digits = re.sub(r"\s", "", digits)
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


def numeric_value(text: str, locale: str = "en") -> Fraction | None:
    """The value of a text that states one number, with or without sign, currency, per cent sign or unit; else None.

    `a/b` is a fraction, unless it comes out whole: then it is a division left undone, and no answer. A per cent sign is
    a unit. Words for thousands, millions and dozens multiply, in both languages.

    Raises:
        ValueError: the locale is not known.

    >>> [str(numeric_value(text)) for text in ("-$1,234.50", "18 cups.", "1/2", "36/2", "\u2212\uff11\uff18", "3, 4")]
    ['-2469/2', '18', '1/2', 'None', '-18', 'None']
    >>> [str(numeric_value(text, "vi")) for text in ("70.000 đô la", "2,5", "1,5 triệu", "2 triệu 500 nghìn đồng")]
    ['70000', '5/2', '1500000', '2500000']
    >>> [str(numeric_value(text)) for text in ("18k", "3 dozen eggs", "2 and a half hours", "18 minus one", "18x")]
    ['18000', '36', '5/2', 'None', 'None']
    """
    if locale not in LOCALES:
        raise ValueError(f"unknown locale {locale!r}, expected one of {', '.join(LOCALES)}")
    text = text.strip()
    if len(text) > LONGEST_NUMBER:
        return None
    if PLAIN_NUMBER.fullmatch(text):
        return Fraction(int(text))
    match = _VALUE.fullmatch(without_formatting(plain(text)).strip().removesuffix("."))
    if not match or (match["sign"] and match["inner_sign"]):
        return None
    value = _magnitude(match, locale)
    return -value if value is not None and "-" in match["sign"] + match["inner_sign"] else value


def _magnitude(match: re.Match[str], locale: str) -> Fraction | None:
    """The value of a matched number without its sign, with its scale and its half."""
    unit = match["unit"].strip()
    value = decimal(match["number"], locale, money=bool(match["currency"] or _MONEY_UNIT.match(unit)))
    if value is None:
        return None
    if match["exponent"]:
        value *= Fraction(10) ** int(match["exponent"][1:])
    if match["denominator"]:
        value = _with_fraction(value, match["numerator"], int(match["denominator"]))
    scale = _scale(match["scaled"])
    if match["currency"] and not match["scaled"] and re.match(r"[mb]n?\b", unit):  # $18m
        scale, unit = 10**6 if unit[0] == "m" else 10**9, ""
    if value is None:
        return None
    value *= scale
    for digits, words in _SCALED.findall(match["more"]):  # 2 triệu 500 nghìn
        part, smaller = decimal(digits, locale), _scale(words)
        if part is None or smaller >= scale or part * smaller >= scale:
            return None
        value, scale = value + part * smaller, smaller
    if half := _HALF.match(unit):
        value, unit = value + Fraction(scale, 2), unit[half.end() :].strip()
    return value if _is_unit(unit) else None


def _scale(words: str) -> int:
    scale = 1
    for word in _SCALE_WORD.findall(words):
        scale *= {"M": 10**6, "B": 10**9}.get(word) or _SCALES[word.lower()]
    return scale


def _with_fraction(value: Fraction, numerator: str | None, denominator: int) -> Fraction | None:
    """value / denominator, or value + numerator / denominator; None where that is no way to write an answer."""
    if not denominator:
        return None
    fraction = value / denominator if numerator is None else Fraction(int(numerator), denominator)
    if fraction.denominator == 1 or (numerator and (value.denominator != 1 or fraction > 1)):
        return None
    return fraction if numerator is None else value + fraction


def _is_unit(text: str) -> bool:
    """Whether the text after a number leaves its value alone: words, abbreviations, km/h, cm², but no power, operator,
    conjunction, further number or variable."""
    return (
        not text.startswith(("\u00b2", "\u00b3", "- "))
        and not NO_UNIT.search(text)
        and all(
            character.isalpha() or unicodedata.combining(character)
            or character in " .%-/'()\u00b0\u00b2\u00b3" + CURRENCY for character in text
        )
    )  # fmt: skip


def plain(text: str) -> str:
    """Text in composed form (NFC) with ASCII digits, minus signs and spaces. Not NFKC, which would make 182 of 18²."""
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", text)
    return _UNUSUAL.sub(lambda match: _PUNCTUATION.get(match[0]) or str(unicodedata.decimal(match[0])), composed)


def without_formatting(text: str) -> str:
    """Text without the marks of Markdown, LaTeX and GSM8K's calculator around its numbers."""
    if _FORMATTED.search(text):
        for pattern, replacement in _FORMATTING:
            text = pattern.sub(replacement, text)
    return text
