"""The lenient reader agrees with a careful person, by value, in both locales, and survives any text."""

import doctest
import itertools
import json
import os
import random
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import reader_errors
from hypothesis import given
from hypothesis import strategies as st

from grpo_cot.answers import same_answer, stated_value
from grpo_cot.grading import lenient
from grpo_cot.grading.lenient import lenient_answer
from grpo_cot.numbers import LOCALES, numeric_value
from grpo_cot.schema import TAGS, gold, strict_answer, worked


def test_doctests() -> None:
    assert doctest.testmod(lenient).failed == 0


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


@pytest.mark.parametrize(("split", "rows"), [("train", 7473), ("test", 1319)])
def test_worked_solutions_are_right_and_no_other_gold_is(split: str, rows: int) -> None:
    if "GSM8K_DIR" not in os.environ:
        pytest.skip("set GSM8K_DIR to the folder that holds GSM8K's train.jsonl and test.jsonl")
    path = Path(os.environ["GSM8K_DIR"]) / f"{split}.jsonl"
    answers = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == rows
    for published in answers:
        expected = gold(published)
        in_schema = worked(published.partition("####")[0].strip(), expected)
        value = int(expected)
        others = {str(value + 1), str(-value), str(10 * value)} if value else {"1"}
        for read in (strict_answer(in_schema), lenient_answer(in_schema), lenient_answer(published)):
            assert same_answer(read, expected), published
            assert not any(same_answer(read, other) for other in others), published
        for other in others:
            completion = worked(published.partition("####")[0].strip(), other)
            assert not same_answer(strict_answer(completion), expected), published
            assert not same_answer(lenient_answer(completion), expected), published
            assert not same_answer(lenient_answer(re.sub("####.*", f"#### {other}", published)), expected), published


def test_vietnamese_explanations() -> None:
    if "SHARED_DATA_DIR" not in os.environ:
        pytest.skip("set SHARED_DATA_DIR to the folder that holds vi_gsm8k_slice")
    path = Path(os.environ["SHARED_DATA_DIR"]) / "vi_gsm8k_slice" / "joined_train_0_199.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 200
    read = {row["index"]: lenient_answer(row["explanation"], "vi") for row in rows}
    wrong = [row["index"] for row in rows if not same_answer(read[row["index"]], row["answer"], "vi")]
    assert wrong == [123, 161, 178]
    assert read[123] == "$0.25"  # the gold is 25: the question asks for cents, and the explanation ends in dollars
    assert read[161] == "4 triệu"  # the gold is 4: the question asks for millions
    assert read[178] == "$4.25"  # the gold is 23: the explanation works out another problem (1 plant fewer, a $20 note)


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
        ("#### - 18", "-18"),
        ("The answer is negative 5.", "-5"),
        ("#### _18_", "18"),
        ("\\boxed{18^\\circ}", "18"),
        ("\\boxed{18\\text{ cm}^2}", "18"),
        ("\\boxed{\\dfrac12}", "1/2"),
        ("\\boxed{-3\\frac{1}{2}}", "-3 1/2"),
        ("The answer is 1.5 \\times 10^{3}.", "1.5e3"),
        ("1.5\u00d710\u00b3", "1.5e3"),
        ("The number of apples after 3 days is 14.", "14"),
        ("She made 14 apples from 5 bags, so she has 16.", "16"),
        ("It takes 16 hours (400 / 25).", "16"),
        ("100 / 5 = 5A / 5 or 20 = A.", "20"),
        ("She sold 28 cups on day 2.", "28"),
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
        "\\boxed{18\\sqrt{3}}",
        "\\boxed{18\\pi}",
        "\\boxed{x = 18, y = 5}",
        "She has 18 apples from 36/2 or 40/2.",
        "between 17 and 18",
        "18-20",
        "She has 18 apples in 2 bags.",
    ],
)
def test_a_guess_or_an_unfinished_calculation_is_no_answer(completion: str) -> None:
    assert not same_answer(lenient_answer(completion), "18")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Mia will have saved $90 after 3 weeks.", "$90"),
        ("Each of the 4 friends pays $12.", "$12"),
        ("So the 3 machines make 450 parts in 5 hours.", "450"),
        ("She drove 300 miles in 5 hours.", "300"),
        ("So 12 of the 30 students wear glasses.", "12"),
        ("So 12 out of 30 students wear glasses.", "12"),
        ("She needs 5 weeks to save $90.", "5"),
        ("She will have 26 stamps left after giving 14 to her brother.", "26"),
        ("So each of the 6 children gets 7 candies.", "7"),
        ("All 3 boxes hold 24 pens.", "24"),
        ("In total, she earns $240 in 2 weeks.", "$240"),
        ("John pays $60 for 12 apples.", "$60"),
        ("He can buy 3 toys with $45.", "3"),
        ("The total cost for 4 people is $40.", "$40"),
        ("Therefore, Sarah will read 64 pages in 4 days at 16 pages per day.", "64"),
        ("Thus Tom has 35 marbles, which is 5 more than Jim.", "35"),
        ("So the town has 18 thousand people.", "18 thousand"),
        ("9 + 9 = 18\nShe has 18 apples in 2 bags.", "18"),
        ("9 * 10 = 90\nSo he read 90 pages on 10 mornings.", "90"),
        ("90 / 30 = 3\nSo she needs 3 weeks to reach 90 dollars, or nearly a month.", "3"),
    ],
)
def test_the_asked_quantity_among_several_numbers(completion: str, answer: str) -> None:
    assert lenient_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Vậy Lan còn lại 12 quả táo sau 3 ngày.", "12"),
        ("Lan còn lại 12 quả táo sau 3 ngày", "12"),
        ("Mỗi bạn trong 6 bạn được 7 cái kẹo.", "7"),
        ("Mỗi người trong số 6 người bạn nhận được 7 cái kẹo.", "7"),
        ("Cô ấy đi được 300 km trong 5 giờ.", "300"),
        ("Cô ấy cần 5 tuần để tiết kiệm 90 đô la.", "5"),
        ("Sau khi cho 3 bạn, An còn lại 15 viên bi.", "15"),
        ("Như vậy cả 3 hộp có 240 cái bút.", "240"),
        ("Mai phải trả 60.000 đồng cho 12 quả táo.", "60.000"),
        ("Vậy An phải trả 70 nghìn đồng.", "70 nghìn"),
        ("Vậy chuyến đi mất 2 giờ rưỡi.", "2 giờ rưỡi"),
    ],
)
def test_the_asked_quantity_in_vietnamese(completion: str, answer: str) -> None:
    assert lenient_answer(completion, "vi") == answer


