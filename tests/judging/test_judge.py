"""The independent judge: right on phrasings that it never saw, the same everywhere, and no judge of its own rows."""

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from grpo_cot.common.errors import InputError
from grpo_cot.data.generated.feedback import FeedbackSplit, sentences
from grpo_cot.judging.judge import SMOOTHING, Judge, load_judge, save_judge, train_judge

ROWS = [
    {"id": "a", "text": "good good room", "label": "positive"},
    {"id": "b", "text": "good room", "label": "positive"},
    {"id": "c", "text": "bad room", "label": "negative"},
]


def feedback(split: FeedbackSplit, count: int) -> list[dict[str, Any]]:
    drawn = itertools.islice(sentences(split, 11), count)
    return [{"id": f"{split}-{n}", "text": row.text, "label": row.label} for n, row in enumerate(drawn)]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return train_judge(feedback("judge", 8000), {})


def test_probabilities_of_a_small_judge_worked_by_hand() -> None:
    """Two rows or more show good, room, and good room; the class positive has 6 of these, negative 1."""
    judge = train_judge(ROWS, {})
    assert judge.classes == {"negative": 1, "positive": 2}
    assert judge.ngrams == {"good": [0, 2], "good room": [0, 2], "room": [1, 2]}
    a = SMOOTHING
    negative = 1 * (0 + a) / (1 + 3 * a)
    positive = 2 * (2 + a) / (6 + 3 * a)
    assert judge.probabilities("Good food!")["positive"] == pytest.approx(positive / (negative + positive))
    assert judge.probabilities("nothing known") == pytest.approx({"negative": 1 / 3, "positive": 2 / 3})
    assert judge.verdicts(["good", "room, and no more", " ?! ", ""]) == ["positive", "negative", None, None]


def test_it_is_the_naive_bayes_of_scikit_learn(judge: Judge) -> None:
    rows, unseen = feedback("judge", 8000), [row["text"] for row in feedback("test", 300)]
    vectors = CountVectorizer(ngram_range=(1, 3), binary=True, token_pattern=r"[^\W_]+", min_df=2)
    oracle = MultinomialNB(alpha=SMOOTHING)
    oracle.fit(vectors.fit_transform([row["text"] for row in rows]), [row["label"] for row in rows])
    assert set(vectors.get_feature_names_out()) == judge.ngrams.keys()
    for text, expected in zip(unseen, oracle.predict_proba(vectors.transform(unseen)), strict=True):
        assert judge.probabilities(text) == pytest.approx(dict(zip(oracle.classes_, expected, strict=True)), rel=1e-6)


def test_it_judges_phrasings_that_it_never_saw_and_not_by_words_alone(judge: Judge) -> None:
    rows = feedback("test", 1500)
    verdicts = judge.of_rows(rows, "test")
    right = sum(row["label"] == verdict for row, verdict in zip(rows, verdicts, strict=True)) / len(rows)
    words_alone = judge.model_copy(update={"longest": 1})
    by_words = sum(
        row["label"] == verdict for row, verdict in zip(rows, words_alone.of_rows(rows, "test"), strict=True)
    ) / len(rows)
    assert right > 0.85 and by_words < 0.75


def test_the_same_rows_give_the_same_bytes_in_whatever_order(tmp_path: Path) -> None:
    rows = feedback("judge", 300)
    save_judge(train_judge(rows, {}), tmp_path / "one.json")
    save_judge(train_judge(rows[::-1], {}), tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert load_judge(tmp_path / "one.json") == train_judge(rows, {})
    assert not re.search(r"\d\.\d{4}", (tmp_path / "one.json").read_text())  # counts, whose rounding is nobody's


def test_it_refuses_rows_that_it_was_trained_on(judge: Judge, tmp_path: Path) -> None:
    rows = feedback("test", 20)
    again = {"id": "again", "text": f"{feedback('judge', 1)[0]['text'].upper()}!", "label": "neutral"}
    says = r"eval-test: the judge was trained on 1 of these 21 rows \(again first\), .*; train it on another split"
    with pytest.raises(InputError, match=says):
        judge.of_rows([*rows, again], "eval-test")
    save_judge(judge, tmp_path / "judge.json")
    with pytest.raises(InputError, match=says):
        load_judge(tmp_path / "judge.json").of_rows([*rows, again], "eval-test")
    assert judge.verdicts([again["text"]])  # a model may well write it


def test_it_refuses_to_learn_from_rows_of_another_split() -> None:
    with pytest.raises(InputError, match="row c of the judge's rows has the text of row x of the split 'train', but a"):
        train_judge(ROWS, {"test": [], "train": [{"id": "x", "text": "Bad room."}]})


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (ROWS[:2], r"the judge's rows have 1 class \(positive\), expected at least two"),
        ([ROWS[0] | {"text": "one"}, ROWS[2] | {"text": "two"}], "no word of the judge's 2 rows is in two of them"),
    ],
)
def test_rows_that_teach_nothing_are_refused(rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        train_judge(rows, {})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "transformer"}, r"kind: input should be 'naive Bayes on word n-grams', found 'transformer'"),
        ({"ngrams": {"good": [1]}}, "ngrams.good"),
        ({"ngrams": {"good": [1, 2, 3]}}, r"the n-gram 'good' has not one count for each of the 2 classes"),
        ({"classes": {"positive": 2, "negative": 0}}, "classes.negative: input should be greater than 0"),
    ],
)
def test_a_file_that_is_no_judge_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    content = train_judge(ROWS, {}).model_dump() | change
    (tmp_path / "judge.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"judge.json: {says}"):
        load_judge(tmp_path / "judge.json")


def test_words_of_any_script_count() -> None:
    rows = [
        {"id": n, "text": text, "label": label}
        for n, (text, label) in enumerate(
            [("thầy nhiệt tình", "positive"), ("cô rất nhiệt tình", "positive"), ("thầy khó hiểu", "negative"),
             ("bài giảng khó hiểu", "negative")]
        )
    ]  # fmt: skip
    judge = train_judge(rows, {})
    assert judge.verdicts(["môn này khó hiểu", "Thầy nhiệt tình"]) == ["negative", "positive"]
    assert math.isclose(sum(judge.probabilities("khó").values()), 1)
