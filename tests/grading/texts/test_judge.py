"""The independent judge: what it learns, that it learns the same every time, and what it refuses to learn from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import write_jsonl
from grpo_cot.grading.texts.judge import Judge, load_judge

DULL = ["The lecture was dull", "A dull and slow course", "The exercises were not helpful", "Not helpful, and slow"]
GOOD = ["The lecture was lively", "A lively and helpful course", "The exercises were helpful", "Lively, and helpful"]
TEXTS, LABELS = [*DULL, *GOOD], ["negative"] * 4 + ["positive"] * 4


def test_words_and_pairs_of_words_decide() -> None:
    judge = Judge(TEXTS, LABELS)
    assert [judge.label(text) for text in ("So dull!", "SLOW exercises", "lively")] == [
        "negative", "negative", "positive"
    ]  # fmt: skip
    assert judge.label("The book is helpful") == "positive"
    assert judge.label("The book is not helpful") == "negative"  # the pair says it, which no single word does


def test_words_of_one_text_alone_decide_nothing() -> None:
    judge = Judge([*TEXTS, "The unicorn was dull"], [*LABELS, "negative"])
    assert judge.label("unicorn") == judge.label("") == judge.label("a word that nobody wrote") == "negative"
    judge = Judge([*TEXTS, "The unicorn was lively", "Lively"], [*LABELS, "negative", "positive"])
    assert judge.label("unicorn") == "positive"  # the most frequent class now


def test_words_are_those_of_any_script_in_either_composition() -> None:
    judge = Judge(["giảng chán", "bài chán", "giảng hay", "bài hay"], ["negative", "negative", "positive", "positive"])
    assert judge.label("chán") == judge.label("CHÁN!") == judge.label("cha\u0301n") == "negative"


def test_the_same_texts_give_the_same_judge_in_every_process() -> None:
    code = (
        "from grpo_cot.grading.texts.judge import Judge\n"
        f"judge = Judge({TEXTS!r}, {LABELS!r})\n"
        "texts = ['the dull and lively course', 'a slow lecture, helpful and lively', 'not a lively and helpful one']\n"
        "print([judge.label(text) for text in texts], "
        "[judge._classifier.prob_classify(judge._present([('the',), ('dull',), ('and',)])).prob('negative')])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def judge_rows(labels: list[str] = LABELS) -> list[dict[str, str]]:
    rows = zip(TEXTS, labels, strict=True)
    return [{"id": f"judge-{number}", "text": text, "label": label} for number, (text, label) in enumerate(rows)]


def test_the_judge_of_a_run_is_trained_on_its_own_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "eval-judge.jsonl", judge_rows())
    assert load_judge(tmp_path / "eval-judge.jsonl", {"The room was cold"}).label("dull") == "negative"


def test_a_judge_without_texts_with_one_class_or_trained_on_what_it_judges_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "eval-judge.jsonl"
    with pytest.raises(InputError, match=r"eval-judge.jsonl: no such file, .* as the split 'judge' in the source file"):
        load_judge(file, set())
    write_jsonl(file, judge_rows(["negative"] * len(TEXTS)))
    with pytest.raises(InputError, match="every row's label is 'negative', but a judge learns from texts of at least"):
        load_judge(file, set())
    write_jsonl(file, judge_rows())
    with pytest.raises(InputError, match=r"row judge-1 has a text that is evaluated on, too.*leave the split 'judge'"):
        load_judge(file, {"The room was cold", TEXTS[1]})