@pytest.mark.parametrize(
    "completion",
    [
        "9 + 9 = 18\nThe answer cannot be determined.",
        "9 + 9 = 18\nSo it cannot be determined.",
        "9 + 9 = 18. There is not enough information.",
        "9 + 9 = 18\n<answer>twenty</answer>",
        "9 + 9 = 18\n<answer></answer>",
        "9 + 9 = 18\nThe answer is twenty.",
        "9 + 9 = 18\nThe answer is unknown.",
        "9 + 9 = 18\nThe answer is 18 (or maybe 20).",
        "9 + 9 = 18\nThe answer is 17 or 19.",
        "9 + 9 = 18\nThe answer is 2 hours 18 minutes.",
        "9 + 9 = 18\n#### many or 18, 20",
        "9 + 9 = 18\n\\boxed{\\text{unknown}}",
        "<answer>18</answer> no, <answer>18; 20</answer>",
        "The trip takes 18 hours 30 minutes.",
        "He has 18 apples and 5 pears.",
    ],
)
def test_an_announced_answer_ends_the_search_whatever_it_says(completion: str) -> None:
    assert not same_answer(lenient_answer(completion), "18")


def test_a_sentence_on_the_method_announces_nothing() -> None:
    assert lenient_answer("The answer is found by adding 3 to 4.\n3 + 4 = 7") == "7"
    assert lenient_answer("Đáp án được tính bằng 3 + 4.\n3 + 4 = 7", "vi") == "7"


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


PIECES = (
    *TAGS, "####", "\\boxed{", "\\frac{", "\\frac12", "\\text{", "\\sqrt{", "}", "**", "<<", "^{3}", "x 10^", "e9",
    "answer is ", "Đáp án là ", "kết quả: ", "\nQuestion:", " wait ", " because ", " so ", ", so ", " is ", " là ",
    "not ", " or ", " and ", "after ", ", ", " (", ")", "âm ", "tháng ", " apples", "\n", " ", ". ", "=", "-", "/", "%",
    "1", "2,5", "1.000", "88,000", "1/2", "0", "00", "$", "\u20ab", "\u2212", "\uff11", "\uff0c", "\u0661", "\u00b2",
    "\u00bd", "\u2460", "\u0130", "\u0301", "\ud800", "\udfff", "\U0001d7d8", "1," * 50,
)  # fmt: skip


def hostile_texts(count: int) -> Iterator[str]:
    """Texts of markers, numbers and connectors between any characters, lone surrogates and other scripts' digits."""
    rng = random.Random(0)
    for _ in range(count):
        chosen = rng.choices(PIECES, k=rng.randint(1, 8))
        chosen += map(chr, rng.choices(range(0x110000), k=rng.randint(0, 4)))
        if rng.random() < 0.01:
            chosen.append(rng.choice("79,") * rng.choice((400, 401, 4301, 5000)))
        rng.shuffle(chosen)
        yield "".join(chosen)


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.prove)])
def test_no_reader_raises_on_hostile_texts(count: int) -> None:
    for text, locale in zip(hostile_texts(count), itertools.cycle(LOCALES), strict=False):
        for answer in (strict_answer(text), lenient_answer(text, locale), text):
            same_answer(answer, text, locale)
            assert answer is None or isinstance(stated_value(answer, locale), Fraction | None)
            assert answer is None or isinstance(numeric_value(answer, locale), Fraction | None)


