"""One careful reading of an announced answer, alike for strict grading, for rewards and for the lenient reader."""

import doctest
import itertools
import time
import unicodedata
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_cot import answers
from grpo_cot.answers import same_answer, stated_value
from grpo_cot.grading.lenient import lenient_answer
from grpo_cot.rewards.registry import REWARDS
from grpo_cot.schema import strict_answer

SCHEMA = "<reasoning>\n12 + 6 = 18\n</reasoning>\n<answer>\n{}\n</answer>"


def verdicts(answer: str, gold: str, locale: str = "en") -> set[bool]:
    """The verdicts of strict grading, of the lenient reader and of both rewards on an answer inside the schema."""
    completion = SCHEMA.format(answer)
    found = {
        same_answer(strict_answer(completion), gold, locale),
        same_answer(lenient_answer(completion, locale), gold, locale),
    }
    for name in ("correctness", "correctness_in_schema"):
        found |= {REWARDS[name](prompts=[""], completions=[completion], gold=[gold], locale=[locale]) == [2.0]}
    return found


def test_doctests() -> None:
    assert doctest.testmod(answers).failed == 0


@pytest.mark.parametrize(
    "answer",
    [
        "18", "18.", "18.0", "018", "+18", "**18**", "`18`", "_18_", '"18"', "(18)", "[18]", "$18", "$ 18", "$18.00",
        "US$18",
        "18 USD", "USD 18", "Rs. 18", "\u20b918", "\u20ac18", "18 \u20ac", "18%", "18 percent", "18 apples", "18 km/h",
        "18 cm\u00b2",
        "18 km per hour", "x = 18", "x=18", "18 = x", "12 + 6 = 18", "36/2 = 18", "\\boxed{18}", "$\\boxed{18}$",
        "\\(18\\)", "$18$",
        "\\text{18}", "18\\%", "\\$18", "The answer is 18", "The answer is 18.", "Answer: 18",
        "She pays $18 for 3 days.",
        "She has 18 apples in 2 bags.", "18 apples, because 12 + 6 = 18", "not 20 but 18", "18, not 20", "18 (12 + 6)",
        "18?",
        "18!", "18 of them", "18 dogs and cats", "\uff11\uff18", "=18", "\u2248 18", "about 18", "18th", "18 a day",
        "18 d",
        "Each of the 4 friends pays $18.", "1.8e1", "1.8 x 10^1", "18 (18.0)",
    ],
)  # fmt: skip
def test_spellings_of_one_number_are_read_alike_by_every_reader(answer: str) -> None:
    assert verdicts(answer, "18") == {True}


