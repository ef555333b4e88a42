"""Numbers as people write them: thousands signs, decimal signs, currencies and units, in English and in Vietnamese.

The gold answers, the rewards and the strict grader read with this module. Everything here is linear in the length of
its input.
"""

import re
from fractions import Fraction

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
