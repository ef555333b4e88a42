"""Which number of a statement is its answer: word by word, in small and in capital letters."""

from fractions import Fraction

import pytest

from grpo_cot.answers import same_answer, stated_number, stated_value
from grpo_cot.numbers import LONGEST_NUMBER, plain


def announced(text: str, locale: str = "en") -> str | None:
    """The number of a statement that is announced as the answer."""
    return stated_number(plain(text), locale, announced=True)


def said(text: str, locale: str = "en", computed: int | None = None) -> str | None:
    """The number of a sentence; the last equation before it gave `computed`."""
    value = None if computed is None else Fraction(computed)
    return stated_number(plain(text), locale, announced=False, computed=value)


def both_cases(text: str) -> tuple[str, str]:
    return text, text.upper()


@pytest.mark.parametrize(
    "word",
    [
        *"but else otherwise alternatively vs nor neither possibly likely although could option then xor if".split(),
        *("even", "nhưng", "nếu", "lựa chọn", "phương án"),
    ],
)
def test_a_word_that_leads_to_a_rival_leaves_no_answer(word: str) -> None:
    for text in both_cases(f"18 apples in {word} 20"):
        assert announced(text) is None, text
    assert announced("18 apples in 20 bags") == "18"
    assert said("x = 18 if 20") == "18"  # after an equation, the words describe its result


@pytest.mark.parametrize("word", ["or", "and", "x", "times", "plus", "minus", "maybe", "hoặc", "hay", "và"])
def test_numbers_that_a_connector_joins_are_no_answer(word: str) -> None:
    for text in both_cases(f"18 apples {word} 20"):
        assert said(text, computed=18) is None and announced(text) is None, text


@pytest.mark.parametrize("text", ["17-18", "17 or 18", "18 to 20", "18 and 5", "18*20", "5 < 18", "18/5 20"])
def test_a_computed_value_with_a_rival_beside_it_is_no_answer(text: str) -> None:
    for written in both_cases(text):
        assert said(written, computed=18) is None, written


def test_a_computed_value_further_off_has_no_rival() -> None:
    assert said("5 or 6 boxes, 7 bags hold 18 apples", computed=18) == "18"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("not 18", None), ("never 18", None), ("no 18 km", None), ("without 18", None), ("twice 18", None),
        ("log 18", None), ("căn 18", None), ("minus 18", "-18"), ("negative 18", "-18"), ("âm 18", "-18"),
        ("7e3", "7e3"), ("3 tá", "3 tá"), ("2 tỷ", "2 tỷ"), ("18 fifths", None), ("18 squared", None),
        ("18 doubled", None), ("18 point 5", None), ("18 remainder 2", None), ("18 is not it", None),
        ("18 are wrong", None), ("18 minus two", None), ("18 degrees below zero", None), ("1.5 two", None),
        ("18x", None), ("18 apples, and 5", None), ("18 (or 20)", None), ("18; twenty", None), ("18 (two)", None),
        ("x = 3 to 20", None),
        ("x = 3 do 3", "3"), ("18 (20)", None), ("18 [20]", "18"), ("18. 20.", None), ("18 (maybe 20 of them)", None),
        ("18 (18)", "18"), ("18 (12 + 6)", "18"), ("20, no wait, 18", None), ("20, khoan, 18", None), ("20 = a", "20"),
        ("so 20 = a", "20"), ("a = 5, b = 18", None), ("5 meters and 18 a day", None), ("18 m and 5", None),
    ],
)  # fmt: skip
def test_an_announced_statement(text: str, number: str | None) -> None:
    for written in both_cases(text):
        found = announced(written)
        assert (found.lower() if found else found) == number, written