@pytest.mark.parametrize(
    "answer",
    [
        "", "many", "twenty", "eighteen", "unknown", "cannot be determined", "18; 20", "20; 18", "18, 20", "18 20",
        "17 or 18",
        "18 or 20", "18 or nineteen", "18 (or maybe 20)", "18 or more", "between 17 and 18", "17-18", "18 \u2013 20",
        "18 to 20", "18/2",
        "36/2", "20 - 2", "18 minus one", "18 plus two", "18 times two", "18 divided by two", "18x", "18 x", "18n",
        "18\u03c0",
        "18\u00b2", "18^2", "18 squared", "\\sqrt{18}", "\u221a18", "2 \\times 18", "18 and", "18 and nineteen",
        "18 thousand", "18k",
        "18 dozen", "18 hundred", "18 million", "$18M", "18 and a half", "18.5", "18 1/2", "not 18", "no longer 18",
        "-18",
        "negative 18", "minus 18", "\u221218", "\u201318", "18 degrees below zero", "> 18", "< 18", "more than 18",
        "less than 18",
        "18:00", "3:18", "18 hours 30 minutes", "18 hours and 30 minutes", "5 feet 18 inches", "$18 and 30 cents",
        "18 dollars and fifty cents", "1 18", "x = 18, y = 5", "16\n17\n18", "18 fifths", "118", "180", "x",
        "18 " * 200,
    ],
)  # fmt: skip
def test_what_does_not_state_18_is_paid_by_no_reader(answer: str) -> None:
    assert verdicts(answer, "18") == {False}


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("18 thousand", "18000"), ("18k", "18000"), ("18 dozen eggs", "216"), ("$1.5 million", "1500000"),
        ("$2M", "2000000"),
        ("2 hundred", "200"), ("18 and a half", "18.5"), ("2 hours and a half", "2.5"), ("1 000 000", "1000000"),
        ("12 345.5 km", "12345.5"), ("1/2", "0.5"), ("3 1/2 cups", "3.5"), ("\u00bd", "0.5"), ("\u20135", "-5"),
        ("-US$5", "-5"),
        ("minus 5", "-5"), ("negative 5 degrees", "-5"), ("x = -5", "-5"), ("2 thousand 5 hundred", "2500"),
        ("\\boxed{\\frac{1}{2}}", "0.5"), ("It costs $18 thousand.", "18000"), ("7e3", "7000"), ("240A", "240"),
    ],
)  # fmt: skip
def test_words_and_signs_that_change_the_value_are_read(answer: str, gold: str) -> None:
    assert verdicts(answer, gold) == {True}


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("70 nghìn", "70000"), ("70 ngàn đồng", "70000"), ("70k", "70000"), ("1,5 triệu", "1500000"),
        ("1,5 triệu đồng", "1500000"),
        ("1,5tr", "1500000"), ("2 triệu 500 nghìn", "2500000"), ("1 triệu rưỡi", "1500000"), ("2 giờ rưỡi", "2.5"),
        ("2 tỷ", "2000000000"), ("2 nghìn tỷ", "2000000000000"), ("5 chục trứng", "50"), ("3 tá", "36"),
        ("18 phần trăm", "18"),
        ("3 năm", "3"), ("70.000đ", "70000"), ("70.000 VNĐ", "70000"), ("âm 5", "-5"),
        ("Đáp án là 70 nghìn đồng.", "70000"),
        ("không phải 20 mà là 18", "18"), ("1,255 đồng", "1255"), ("Lan còn 12 quả táo sau 3 ngày", "12"),
    ],
)  # fmt: skip
def test_vietnamese_words_that_change_the_value_are_read(answer: str, gold: str) -> None:
    assert verdicts(answer, gold, "vi") == {True}


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("70 nghìn", "70"), ("1,5 triệu", "1.5"), ("18 hoặc 20", "18"), ("18 hay hai mươi", "18"), ("18 trừ một", "18"),
        ("18 cộng hai", "18"), ("2 giờ 30 phút", "2"), ("2 giờ 30 phút", "30"), ("2 giờ rưỡi", "2"),
        ("1 triệu rưỡi", "1000000"),
        ("18 quả và hai quả", "18"), ("không phải 18", "18"), ("5 chục", "5"), ("18 độ dưới không", "18"),
        ("từ 18 đến 20", "18"),
        ("2 triệu 500", "2000000"), ("3 phần tư", "3"),
    ],
)  # fmt: skip
def test_other_vietnamese_values_are_paid_by_no_reader(answer: str, gold: str) -> None:
    assert verdicts(answer, gold, "vi") == {False}


NUMBERS = (
    "18",
    "-18",
    "1,234",
    "1,234.50",
    "0.5",
    "1/2",
    "3 1/2",
    "1 000 000",
    "$18",
    "-$5",
    "\u20b918",
    "18k",
    "70.000",
    "2,5",
)
BEFORE = (
    "",
    " ",
    "**",
    "x = ",
    "The answer is ",
    "$",
    "US$",
    "\u2248 ",
    "about ",
    "(",
    "not ",
    "negative ",
    "12 + 6 = ",
)
AFTER = (
    "",
    ".",
    "**",
    " apples",
    " km/h",
    "%",
    " thousand",
    " nghìn",
    " or 20",
    "; 20",
    ")",
    " x",
    " minus one",
    " and a half",
)