@given(
    st.lists(st.sampled_from(["1", "2", ",", ".", "0", "00", "-", "$", " ", "%", " apples", "\u20ac", "\u2212"])).map(
        "".join
    )
)
def test_whatever_the_strict_reader_accepts_is_read_alike(answer: str) -> None:
    completion = f"<reasoning>\n3 + 4 = 7\n</reasoning>\n<answer>\n{answer}\n</answer>"
    strict = strict_answer(completion)
    if strict is not None and stated_value(strict) is not None:
        assert stated_value(lenient_answer(completion) or "") == stated_value(strict)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("12 + 7 = 19\nThe number of kites is therefore 1", None),
        ("12 + 7 = 19 apples. She gives 5 to", None),
        ("12 + 7 = 19\nSo she has 19 apples. To check, we", "19"),
        ("So she has 19 apples.\nTo check, we", "19"),
        ("The answer is 1", None),
        ("The answer is 1,", None),
        ("The answer is 3 tho", None),
        ("The answer is 19\n", "19"),
        ("The answer is 19. To check, we", "19"),
        ("<answer>\n19\n</answer>\nTo check", "19"),
        ("Vậy Lan có 19 quả. Để kiểm tra, ta lấy 19 - 7", "19"),
    ],
)
def test_a_statement_that_the_token_limit_broke_off_is_not_read(completion: str, answer: str | None) -> None:
    assert lenient_answer(completion, truncated=True) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Each of the 8 pieces is 1.25 feet (or 1 1/4 feet) long.", "1.25"),
        ("48 panels downstairs plus 32 panels upstairs makes 80 panels in the whole house.", "80"),
        ("J = 21\nSo, John is currently 21 years old: in 9 years he will be 30.", "21"),
        ("17 - 9 = 8\nThe farmer has 9 sheep left after the other 8 ran away.", "9"),
        ("5 * 3 = 15\nSo 15 boys and 18 girls came.", None),
        ("4 * 5 = 20\nIt costs from 18 to 20 dollars.", None),
        ("It has 23 ducks. Or maybe 24.", None),
        ("The answer is 55.\nIf the debt is not counted, the answer would be 75.", "55"),
        ("It is 12.\nExercise: what if it were 15?", "12"),
        ("<answer>36 tulips, 48 daisies</answer>", "36 tulips, 48 daisies"),
        ("Answer: side 12 cm; area 144 cm\u00b2", None),
    ],
)
def test_readings_that_real_completions_asked_for(completion: str, answer: str | None) -> None:
    assert lenient_answer(completion) == answer


MOST_ERRORS = {"strict": (1, 1), "reward": (1, 1), "lenient": (47, 37)}  # false negatives, false positives


def test_the_labelled_completions_are_read_as_well_as_documented() -> None:
    """docs/measured.md has the shares; a better reader may err less."""
    rows = [json.loads(line) for line in reader_errors.LABELLED.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 480
    for reader, (negatives, positives) in MOST_ERRORS.items():
        found = [sum(verdicts) for verdicts in reader_errors.errors(rows, reader)]
        assert found[0] <= negatives and found[1] <= positives, (reader, found)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("I don't think the answer is 18.", None),
        ("The answer cannot be 18.", None),
        ("Is the answer 18?", None),
        ("She has 18 eggs left.\n\nI hope this helps! Feel free to ask another question 24/7.", "18"),
        ("She has 18 left. Does that help? Let me know if you have 2 more questions!", "18"),
        ("The answer is 18. Actually, he also has 2 dogs.", "18"),
        ("The answer is 18. Sorry for the long text of 300 words.", "18"),
        ("The answer is 18.\nIt cannot be determined.", None),
        ("The answer is 18.\n\n### Instruction:\nWhat?\n### Response:\nThe answer is 22.", "18"),
        ("None of the 12 apples are left.", None),
        ("The answer is 18. Scratch that. 20.", "20"),
    ],
)
def test_denials_closing_words_and_retractions(completion: str, answer: str | None) -> None:
    assert lenient_answer(completion) == answer


@pytest.mark.parametrize("unit", ["1 / ", "9", "1,", "1 / 2 - ", "18 apples and ", "after 3 days "])
def test_a_long_line_takes_no_time(unit: str) -> None:
    started = time.perf_counter()
    for length in (999, 20_000, 1_000_000):
        lenient_answer(unit * (length // len(unit)))
    assert time.perf_counter() - started < 2
