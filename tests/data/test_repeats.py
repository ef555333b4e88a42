"""A question counts once: an evaluation set that asks it twice, or gives it two golds, is refused until the source file
drops the rows too many. Training may repeat."""

from pathlib import Path
from typing import Any

import pytest
from data.test_rows import files_source, pinned, with_set

from grpo_cot.common.errors import InputError
from grpo_cot.data.overlap import repeated
from grpo_cot.data.rows import load

HEADER = "key,ask,n\n"
COLUMNS = {"question": "ask", "gold": "n", "id": "key"}


def evaluated(folder: Path, lines: str, **extra: object) -> list[str]:
    suite = with_set(folder, pinned(folder, "set.csv", HEADER + lines), columns=COLUMNS, **extra)
    return [row["id"] for row in load(suite, "toy")[0]["other"]]


def test_an_evaluation_set_that_asks_a_question_twice_is_refused_with_every_row_to_drop(tmp_path: Path) -> None:
    lines = "a,What is 2 + 3?,5\nb,What is 4 + 4?,8\nc,what is 2 + 3,5.0\nd,What is  4 + 4?,8\ne,What is 2 + 3?!,5\n"
    with pytest.raises(InputError, match=r"set.csv: 3 rows ask again .*\(c what a asks, first\).*: c, e, d$"):
        evaluated(tmp_path, lines)
    assert evaluated(tmp_path, lines, drop=dict.fromkeys("ced", "a repeat")) == ["a", "b"]


def test_two_golds_for_one_question_are_refused_with_both(tmp_path: Path) -> None:
    lines = "a,What is 2 + 3?,5\nb,What is 2 + 3?,6\n"
    with pytest.raises(
        InputError, match=r"1 questions have more than one gold answer: a, b \(5 or 6\); list the wrong"
    ):
        evaluated(tmp_path, lines)
    assert evaluated(tmp_path, lines, drop={"b": "wrong"}) == ["a"]


@pytest.mark.parametrize(
    "other",
    [
        "What is 3 - 1?",
        "What is 31?",
        "What is 3 + 10?",
        "What is 3.1?",
        "What is 3 × 1?",
        "What is (3 + 1)?",
        "What is 3 + 1!?",
    ],
)
def test_questions_whose_numbers_or_signs_differ_are_two(other: str) -> None:
    rows: list[dict[str, Any]] = [
        {"id": question, "question": question, "gold": "1"} for question in ("What is 3 + 1?", other)
    ]
    assert repeated(rows) == []


def test_training_may_repeat_a_question(tmp_path: Path) -> None:
    line = '{"question": "2 + 3?", "answer": "#### 5"}'
    suite = files_source(tmp_path, [line, line], test=['{"question": "4 + 4?", "answer": "#### 8"}'])
    assert len(load(suite, "toy")[0]["train"]) == 2
