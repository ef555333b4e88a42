"""Data sets without final answers: their rows whatever their source, and what is refused in one sentence."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from data.test_rows import pinned
from support import ROOT

from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.files import read_yaml
from grpo_cot.data.kinds import KINDS, read_any
from grpo_cot.data.rows import read_source
from grpo_cot.schema import strict_answer

CLASSES = {"negative": 0, "neutral": 1, "positive": 2}
COMMIT = "a" * 40
PIN = {"path": "train.jsonl", "sha256": "0" * 64}
TEXTS = [{"id": f"r{n}", "sentence": f"text number {n}", "sentiment": n % 3, "topic": n % 4} for n in range(12)]
OTHERS = [{"id": f"r{n}", "sentence": f"text number {n}", "sentiment": n % 3} for n in (20, 21, 22)]
COLUMNS = {"text": "sentence", "label": "sentiment", "id": "id"}
PAIRS = [{"id": n, "question": f"What is {n} + 1?", "chosen": str(n + 1), "rejected": str(n)} for n in range(6)]
SCORED = [
    {"id": row["id"], "prompt": row["question"], "chosen": row["chosen"], "rejected": row["rejected"],
     "chosen_score": 9.5, "rejected_score": 2}
    for row in PAIRS
]  # fmt: skip
SCORED_COLUMNS = {
    "question": "prompt", "id": "id", "chosen_score": "chosen_score", "rejected_score": "rejected_score"
}  # fmt: skip


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def source(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]], **extra: object) -> dict[str, Any]:
    splits = {name: pinned(folder, f"{name}.jsonl", lines(rows)) for name, rows in (("train", train), ("test", test))}
    return {"kind": "files", "folder": str(folder), "splits": splits, "licence": "MIT", **extra}


def read(content: dict[str, Any]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    kind = KINDS[content["rows"]]
    return kind.load(validated(kind.source, content, "toy.yaml"), "toy")


def texts(
    folder: Path, train: list[dict[str, Any]] = TEXTS[:6], test: list[dict[str, Any]] = TEXTS[6:], **extra: object
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    settings: dict[str, Any] = {"rows": "text", "columns": COLUMNS, "classes": CLASSES, **extra}
    return read(source(folder, train, test, **settings))


def preferences(
    folder: Path, train: list[dict[str, Any]] = PAIRS[:3], test: list[dict[str, Any]] = PAIRS[3:], **extra: object
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    settings: dict[str, Any] = {"rows": "preference", "columns": {"id": "id"}, **extra}
    return read(source(folder, train, test, **settings))


def test_texts_have_their_class_by_its_name(tmp_path: Path) -> None:
    splits, record = texts(tmp_path)
    assert splits["train"][:2] == [
        {"id": "r0", "text": "text number 0", "label": "negative"},
        {"id": "r1", "text": "text number 1", "label": "neutral"},
    ]
    assert record["rows"] == {"train": 6, "test": 6} and record["row_kind"] == "text"
    assert set(record["sha256"]) == {"train", "test"}


def test_labels_of_a_file_without_types_are_read_as_those_of_one_with(tmp_path: Path) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(TEXTS[0]))
    writer.writeheader()
    writer.writerows(TEXTS[6:])
    content = source(tmp_path, TEXTS[:6], TEXTS[6:], rows="text", columns=COLUMNS, classes=CLASSES)
    content["splits"]["test"] = pinned(tmp_path, "test.csv", table.getvalue())
    assert read(content)[0] == texts(tmp_path)[0]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"columns": COLUMNS | {"label": "sentimnt"}}, r"no column 'sentimnt', which columns.label names; did you"),
        ({"columns": COLUMNS | {"label": "topic"}}, r"row 4 \(id r3\): field 'topic' holds 3, which is no class; "),
        ({"columns": {"text": "topic", "label": "sentence"}}, r"holds 'text number 0' \(text\), which is no class"),
        ({"columns": COLUMNS | {"label": "id"}}, "'columns' names the column 'id' twice"),
        ({"columns": COLUMNS | {"text": "topic"}}, r"field 'topic' holds 0, expected text"),
        ({"classes": CLASSES | {"mixed": 3}}, r"none of the 6 rows of the split 'train' is mixed \(value 3\); take"),
        ({"classes": {"negative": 0, "positive": 2}}, r"row 2 \(id r1\): field 'sentiment' holds 1, which is no class"),
        ({"classes": {"negative": 0, "other": 0, "positive": 2}}, "two classes have the same value in the label"),
        ({"classes": {"negative": 0}}, "expected at least two classes"),
        ({"test": TEXTS[6:8]}, r"none of the 2 rows of the split 'test' is positive \(value 2\)"),
        ({"train": [TEXTS[0] | {"sentence": " "}]}, r"row 1 \(id r0\): field 'sentence' holds ' ', expected text"),
        ({"train": [*TEXTS[:6], TEXTS[5]]}, r"row 7 \(id r5\): the id occurs twice"),
        (
            {"test": [*TEXTS[6:], {"id": "x", "sentence": "Text  number 3!", "sentiment": 0}]},
            r"row r3 of 'train' has the same text as row x of 'test' \('text number 3'\), .* set 'repeats: drop'",
        ),
        (
            {"test": [*TEXTS[6:], TEXTS[6] | {"id": "x"}]},
            r"row x of 'test' has the same text as row r6 of 'test'",
        ),
        ({"drop": {"r99": "unreadable"}}, "'drop' names ids that do not occur: r99; the first row's is 'r0'"),
        ({"held_out": {"judge": {"rows": 6, "seed": 1}}}, "'judge' holds out 6 rows of 6 different training texts"),
        ({"held_out": {"test": {"rows": 1, "seed": 1}}}, "held_out.test"),
        ({"locale": "en"}, "unknown key 'locale'"),
        ({"splits": {"train": PIN, "test": PIN, "Test": PIN}}, "two splits are named 'test' but for capitals"),
    ],
)  # fmt: skip
def test_texts_that_cannot_be_meant_are_refused(tmp_path: Path, extra: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        texts(tmp_path, **extra)


def test_without_an_id_column_a_row_is_dropped_by_its_place(tmp_path: Path) -> None:
    columns = {"text": "sentence", "label": "sentiment"}
    splits, _ = texts(tmp_path, columns=columns, drop={"train-0": "unreadable", "train-3": "unreadable"},
                      train=TEXTS[:9], test=TEXTS[9:])  # fmt: skip
    assert [row["id"] for row in splits["train"]] == [f"train-{n}" for n in (1, 2, 4, 5, 6, 7, 8)]
    with pytest.raises(InputError, match=r"'drop' names 'r0', but rows without 'columns.id' are called SPLIT-POSITION"):
        texts(tmp_path, columns=columns, drop={"r0": "unreadable"})


def test_repeats_are_kept_in_one_split_the_test_split_first(tmp_path: Path) -> None:
    train = [*TEXTS[:9], TEXTS[0] | {"id": "again"}]
    test = [*TEXTS[9:], TEXTS[3] | {"id": "x"}, TEXTS[9] | {"id": "y"}]
    splits, record = texts(tmp_path, train=train, test=test, repeats="drop")
    assert [row["id"] for row in splits["test"]] == ["r9", "r10", "r11", "x"]
    assert [row["id"] for row in splits["train"]] == ["r0", "r1", "r2", "r4", "r5", "r6", "r7", "r8", "again"]
    assert record["repeats_left_out"] == {"test": 1, "train": 1}


def test_a_repeat_stays_with_the_judge_before_it_trains(tmp_path: Path) -> None:
    content = source(tmp_path, TEXTS, TEXTS[9:], rows="text", columns=COLUMNS, classes=CLASSES, repeats="drop")
    for split, rows in (("judge", TEXTS[3:]), ("validation", TEXTS[:6]), ("zeta", TEXTS[6:])):
        content["splits"][split] = pinned(tmp_path, f"{split}.jsonl", lines(rows))
    content["splits"]["train"] = pinned(tmp_path, "more.jsonl", lines([*TEXTS, *OTHERS]))
    ids = {split: [row["id"] for row in rows] for split, rows in read(content)[0].items()}
    assert ids == {
        "test": ["r9", "r10", "r11"], "zeta": ["r6", "r7", "r8"], "judge": ["r3", "r4", "r5"],
        "validation": ["r0", "r1", "r2"], "train": ["r20", "r21", "r22"],
    }  # fmt: skip


def test_rows_for_the_judge_are_drawn_apart_from_those_that_train(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "sentence": f"text number {n}", "sentiment": n % 3} for n in range(60)]
    held = {"judge": {"rows": 20, "seed": 1}, "validation": {"rows": 10, "seed": 1}}
    splits, record = texts(tmp_path, train=rows[:50], test=rows[50:], held_out=held)
    ids = {split: {row["id"] for row in part} for split, part in splits.items()}
    assert {split: len(part) for split, part in ids.items()} == {"train": 20, "test": 10, "judge": 20, "validation": 10}
    assert len(set.union(*ids.values())) == 60
    turned = dict(reversed(held.items()))
    assert splits == texts(tmp_path, train=rows[:50], test=rows[50:], held_out=turned)[0]
    assert record["held_out"] == held


def test_both_published_layouts_of_preferences_give_the_same_rows(tmp_path: Path) -> None:
    plain, _ = preferences(tmp_path)
    scored, _ = preferences(tmp_path, SCORED[:3], SCORED[3:], columns=SCORED_COLUMNS)
    assert plain["train"][1] == {
        "id": "1", "question": "What is 1 + 1?", "chosen": "2", "rejected": "1", "gold": None, "slip": None,
        "chosen_score": None, "rejected_score": None,
    }  # fmt: skip
    for split, rows in scored.items():
        assert {(row["chosen_score"], row["rejected_score"]) for row in rows} == {(9.5, 2.0)}
        unscored = [row | {"chosen_score": None, "rejected_score": None} for row in rows]
        assert unscored == plain[split]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"train": [PAIRS[0] | {"rejected": "1 "}]}, r"row 1 \(id 0\): 'chosen' and 'rejected' hold the same answer"),
        ({"train": [PAIRS[0] | {"chosen": ""}]}, r"row 1 \(id 0\): field 'chosen' holds '', expected text"),
        ({"train": [PAIRS[0] | {"question": None}]}, r"field 'question' holds None, expected text"),
        ({"columns": {"question": "prompt"}}, r"no column 'prompt', which columns.question names; expected one of"),
        ({"columns": {"chosen": "chosn"}}, r"which columns.chosen names; did you mean 'chosen'"),
        ({"columns": {"chosen": "rejected"}}, "'columns' names the column 'rejected' twice"),
        ({"columns": {"chosen_score": "id"}}, "names one of 'chosen_score' and 'rejected_score'"),
        ({"test": [*PAIRS[3:], PAIRS[0] | {"id": 9}]}, r"row 0 of 'train' has the same question as row 9 of 'test'"),
        ({"classes": CLASSES}, "unknown key 'classes'"),
    ],
)  # fmt: skip
def test_preferences_that_cannot_be_meant_are_refused(tmp_path: Path, extra: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        preferences(tmp_path, **extra)


def test_scores_say_when_the_two_answers_are_exchanged(tmp_path: Path) -> None:
    exchanged = SCORED_COLUMNS | {"chosen": "rejected", "rejected": "chosen"}
    exchanged |= {"chosen_score": "rejected_score", "rejected_score": "chosen_score"}
    with pytest.raises(InputError, match="in 6 of 6 rows the rejected answer has the higher score"):
        preferences(tmp_path, SCORED[:3], SCORED[3:], columns=exchanged)
    for wrong in ("high", None, True, "nan"):
        with pytest.raises(InputError, match=r"row 1 \(id 0\): field 'chosen_score' holds .*, expected a number"):
            preferences(tmp_path, [SCORED[0] | {"chosen_score": wrong}], SCORED[3:], columns=SCORED_COLUMNS)


def test_one_question_may_have_several_pairs_in_training_alone(tmp_path: Path) -> None:
    another = PAIRS[0] | {"id": 9, "rejected": "7"}
    assert len(preferences(tmp_path, train=[*PAIRS[:3], another])[0]["train"]) == 4
    with pytest.raises(InputError, match="row 9 of 'test' has the same question as row 0 of 'test'"):
        preferences(tmp_path, train=PAIRS[3:], test=[*PAIRS[:3], another])


def test_questions_with_other_signs_are_others_and_texts_of_signs_alone_are_compared(tmp_path: Path) -> None:
    test = [PAIRS[3] | {"id": n, "question": f"What is 3 {sign} 1?"} for n, sign in enumerate("+-*")]
    assert len(preferences(tmp_path, train=PAIRS[:2], test=test)[0]["test"]) == 3
    signs = [{"id": sign, "sentence": sign, "sentiment": n} for n, sign in enumerate((":)", ":(", "..."))]
    assert len(texts(tmp_path, train=TEXTS, test=signs)[0]["test"]) == 3
    with pytest.raises(InputError, match="row again of 'test' has the same text as row "):
        texts(tmp_path, train=TEXTS, test=[*signs, signs[0] | {"id": "again"}])


def test_generated_sentences_have_a_split_for_the_judge() -> None:
    splits, record = read(
        {"rows": "text", "kind": "generator", "seed": 7, "licence": "MIT",
         "splits": {"train": 300, "validation": 50, "judge": 300, "test": 100}}
    )  # fmt: skip
    assert {split: len(rows) for split, rows in splits.items()} == record["rows"] == {
        "train": 300, "validation": 50, "judge": 300, "test": 100
    }  # fmt: skip
    assert len({row["text"] for rows in splits.values() for row in rows}) == 750
    assert splits["test"][0].keys() == {"id", "text", "label"} and splits["judge"][0]["id"] == "judge-0"


def test_generated_preferences_are_completions_of_the_schema() -> None:
    content = {"rows": "preference", "kind": "generator", "seed": 7, "licence": "MIT"}
    splits, _ = read(content | {"splits": {"train": 200, "test": 50}})
    for row in splits["train"] + splits["test"]:
        assert strict_answer(row["chosen"]) == row["gold"] != strict_answer(row["rejected"])
        assert row["slip"] and row["chosen_score"] is None


def test_more_rows_than_there_are_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpo_cot.data.texts.sentences", lambda split, seed: repeated(split))
    content = {"rows": "text", "kind": "generator", "seed": 7, "licence": "MIT", "splits": {"train": 3, "test": 3}}
    with pytest.raises(InputError, match="fewer than 3 different rows for the split 'train'; lower its number"):
        read(content)


def repeated(split: str) -> Any:
    from grpo_cot.data.generated.feedback import sentences

    two = [next(sentences("train", seed)) for seed in (1, 2)]
    while True:
        yield from two


def test_a_data_set_on_the_hub_is_read_in_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads a folder by the same call as an id on the Hub."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/train.jsonl").write_text(lines(TEXTS))
    content = {
        "rows": "text", "kind": "hub", "id": "owner/rows", "revision": COMMIT, "licence": "unknown",
        "splits": {"train": "train[:6]", "test": "train[6:]"}, "columns": COLUMNS, "classes": CLASSES,
    }  # fmt: skip
    kind = KINDS["text"]
    suite = validated(kind.source, content, "toy.yaml").model_copy(update={"id": str(tmp_path / "rows")})
    assert kind.load(suite, "toy")[0] == texts(tmp_path)[0]


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"train": "train", "test": "train"}, "splits.test: its rows are those of 'train', all of them"),
        ({"train": "train", "judge": "train[90%:]", "test": "test"}, "splits.judge: some of its rows are rows of 'tr"),
        ({"train": "train", "judge": "test[:10%]", "test": "test"}, "some of its rows are rows of 'judge', too"),
    ],
)
def test_make_check_sees_the_rows_of_the_hub_that_two_splits_share(
    tmp_path: Path, splits: dict[str, str], says: str
) -> None:
    kind = KINDS["text"]
    content = {
        "rows": "text", "kind": "hub", "id": "owner/rows", "revision": COMMIT, "licence": "MIT", "classes": CLASSES
    }  # fmt: skip
    apart = {"train": "train[:90%]", "judge": "train[90%:]", "test": "test"}
    kind.examine(validated(kind.source, content | {"splits": apart}, "toy.yaml"), Path("toy.yaml"), tmp_path, False)
    with pytest.raises(InputError, match=rf"toy.yaml: splits.*{says[8:]}"):
        kind.examine(
            validated(kind.source, content | {"splits": splits}, "toy.yaml"), Path("toy.yaml"), tmp_path, False
        )


def test_make_check_reads_local_files(tmp_path: Path) -> None:
    kind = KINDS["preference"]
    same = [PAIRS[0] | {"rejected": "1"}]
    content = source(tmp_path, same, PAIRS[3:], rows="preference") | {"folder": "."}
    with pytest.raises(InputError, match=r"toy.yaml: train.jsonl: row 1 .* hold the same answer"):
        kind.examine(validated(kind.source, content, "toy.yaml"), Path("toy.yaml"), tmp_path, False)


def test_a_kind_of_rows_that_there_is_not_is_refused(tmp_path: Path) -> None:
    for name in ("texts", "3", "null", "[text]"):
        (tmp_path / "toy.yaml").write_text(f"rows: {name}\nkind: generator\n")
        with pytest.raises(InputError, match=r"toy.yaml: rows is .*, expected one of: text, preference; take it out"):
            read_any(tmp_path / "toy.yaml")


def test_a_run_cannot_take_rows_without_final_answers() -> None:
    with pytest.raises(InputError, match=r"feedback.yaml: rows is 'text' \(text\), but the phases of a recipe learn"):
        read_source(ROOT / "sources/datasets/feedback.yaml")


def test_every_data_set_of_the_repository_is_of_one_kind() -> None:
    kinds = {path.stem: read_any(path)[0] for path in (ROOT / "sources/datasets").glob("*.yaml")}
    assert kinds["generated"] == KINDS[None] and kinds["generated-preferences"] == KINDS["preference"]
    assert kinds["feedback"] == kinds["uit-vsfc"] == KINDS["text"]
    assert len(read_yaml(ROOT / "sources/datasets/uit-vsfc.yaml")["revision"]) == 40
