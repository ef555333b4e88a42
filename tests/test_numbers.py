"""One number and its value, in the notation of English and of Vietnamese; words that change a value are no units."""

import doctest
import re
import unicodedata
from fractions import Fraction
from types import ModuleType

import pytest

from grpo_cot import answers, numbers, schema
from grpo_cot.grading import lenient
from grpo_cot.numbers import LONGEST_NUMBER, decimal, numeric_value, without_formatting


def test_doctests() -> None:
    assert doctest.testmod(numbers).failed == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("018", 18),
        ("-5", -5),
        ("\u22125", -5),
        ("-$5", -5),
        ("$-5", -5),
        ("+5", 5),
        ("1,234,567", 1234567),
        ("18.50", Fraction(37, 2)),
        (".5", Fraction(1, 2)),
        ("18 dollars.", 18),
        ("5%", 5),
        ("18 year-olds", 18),
    ],
)
def test_numeric_value(text: str, value: Fraction) -> None:
    assert numeric_value(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("70.000", 70000),
        ("-70.000 đồng.", -70000),
        ("1.234.567", 1234567),
        ("1.234,5", Fraction(2469, 2)),
        ("2,5", Fraction(5, 2)),
        ("19,50", Fraction(39, 2)),
        ("88,000", 88000),
        ("1,234,567", 1234567),
        ("2.5", Fraction(5, 2)),
        ("0.125", Fraction(1, 8)),
        ("1,125", Fraction(9, 8)),
        ("$1,125", 1125),
        ("1,125 ₫", 1125),
        ("80", 80),
    ],
)
def test_vietnamese_numeric_value(text: str, value: Fraction) -> None:
    assert numeric_value(text, "vi") == value


@pytest.mark.parametrize("text", ["70.00.000", "2,5,5", "1.234.5", "2 5", "1,23.4"])
def test_no_vietnamese_numeric_value(text: str) -> None:
    assert numeric_value(text, "vi") is None


def test_unknown_locale() -> None:
    with pytest.raises(ValueError, match="unknown locale 'fr', expected one of en, vi"):
        numeric_value("1", "fr")


@pytest.mark.parametrize(
    "text", ["", "abc", "\u00b2", "18\u00b2", "12,34", "1234,567", "3 or 4", "36/2", "--5", "x = 5", "5" * 5000]
)
def test_no_numeric_value(text: str) -> None:
    assert numeric_value(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("70.000", 70000),
        ("1.234.567", 1234567),
        ("2,5", Fraction(5, 2)),
        ("1.234,5", Fraction(2469, 2)),
        ("88,000", 88000),
        ("1,234,567", 1234567),
        ("1,125", Fraction(9, 8)),
        ("2.5", Fraction(5, 2)),
        ("0.125", Fraction(1, 8)),
        ("-5 đô la", -5),
        ("$1,125", 1125),
        ("3 1/2", Fraction(7, 2)),
    ],
)
def test_vietnamese_numbers(text: str, value: Fraction) -> None:
    assert numeric_value(text, "vi") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("70.000", 70),
        ("1,234.50", Fraction(2469, 2)),
        ("**\\$18**", 18),
        ("-$ 18", -18),
        ("18 km/h", 18),
        ("18 cm\u00b2", 18),
        ("\uff0d\uff11\uff0c\uff12\uff13\uff14", -1234),
        ("\u0661\u0668", 18),
        ("3/4", Fraction(3, 4)),
        ("3 1/2 cups", Fraction(7, 2)),
        ("-3\\frac{1}{2}", Fraction(-7, 2)),
        ("3 and 1/2", Fraction(7, 2)),
        ("\u00bd", Fraction(1, 2)),
        ("3\u00be", Fraction(15, 4)),
        ("1.5e3", 1500),
        ("1.5 x 10^3", 1500),
        ("1.5 \\times 10^{-3}", Fraction(3, 2000)),
        ("2\u00d710\u2074", 20000),
    ],
)
def test_english_numbers(text: str, value: Fraction) -> None:
    assert numeric_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2,5",
        "1/0",
        "18\u00b2",
        "\u00b2",
        "3 4",
        "3 5/2",
        "3.5 1/2",
        "\\sqrt{16}",
        "x = 5",
        "--5",
        "5:30",
        "7" * 5000,
    ],
)
def test_not_one_number(text: str) -> None:
    assert numeric_value(text) is None


