"""Where the lenient reader looks, marker by marker and sentence by sentence, in small and in capital letters."""

import pytest

from grpo_cot.grading.lenient import lenient_answer

SCHEMA = "<reasoning>\n12 + 6 = 18\n</reasoning>\n<answer>\n{}\n</answer>"


def both_cases(text: str) -> tuple[str, str]:
    return text, text.upper()


@pytest.mark.parametrize("marker", ["đáp án là", "đáp số:", "kết quả là", "câu trả lời là"])
def test_a_vietnamese_marker_announces(marker: str) -> None:
    for text in both_cases(f"{marker} 12.\nLan có 5 bạn."):
        assert lenient_answer(text, "vi") == "12", text


@pytest.mark.parametrize(
    "text",
    [
        "3 + 4 = 7. It cannot be determined.", "3 + 4 = 7. The answer can not be determined.",
        "The answer is unknown.\n3 + 4 = 7", "The answer is twenty.\n3 + 4 = 7", "The answer can not be 18.",
        "The answer cannot be 18.", "The answer can't be 18.", "Đáp án không thể là 18.", "<answer></answer>",
        "I don't think the answer is 18.", "The answer is 18. It is impossible to say.",
    ],
)  # fmt: skip
def test_what_is_denied_or_unknown_is_no_answer(text: str) -> None:
    for written in (text, text.upper()) if "<" not in text else (text,):
        assert lenient_answer(written, "vi" if "Đáp" in text else "en") is None, written


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 12. Wait, it's 14.", "14"), ("The answer is 12. Sorry, so 14.", "14"),
        ("Wait, it is 5. The answer is 18. She has 3 bags.", "18"),
        ("The answer is found by adding 3 to 4.\nSo she has 7.", "7"),
        ("The answer is 12. The answer is 14. The answer is found by adding.", "14"),
        ("The answer is:\n- 18\nShe has 5 bags.", "18"), ("The answer is:\n18.\nShe has 5 bags.", "18"),
        ("The answer is: **\n18\n**\nShe has 5 bags.", "18"), ("The answer is:\nunsure of it\nShe has 5 bags.", "5"),
        ("The unclear answer is 18 apples of hers.", "18"), ("Let me know: 3 + 4 = 7", "7"),
        ("Step 2: She has 18 apples", "18"), ("3 + 4 = **7**\nShe took 7 apples, 5 pears were left.", "7"),
        ("3 + 4 = 7\nShe took 7 apples, 5 pears were left.", "7"), ("She took 7 apples, 5 pears were left.", None),
        ("There were <<12+6=18>>18 apples where 20 pears were.", "18"),
        ("There were 18 apples where 20 pears were.", None),
        ("If she had 4, the answer would be 10.\nSo it is 7.", "7"),
    ],
)  # fmt: skip
def test_where_an_english_answer_is_found(text: str, answer: str | None) -> None:
    for written in both_cases(text):
        assert lenient_answer(written) == answer, written


def test_markers_with_an_end_of_their_own() -> None:
    assert lenient_answer("<answer>18\n\nThere are 5 bags.") == "18"
    assert lenient_answer("\\boxed{18} of 20 apples") == "18" == lenient_answer("\\boxed{18} or 20 apples")
    for text in ("<answer>18 (actually 18)</answer>\nIt is 20.", "\\boxed{18 (actually 18)} It is 20."):
        assert str(lenient_answer(text)).startswith("18")
    for text in ("<answer>18</answer>\nWait, it is 20.", "\\boxed{18} Wait, it is 20."):
        assert lenient_answer(text) == "20"


def test_of_the_schema_the_answer_is_returned_as_it_stands() -> None:
    assert lenient_answer(SCHEMA.format("18 apples in 2 bags")) == "18 apples in 2 bags"


def test_the_locale_decides_what_was_computed() -> None:
    assert lenient_answer("3 x 500 = 1500\nLan lấy 1.500 quả, 5 lê còn lại.", "vi") == "1.500"
    assert lenient_answer("3 x 500 = 1.500\nLan lấy 1500 quả, 5 lê còn lại.", "vi") == "1500"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 18 apples.\nQuestion: What is 5", "18"), ("So she has 18 apples. Then she b", "18"),
        ("She has 3. So she has 18 apples. Then she b", "18"), ("So she has 18 apples! ", "18"),
        ("So she has 18 apples. \n", "18"), ("She has 18 apples. Then she b", None), ("So she has 1", None),
        ("So it is 3.\nSo she has 18 apples\nThen b", "18"),
    ],
)  # fmt: skip
def test_of_a_completion_that_was_cut_off_conclusions_and_earlier_turns_are_read(text: str, answer: str | None) -> None:
    for written in both_cases(text):
        assert lenient_answer(written, truncated=True) == answer, written


def test_a_sentence_of_more_than_1000_characters_is_no_statement() -> None:
    sentence = "She has 18 apples" + " a" * 491 + "."
    assert len(sentence) == 1000 and lenient_answer(sentence) == "18"
    assert lenient_answer(sentence + ".") is None