def test_strict_grading_rewards_and_the_lenient_reader_never_part() -> None:
    spellings = [("".join(parts), locale) for *parts, locale in itertools.product(BEFORE, NUMBERS, AFTER, ("en", "vi"))]
    for answer, locale in spellings:
        value = stated_value(answer, locale)
        decimals = (
            value is not None and str(float(value))
            if value is not None and Fraction(str(float(value))) == value
            else "7"
        )
        assert len(verdicts(answer, str(decimals), locale)) == 1, (answer, locale)


def test_same_answer_is_by_value() -> None:
    assert same_answer("18.0", "18")
    assert same_answer("1234", "1,234")
    assert same_answer("70.000 đô la", "70000", "vi")
    assert not same_answer("70.000", "70000")
    assert not same_answer(None, "18")
    assert not same_answer("Paris", "Paris")


def test_unknown_locale() -> None:
    with pytest.raises(ValueError, match="unknown locale 'fr', expected one of en, vi"):
        stated_value("the 18", "fr")


@given(st.text() | st.lists(st.sampled_from([*BEFORE, *NUMBERS, *AFTER])).map(" ".join), st.sampled_from(["en", "vi"]))
def test_never_raises(text: str, locale: str) -> None:
    assert isinstance(stated_value(text, locale), Fraction | None)


@pytest.mark.parametrize(
    "unit", ["1", "1 ", "1,", "18 apples ", "(", "x = 1 ", "or ", "not ", "$", "after 3 days, ", "**1** ", "1/"]
)
def test_a_long_text_takes_no_time(unit: str) -> None:
    started = time.perf_counter()
    for length in (299, 400, 1_000_000):
        stated_value((unit * (length // len(unit) + 1))[:length])
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "answer",
    [
        "18**2", "1**8", "18$$20", "18`20", "18\\;20", "18\\)\\(20", "18 apples 17 pears 16 figs", "18 a 19 b 20 c",
        "A: 18, B: 20",
        "option A 18 option B 20", "Monday 18 Tuesday 20", "first 18 then 20", "18 yes 20 no", "18 but 20",
        "18 could be 20",
        "18 otherwise 20", "18 vs 20", "neither 18 nor 20", "18 (or nineteen)", "18; twenty", "18, perhaps twenty",
        "18 is wrong",
        "18 is not the answer", "anything but 18", "never 18", "not equal to 18", "x != 18", "\\neq 18", "half of 18",
        "twice 18",
        "sqrt(18)", "square root of 18", "18 mod 5", "18 less one", "18 add one", "\u00b118", "|-18|", "-(18)",
        "x <= 18", "\\leq 18",
        "18 negative", "0x18", "1_8", "20, no wait, 18", "18 doubled",
    ],
)  # fmt: skip
def test_what_only_looks_like_18_is_paid_by_no_reader(answer: str) -> None:
    for gold in ("18", "182", "1820", "20"):
        assert verdicts(answer, gold) == {False}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("70 nghìn", "70000"), ("2 triệu rưỡi", "2500000"), ("2 triệu rưởi", "2500000"), ("âm 18", "-18"),
        ("70 nghin", "70000"),
        ("không phải 20 mà là 18", "18"), ("18 hoặc 20", ""), ("2 triệu năm trăm", ""), ("2tr5", ""), ("2h30", ""),
        ("gấp đôi 18", ""), ("18 mũ 2", ""), ("3 phần 4", ""),
    ],
)  # fmt: skip
def test_vietnamese_is_read_alike_composed_and_decomposed(answer: str, gold: str, form: Literal["NFC", "NFD"]) -> None:
    value = stated_value(unicodedata.normalize(form, answer), "vi")
    assert value == (Fraction(gold) if gold else None)