SCALES = {
    "hundred": 100, "hundreds": 100, "thousand": 1_000, "thousands": 1_000, "million": 10**6, "millions": 10**6,
    "billion": 10**9, "billions": 10**9, "bn": 10**9, "trillion": 10**12, "dozen": 12, "dozens": 12, "trăm": 100,
    "nghìn": 1_000, "ngàn": 1_000, "vạn": 10_000, "triệu": 10**6, "tr": 10**6, "tỷ": 10**9, "tỉ": 10**9, "chục": 10,
    "tá": 12, "lakh": 10**5, "crore": 10**7, "nghin": 1_000, "ngan": 1_000, "trieu": 10**6, "ty": 10**9,
}  # fmt: skip


@pytest.mark.parametrize("word", SCALES)
def test_a_scale_multiplies_whatever_its_case_and_its_unit(word: str) -> None:
    for text in (f"2 {word}", f"2 {word.upper()}", f"2 {word} eggs", f"$2{word}"):
        assert numeric_value(text) == 2 * SCALES[word], text
    assert numeric_value(f"3 {word} 2 hundred") == (3 * SCALES[word] + 200 if SCALES[word] > 200 else None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2k", 2000), ("2K", 2000), ("2M", 2 * 10**6), ("2B", 2 * 10**9), ("$2m", 2 * 10**6), ("$2b", 2 * 10**9),
        ("$2bn", 2 * 10**9), ("$2 miles", 2), ("2 m", 2), ("2 b", None),
        ("2 million 3 thousand 4 hundred", 2003400), ("2 thousand 5", None), ("5 2 hundred", None),
        ("1 hundred 5 hundred", None), ("1 hundred 2 thousand", None), ("2 thousand 10 hundred", None),
        ("2 thousand 9 hundred", 2900), ("2 and a half thousand", None), ("2 thousand and a half", 2500),
        ("2 AND A HALF", Fraction(5, 2)), ("2 hours and one half", Fraction(5, 2)), ("-2 and a half", Fraction(-5, 2)),
    ],
)  # fmt: skip
def test_abbreviated_joined_and_halved_scales(text: str, value: Fraction | None) -> None:
    assert numeric_value(text) == value


def test_the_parts_of_a_scaled_number_are_read_in_their_locale() -> None:
    assert numeric_value("2 triệu 1,5 nghìn", "vi") == 2001500
    assert numeric_value("2 triệu 1.500 đồng", "vi") is None
    assert numeric_value("2 RƯỠI", "vi") == Fraction(5, 2)
    assert numeric_value("2 Triệu 500 Nghìn", "vi") == 2500000
    assert numeric_value("2 nghìn 0,5 nghìn", "vi") is None
    assert numeric_value("2 million 1,23 thousand") is None


WORDS = (
    *"zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split(),
    *"seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand".split(),
    *"million half một hai ba bốn sáu bảy tám chín mười".split(),
)


@pytest.mark.parametrize("word", WORDS)
def test_a_number_word_is_no_unit(word: str) -> None:
    for text in (f"18 and {word}", f"18 apples and {word}", f"18 times {word.upper()}", f"18 thousand {word} one"):
        assert numeric_value(text) in (None, Fraction(37, 2) if word == "half" and "18 and" in text else None), text


@pytest.mark.parametrize(
    "unit",
    [
        *"and|plus|và|cộng|with|to|đến|by|or so|minus me|hoặc ít|trừ đi|nhân lên|chia ra".split("|"),
        *"hay ít|divided up|multiplied up|squared|cubed|maybe|perhaps|factorial|halves|thirds|fourths".split("|"),
        *"fifths|sixths|sevenths|eighths|ninths|tenths|hundredths|thousandths|half|nửa|phần tư|phần ba".split("|"),
        *"degrees below zero|degrees below freezing|under zero|less than zero|độ dưới không".split("|"),
        *"bags of a thousand|quả nghìn|quả ngàn".split("|"),
    ],
)  # fmt: skip
def test_operators_conjunctions_and_fractions_are_no_units(unit: str) -> None:
    assert numeric_value(f"18 {unit}", "vi") is None
    assert numeric_value(f"18 {unit.upper()}", "vi") is None


