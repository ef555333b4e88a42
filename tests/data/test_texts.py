"""Data sets of labelled texts: their rows whatever their source, where a beginning ends, and what is refused."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from data.test_rows import pinned
from support import ROOT

from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.files import Row
from grpo_cot.data.kinds import KINDS, read_any
from grpo_cot.data.overlap import overlaps, refuse_leaks, repeated
from grpo_cot.data.texts import beginning
from grpo_cot.memory.plan import training_rows
from grpo_cot.schema import whole_text

COMMIT = "a" * 40
KIND = KINDS["text"]
CLASSES = {"0": "negative", "1": "neutral", "2": "positive"}
ROWS = [
    {"key": f"s{n}", "sentence": f"The lecture in room {n} was  {word}\n", "mood": n % 3}
    for n, word in enumerate(("dull", "long", "great") * 8)
]
COLUMNS = {"text": "sentence", "label": "mood", "id": "key"}
SETTINGS: dict[str, Any] = {
    "rows": "text", "licence": "MIT", "wanted": "negative", "words": [2, 4], "classes": CLASSES, "columns": COLUMNS
}  # fmt: skip
PARTS = {"train": ROWS[:12], "judge": ROWS[12:18], "test": ROWS[18:]}
GENERATED = {
    "rows": "text", "kind": "generator", "texts": "feedback", "seed": 7, "licence": "MIT", "wanted": "negative",
    "words": [2, 4],
}  # fmt: skip


def read(content: dict[str, Any]) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    return KIND.load(validated(KIND.source, content, "toy.yaml"), "toy")


def texts(folder: Path, parts: dict[str, list[Row]] = PARTS, **extra: object) -> dict[str, list[Row]]:
    splits = {
        name: pinned(folder, f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        for name, rows in parts.items()
    }
    return read(SETTINGS | {"kind": "files", "folder": str(folder), "splits": splits} | extra)[0]


def test_a_row_has_the_whole_text_its_beginning_and_both_classes(tmp_path: Path) -> None:
    splits = texts(tmp_path, words=[3, 3])
    assert splits["train"][0] == {
        "id": "s0", "question": "The lecture in", "text": "The lecture in room 0 was dull", "label": "negative",
        "wanted": "negative", "gold": None, "solution": None, "locale": "en",
    }  # fmt: skip
    assert [row["label"] for row in splits["test"]] == ["negative", "neutral", "positive"] * 2
    assert {row["wanted"] for rows in splits.values() for row in rows} == {"negative"}


@pytest.mark.parametrize("words", [[1, 1], [2, 4], [7, 9]])
def test_a_beginning_and_the_rest_are_the_text(words: list[int]) -> None:
    for text in ("Good.", "Too fast.", "One two three.", "The slides were hard to read, and the exam was long."):
        first = beginning(text, words)
        rest = text[len(first) :]
        count, total = len(first.split()), len(text.split())
        assert min(words[0], max(1, total - 1)) <= count <= words[1] and (count < total or total == 1)
        assert not rest if total == 1 else rest.startswith(" ")
        assert whole_text([{"role": "user", "content": first}], rest) == text
        assert beginning(text, words) == first


def test_beginnings_differ_in_length() -> None:
    counts = {len(beginning(f"The lecture in room {n} was long.", [2, 4]).split()) for n in range(40)}
    assert counts == {2, 3, 4}


def test_labels_are_read_alike_from_files_with_types_and_without(tmp_path: Path) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(ROWS[0]))
    writer.writeheader()
    writer.writerows(ROWS[:12])
    typed = texts(tmp_path)
    files = {name: pinned(tmp_path, f"{name}.jsonl", (tmp_path / f"{name}.jsonl").read_text()) for name in PARTS}
    files["train"] = pinned(tmp_path, "train.csv", table.getvalue())
    unquoted = {int(value): name for value, name in CLASSES.items()}  # as YAML reads `0: negative`
    content = SETTINGS | {"kind": "files", "folder": str(tmp_path), "splits": files, "classes": unquoted}
    assert read(content)[0] == typed


def test_the_judge_has_rows_of_its_own_named_or_held_out(tmp_path: Path) -> None:
    parts = {"train": ROWS[:18], "test": ROWS[18:]}
    splits = texts(tmp_path, parts, judge={"rows": 6, "seed": 1}, validation={"rows": 3, "seed": 1})
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 9, "judge": 6, "validation": 3, "test": 6}
    assert len({row["text"] for rows in splits.values() for row in rows}) == len(ROWS)
    source = validated(
        KIND.source, GENERATED | {"splits": {"train": 9, "validation": 3, "judge": 6, "test": 6}}, "toy.yaml"
    )
    assert set(KIND.evaluation_sets(source)) == {"validation", "judge", "test"}


def test_the_plan_counts_the_training_rows_that_are_left(tmp_path: Path) -> None:
    splits = {
        name: pinned(tmp_path, f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        for name, rows in (("train", ROWS[:18]), ("test", ROWS[18:]))
    }
    content = SETTINGS | {"kind": "files", "folder": str(tmp_path), "splits": splits, "judge": {"rows": 6, "seed": 1}}
    left = content | {"validation": {"rows": 3, "seed": 1}, "drop": {"s0": "unreadable"}}
    rows = training_rows(validated(KIND.source, left, "toy.yaml"), tmp_path / "data")
    assert rows.count == len(read(left)[0]["train"]) == 8
    assert "3 held out for validation, 6 held out for judge" in str(rows)


@pytest.mark.parametrize(
    ("parts", "extra", "says"),
    [
        ({}, {"columns": {"text": "sentence", "label": "x"}}, "no column 'x', which .* expected one of: key, mood, se"),
        ({"test": [ROWS[18] | {"mood": 3}]}, {}, r"row 1 \(id s18\): field 'mood' holds 3, .* names: 0, 1, 2"),
        ({"test": [ROWS[18] | {"mood": None}]}, {}, r"row 1 \(id s18\): field 'mood' holds None, expected a value"),
        ({"test": [ROWS[18] | {"sentence": " \n"}]}, {}, r"row 1 \(id s18\): field 'sentence' holds .*, expected text"),
        ({"train": ROWS[:2]}, {}, "no row of the split 'train' has the class 'positive', which the reward model could"),
        ({"judge": ROWS[12:14]}, {}, "no row of the split 'judge' has the class 'positive', which the independent"),
        ({}, {"wanted": "0"}, "'wanted' is '0', which is no class; expected one of: negative, neutral, positive"),
        ({}, {"words": [4, 2]}, "expected the smaller number of words first"),
        ({}, {"judge": {"rows": 2, "seed": 1}}, "'judge' holds rows out, and 'splits' names a split 'judge'; give one"),
        ({"judge": ROWS[11:18]}, {}, "row s11 of 'train' has the same text as row .* of 'judge'"),
        ({"judge": [*ROWS[12:18], ROWS[20] | {"key": "x"}]}, {}, "row x of 'judge' has the same text as row s20 of 't"),
        ({"test": [*ROWS[18:], ROWS[18] | {"key": "x"}]}, {}, "row x of 'test' has the same text as row s18 of 'test'"),
    ],
)  # fmt: skip
def test_texts_that_cannot_be_meant_are_refused(
    tmp_path: Path, parts: dict[str, list[Row]], extra: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        texts(tmp_path, PARTS | parts, **extra)


def test_a_data_set_without_texts_for_the_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no texts are for the independent judge: name a split 'judge'.*or hold"):
        texts(tmp_path, {"train": ROWS[:18], "test": ROWS[18:]})
    with pytest.raises(InputError, match="'splits' lacks judge"):
        read(GENERATED | {"splits": {"train": 9, "test": 6}})


def test_a_text_of_two_splits_is_kept_in_the_first_of_test_judge_and_train(tmp_path: Path) -> None:
    parts = {
        "train": [*ROWS[:12], ROWS[0] | {"key": "again"}, ROWS[13] | {"key": "x"}, ROWS[20] | {"key": "y"}],
        "judge": [*ROWS[12:18], ROWS[20] | {"key": "z"}, ROWS[12] | {"key": "again"}],
        "test": ROWS[18:],
    }
    splits = texts(tmp_path, parts, repeats="drop")
    assert [row["id"] for row in splits["train"]] == [*(f"s{n}" for n in range(12)), "again"]
    assert [row["id"] for row in splits["judge"]] == [*(f"s{n}" for n in range(12, 18)), "again"]
    assert [row["id"] for row in splits["test"]] == [f"s{n}" for n in range(18, 24)]


def test_a_data_set_on_the_hub_is_read_in_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads a folder by the same call as an id on the Hub."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    splits = {"train": "train[:12]", "judge": "train[12:18]", "test": "train[18:]"}
    content = SETTINGS | {"kind": "hub", "id": "owner/rows", "revision": COMMIT, "splits": splits}
    source = validated(KIND.source, content, "toy.yaml").model_copy(update={"id": str(tmp_path / "rows")})
    assert KIND.load(source, "toy")[0] == texts(tmp_path)


def row(split: str, text: str) -> Row:
    return {"id": f"{split}-{text}", "question": "The", "text": text, "gold": None}


def test_texts_are_the_same_by_the_whole_and_not_by_their_beginnings() -> None:
    splits = {
        split: [row(split, text) for text in found]
        for split, found in {"train": ["The end.", ":)"], "judge": ["The exam."], "test": ["The room.", ":("]}.items()
    }
    assert repeated(splits["train"] + splits["test"]) == []
    refuse_leaks(overlaps(splits), Path("data/toy"))
    assert not overlaps(splits)["test"].near_train
    for split, says in (("train", "training split"), ("judge", "split 'judge', from which the judge learns")):
        leaking = {**splits, split: [*splits[split], row(split, "the room")]}
        with pytest.raises(InputError, match=f"1 .* of the evaluation set 'test' are also in the {says}"):
            refuse_leaks(overlaps(leaking), Path("data/toy"))


def test_questions_may_be_in_an_evaluation_set_that_is_named_judge() -> None:
    """Only texts have a judge."""
    splits = {name: [{"id": name, "question": f"{text}?"}] for name, text in (("train", 1), ("judge", 2), ("test", 2))}
    refuse_leaks(overlaps(splits), Path("data/toy"))
    assert overlaps(splits)["test"].also_in == {"judge": 1}


def test_the_data_set_of_the_repository_has_all_splits_and_shares_no_text() -> None:
    kind, source = read_any(ROOT / "sources/datasets/generated-feedback.yaml")
    splits, record = kind.load(source, "generated-feedback")
    assert record["rows"] == {"train": 6000, "validation": 300, "judge": 3000, "test": 500}
    assert record["row_kind"] == "text" and record["wanted"] == "negative"
    refuse_leaks(overlaps(splits), Path("data"))
    for rows in splits.values():
        labels = [row["label"] for row in rows]
        assert min(labels.count(label) for label in CLASSES.values()) > 0.27 * len(rows)
        assert all(2 <= len(row["question"].split()) <= 4 for row in rows)


def test_the_source_file_in_the_documentation_is_one(tmp_path: Path) -> None:
    """No commit of the Hub's rows is known here: the reader writes it."""
    page = (ROOT / "docs/experiments.md").read_text()
    block = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.S) if "rows: text" in block)
    (tmp_path / "uit-vsfc.yaml").write_text(block.replace("COMMIT", COMMIT))
    kind, source = read_any(tmp_path / "uit-vsfc.yaml")
    assert kind == KIND and source.class_names() == list(CLASSES.values()) and source.locale == "vi"
