"""The lenient reader agrees with a careful person, by value, in both locales, and survives any text."""

import doctest
import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_cot import answers
from grpo_cot.answers import lenient_answer, numeric_value, same_answer
from grpo_cot.schema import TAGS, gold, number, strict_answer


def test_doctests() -> None:
    assert doctest.testmod(answers).failed == 0


def test_hand_labelled_completions() -> None:
    if "GRADING_DIR" not in os.environ:
        pytest.skip("set GRADING_DIR to the folder that holds edge_cases.jsonl")
    lines = (Path(os.environ["GRADING_DIR"]) / "edge_cases.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    disagreements = [
        case["tag"]
        for case in cases
        if same_answer(lenient_answer(case["text"], case["locale"]), case["gold"], case["locale"]) != case["human_ok"]
    ]
    assert len(cases) == 30
    assert disagreements == []


@pytest.mark.parametrize("marker", ["#### {}", "The answer is {}.", "<answer>\n{}\n</answer>", "\\boxed{{{}}}"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_gsm8k_golds_are_read_behind_every_marker(split: str, marker: str) -> None:
    if "GSM8K_DIR" not in os.environ:
        pytest.skip("set GSM8K_DIR to the folder that holds GSM8K's train.jsonl and test.jsonl")
    path = Path(os.environ["GSM8K_DIR"]) / f"{split}.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        solution, _, answer = json.loads(line)["answer"].partition("####")
        completion = solution + marker.format(answer.strip())
        assert same_answer(lenient_answer(completion), gold(f"#### {answer}")), completion


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("14", "14"),
        ("12 + 7 = 19\n19 - 5 = 14\nThe answer is 14.", "14"),
        ("12 + 7 = 19\n19 - 5 = 14", "14"),
        ("12 + 7 = <<12+7=19>>19 apples for 2 days", "19"),
        ("12 + 7 = 19\n19 - 5 =", None),
        ("<reasoning>\nIt must be 14.\n</reasoning>\n<answer>\n15\n</answer>", "15"),
        ("<answer>\n14", "14"),
        ("<answer>18</answer> This is 2 more.", "18"),
        ("**Answer:** 18", "18"),
        ("The answer is -$ 18.", "-$ 18"),
        ("The answer is:\n\n$$18$$", "18"),
        ("Final answer:\n\\[\\boxed{\\frac{1}{2}}\\]", "1/2"),
        ("\\boxed{1{,}234\\text{ dollars}}", "1,234"),
        ("The answer is 12 + 6 = 18 apples, because 3 + 4 = 7.", "18"),
        ("The answer is 18 apples in 2 bags.", "18"),
        ("So after 3 days, she has 14 apples.", "14"),
        ("She puts **14** apples in 2 bags.", "14"),
        ("#### 14\nThe answer is correct.", "14"),
    ],
)
def test_the_stated_answer(completion: str, answer: str | None) -> None:
    assert lenient_answer(completion) == answer


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "no number",
        "The answer is 17 or 18.",
        "The answer is 5 hours and 18 minutes.",
        "The answer is 20 - 2",
        "The answer is not 18.",
        "<answer>36/2</answer>",
        "<answer>17, 18</answer>",
        "<answer>\n16\n17\n18\n</answer>",
        "<answer>18\u00b2</answer>",
        "She has 18 apples in 2 bags.",
    ],
)
def test_a_guess_or_an_unfinished_calculation_is_no_answer(completion: str) -> None:
    assert not same_answer(lenient_answer(completion), "18")


def test_the_last_of_several_answers_counts() -> None:
    assert lenient_answer("#### 14\nLet me check that again.\n#### 15") == "15"
    assert lenient_answer("The answer is 14. Wait, actually it is 15.") == "15"
    assert lenient_answer("<answer>14</answer><answer>15</answer>") == "15"


def test_a_heading_is_no_answer() -> None:
    assert lenient_answer("#### Step 2: add 3\nShe has 14.") == "14"
    assert lenient_answer("Let me find the answer:\nFirst, she has 3 apples.\nShe ends with 14.") == "14"


@pytest.mark.parametrize(
    "question", ["Question: and then?", "Q: and then?", "### Problem 2: and then?", "Câu hỏi: còn gì?"]
)
def test_what_follows_a_new_question_is_not_read(question: str) -> None:
    assert lenient_answer(f"12 + 2 = 14\n{question}\nThe answer is 7.") == "14"


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
    ],
)
def test_vietnamese_numbers(text: str, value: Fraction) -> None:
    assert numeric_value(text, "vi") == value
    assert numeric_value(lenient_answer(f"Đáp án là {text}.", "vi") or "", "vi") == value


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
    ],
)
def test_english_numbers(text: str, value: Fraction) -> None:
    assert numeric_value(text) == value


@pytest.mark.parametrize(
    "text", ["", "2,5", "1/0", "18\u00b2", "\u00b2", "\u00bd", "3 4", "x = 5", "--5", "5:30", "7" * 5000]
)
def test_not_one_number(text: str) -> None:
    assert numeric_value(text) is None


def test_same_answer_is_by_value() -> None:
    assert same_answer("18.0", "18")
    assert same_answer("1234", "1,234")
    assert same_answer("70.000 đô la", "70000", "vi")
    assert not same_answer("70.000", "70000")
    assert not same_answer(None, "18")
    assert not same_answer("Paris", "Paris")


def test_unknown_locale() -> None:
    with pytest.raises(ValueError, match="unknown locale 'fr', expected one of en, vi"):
        numeric_value("1", "fr")


PIECES = st.sampled_from(
    [*TAGS, *"12/=+-$%. \n\u00b2\uff17\u0301\U0001d7d8", "####", "\\boxed{", "\\frac{", "}", "**", "2,5", "1.000"]
) | st.sampled_from(["answer is ", "Đáp án là ", "Question:", "wait ", "because ", "not ", "or ", "after ", "apples"])


@given(st.text() | st.lists(PIECES).map("".join), st.sampled_from(["en", "vi"]))
def test_never_raises(text: str, locale: str) -> None:
    same_answer(lenient_answer(text, locale), text, locale)


@given(
    st.lists(st.sampled_from(["1", "2", ",", ".", "0", "00", "-", "$", " ", "%", " apples", "\u20ac", "\u2212"])).map(
        "".join
    )
)
def test_whatever_the_strict_reader_accepts_is_read_alike(answer: str) -> None:
    completion = f"<reasoning>\n3 + 4 = 7\n</reasoning>\n<answer>\n{answer}\n</answer>"
    strict = strict_answer(completion)
    if strict is not None and number(strict) is not None:
        assert numeric_value(lenient_answer(completion) or "") == number(strict)