@pytest.mark.parametrize(
    "character", "\u00bc\u00bd\u00be\u2150\u2151\u2152\u2153\u2154\u2155\u2156\u215b\u215c\u215d\u215e"
)
def test_fractions_of_one_character(character: str) -> None:
    numerator, denominator = unicodedata.normalize("NFKC", character).split("\u2044")
    assert numeric_value(character) == Fraction(int(numerator), int(denominator))
    assert numeric_value(f"3{character} cups") == 3 + Fraction(int(numerator), int(denominator))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<<9+9=18>>18", 18), ("18<<9+9=18>> eggs", 18), ("\\text{18}", 18), ("18\\textbf{ cm}", 18),
        ("\\mathrm{18} m", 18),
        ("18 cm^2", 18), ("18 cm^{3}", 18), ("18 m^2", 18), ("18 M^2", None), ("18 cm^4", None), ("18 cm^25", None),
        ("18^\\circ", 18), ("18^{\\circ}", 18), ("\\boxed{18}", 18), ("\\boxed{\\frac{1}{2}}", Fraction(1, 2)),
        ("\\( 18 \\)", 18), ("\\[18\\]", 18), ("18\\,000", 18000), ("**18**", 18), ("$$18$$", 18), ("`18`", 18),
        ("_18_", 18),
        ("1.5 x 10^3", 1500), ("1.5 X 10^{3}", 1500), ("1.5\u00d710^3", 1500), ("1.5*10^3", 1500),
        ("1.5x10\u00b3", 1500),
        ("1.5X10\u00b2\u2070", 15 * 10**19), ("1.5 \\times 10^3", 1500), ("1.5e3", 1500), ("1.5E3", 1500),
        ("1.5e3x", None),
        ("18\u00b3", None), ("18\u00b2", None), ("18 - eggs", None), ("18 m\u00b3", 18), ("18 (eggs)", 18),
        ("18 qua\u0309", 18),
        ("18..", 18), ("18.", 18), ("$-18", -18), ("-$18", -18), ("-$-18", None), ("18 i\u0130", 18), ("3 2/2", None),
        ("3 4/3", None), ("3.5 1/2", None), ("4/3", Fraction(4, 3)), ("1/3/5", None), ("3 5/5 cups", None),
        ("18 000", 18000), ("18 x.", None), ("X18", None), ("1,23/4", None), ("18 bac\u0329", 18),
    ],
)  # fmt: skip
def test_formatting_and_notation(text: str, value: Fraction | None) -> None:
    assert numeric_value(text) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18 cm^2", "18 cm\u00b2"), ("18 m^{3}", "18 m\u00b3"), ("20^\\circ", "20\u00b0"), ("x \\approx 18", "x = 18"),
        ("x \\implies 18", "x = 18"), ("x \\Rightarrow 18", "x = 18"), ("x \\to 18", "x = 18"),
        ("x \\rightarrow 18", "x \\rightarrow 18"),
    ],
)  # fmt: skip
def test_units_and_signs_of_latex_become_plain(text: str, expected: str) -> None:
    assert without_formatting(text) == expected


def test_long_numbers_money_and_the_locale_of_decimals() -> None:
    digits = "7" * LONGEST_NUMBER
    for read in (numeric_value, decimal):
        assert read(digits) == int(digits)
        assert read(digits + "7") is None
        with pytest.raises(ValueError, match="unknown locale 'fr'"):
            read("18", "fr")
    assert LONGEST_NUMBER == 400
    assert numeric_value("18 " + "a" * 398) is None
    for full_width in ("\uff11\uff18", "\uff11\uff12,\uff13\uff14\uff15"):  # numeric_value makes them plain first
        assert decimal(full_width) is None and decimal(full_width, "vi") is None
    assert decimal("") is None and decimal(",") is None
    assert decimal("1,255", "vi") == Fraction(251, 200)
    assert decimal("1,255", "vi", money=True) == 1255
    for text in (
        "1,255 đồng",
        "1,255 ĐỒNG",
        "1,255đ",
        "1,255 VND",
        "1,255 vnđ",
        "1,255 USD",
        "1,255 đô la",
        "1,255 dollars",
    ):
        assert numeric_value(text, "vi") == 1255, text
    assert numeric_value("1,255 kg", "vi") == Fraction(251, 200)


@pytest.mark.parametrize("module", [numbers, answers, schema, lenient], ids=lambda module: module.__name__)
def test_no_group_is_repeated_possessively(module: ModuleType) -> None:
    """Python 3.11.2, which Debian 12 and our images have, matches `(?:...)*+` wrong where the group can be matched in
    several ways: "14." came out of "The answer is 14.". `(?>(?:...)*)` it matches right."""
    patterns = [value.pattern for value in vars(module).values() if isinstance(value, re.Pattern)]
    assert patterns or module is schema
    assert [pattern for pattern in patterns if re.search(r"(?<!\\)\)(?:[*+?]|\{[\d,]+\})\+", pattern)] == []