@pytest.mark.parametrize(
    ("text", "locale", "number"),
    [
        ("5 m (bởi 3)", "vi", "5"), ("18 kg, vì 3", "vi", "18"), ("18 kg because 3", "en", "18"),
        ("18 , vậy 5", "en", "5"), ("$20 m, is 3", "en", "3"), ("18 m là 5 m", "en", "5"), ("5 , để 3", "en", "5"),
        ("16 hours (400/25)", "en", "16"), ("110 dollars at 20*5.5", "en", "110"), ("18, which is 9 more", "en", "18"),
        ("20 (by $18)", "en", None), ("18 boxes at $20", "en", None), ("5 boxes and $18", "en", None),
        ("5 boxes cost $18", "en", "$18"), ("5 boxes cost 18 dollars", "en", "18"), ("5 quả giá 18 đồng", "vi", None),
        ("18 nhầm 18", "vi", "18"), ("18 by", "en", "18"), ("1 18", "en", None), ("18/2", "en", None),
        ("After 3 days, she has 18", "en", "18"), ("So in 3 weeks, there are 18 left", "en", "18"),
        ("after 3 days she has 18 apples", "en", "18"), ("sau 3 ngày Lan có 18 quả", "vi", "18"),
    ],
)  # fmt: skip
def test_a_sentence(text: str, locale: str, number: str | None) -> None:
    for written in both_cases(text):
        assert said(written, locale) == number, written


@pytest.mark.parametrize(
    "text",
    [
        "18 h 5 phút", "18 hours 30 minutes", "18 hrs, 5 mins", "18 năm 3 tháng", "18 feet 5 inches", "18 ft 5 in",
        "18 km 5 m", "18 m 5 mét", "18 lbs 3 oz", "18 kg 5 lạng", "18 gallons 2 quarts", "18 l 5 lít",
        "18 dollars 5 cents", "$18, 5 cents", "18 đồng 5 xu", "5 hours 18 minutes",
    ],
)  # fmt: skip
def test_a_quantity_in_two_units_is_no_answer_though_a_part_of_it_was_computed(text: str) -> None:
    for written in both_cases(f"It is {text}"):
        assert said(written, computed=18) is None, written


@pytest.mark.parametrize(
    "text",
    [
        "It is 18 hours 30 apples", "It is 18 hours 5 feet", "It is 18 apples 5 minutes", "It is $18 5 apples",
        "It is 18 5 minutes", "It is 5 hours 3 minutes 7 boxes 18 apples", "It is 18 hours but 30 minutes",
    ],
)  # fmt: skip
def test_units_of_different_measures_are_two_quantities(text: str) -> None:
    assert said(text, computed=18) is not None


def test_the_locale_decides_what_each_number_is() -> None:
    assert stated_value("Lan có 1.500", "vi") == 1500 and stated_value("Lan has 1.500") == Fraction(3, 2)
    assert said("Lan có 1.500 là 1500", "vi") == "1500"
    assert said("1.500 quả 1500", "vi") == "1.500" and said("1.500 apples 1500") is None
    assert announced("1.500 (1500)", "vi") == "1.500" and announced("1.500 (1500)") is None
    assert announced("1500 (1.500)", "vi") == "1500"


def test_equal_numbers_are_one_answer_unless_they_are_calculated_with() -> None:
    assert said("18 apples are 18 fruits") == "18" and said("She has 18 + 18 apples") is None


def test_a_long_list_is_no_answer_whatever_its_end() -> None:
    numbers = "3 4 5 6 7 8 9".split()
    assert said(" boxes ".join([*numbers, "18 of"]), computed=18) == "18"
    assert said(" boxes ".join(["2", *numbers, "18 of"]), computed=18) is None
    assert announced("18 (" + " boxes ".join(["18"] * 8) + ", maybe 20)") == "18"


def test_a_text_longer_than_a_number_states_no_answer() -> None:
    longest = "The answer is 18 " + "a" * (LONGEST_NUMBER - 17)
    assert len(longest) == 400 and stated_value(longest) == 18 and stated_value(longest + "a") is None
    assert not same_answer(longest + "a", "18")


def test_a_word_is_looked_for_right_before_a_number() -> None:
    assert announced("x = not" + " " * 9 + "18") is None


def test_three_introductions_are_left_out_and_none_that_holds_the_answer() -> None:
    assert said("After 3 days, in 2 weeks, at 5 shops, there are 18") == "18"
    assert said("In 18 days, she is done") == "18"


def test_a_conclusion_goes_before_its_premise() -> None:
    assert said("She has 20 apples, so she keeps 18") == "18"
    assert said("3 + 4 = 7, so 18") == "7"
    assert said("3 + 4, so x = 7") == "7"
    assert said("She has 20 apples, so she is glad") == "20"
    assert said("x = 20, so she is glad") == "20"
