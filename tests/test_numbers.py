"""One number and its value, in the notation of English and of Vietnamese; words that change a value are no units."""

import doctest
from fractions import Fraction

import pytest

from grpo_cot import numbers
from grpo_cot.numbers import numeric_value


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
