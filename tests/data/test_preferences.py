"""Data sets of preferences: their rows whatever their source, and what is refused in one sentence."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from data.test_rows import pinned
from support import ROOT

from grpo_cot.common.errors import InputError, validated
from grpo_cot.data.kinds import KINDS, read_any
from grpo_cot.schema import strict_answer

COMMIT = "a" * 40
PAIRS = [
    {"id": n, "question": f"What is {n} + 1?", "chosen": str(n + 1), "rejected": str(n), "value": n + 1}
    for n in range(12)
]  # fmt: skip
SCORED = [
    {"id": row["id"], "prompt": row["question"], "chosen": row["chosen"], "rejected": row["rejected"],
     "chosen_score": 9.5, "rejected_score": 2}
    for row in PAIRS
]  # fmt: skip
COLUMNS = {"id": "id", "gold": "value"}
SCORED_COLUMNS = {
    "question": "prompt", "id": "id", "chosen_score": "chosen_score", "rejected_score": "rejected_score"
}  # fmt: skip
KIND = KINDS["preference"]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def source(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]], **extra: object) -> dict[str, Any]:
    splits = {name: pinned(folder, f"{name}.jsonl", lines(rows)) for name, rows in (("train", train), ("test", test))}
    return {"rows": "preference", "kind": "files", "folder": str(folder), "splits": splits, "licence": "MIT", **extra}


def read(content: dict[str, Any]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    return KIND.load(validated(KIND.source, content, "toy.yaml"), "toy")


def preferences(
    folder: Path, train: list[dict[str, Any]] = PAIRS[:6], test: list[dict[str, Any]] = PAIRS[6:], **extra: object
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    settings: dict[str, Any] = {"columns": COLUMNS, **extra}
    return read(source(folder, train, test, **settings))


def test_both_published_layouts_give_the_same_rows(tmp_path: Path) -> None:
    plain, record = preferences(tmp_path, columns={"id": "id"})
    scored, _ = preferences(tmp_path, SCORED[:6], SCORED[6:], columns=SCORED_COLUMNS)
    assert plain["train"][1] == {
        "id": "1", "question": "What is 1 + 1?", "chosen": "2", "rejected": "1", "gold": None, "slip": None,
        "chosen_score": None, "rejected_score": None, "locale": "en",
    }  # fmt: skip
    for split, rows in scored.items():
        assert {(row["chosen_score"], row["rejected_score"]) for row in rows} == {(9.5, 2.0)}
        unscored = [row | {"chosen_score": None, "rejected_score": None} for row in rows]
        assert unscored == plain[split]
    assert record["rows"] == {"train": 6, "test": 6} and set(record["sha256"]) == {"train", "test"}
    assert record["sets"]["test"]["rows"] == 6 and record["sets"]["test"]["licence"]["id"] == "mit"


def test_final_answers_are_read_in_the_notation_of_the_data_set(tmp_path: Path) -> None:
    train = [*PAIRS[:6], PAIRS[5] | {"id": 99, "question": "A pair?", "value": "70.000"}]
    assert preferences(tmp_path, train=train, locale="vi")[0]["train"][-1]["gold"] == "70000"
    with pytest.raises(InputError, match=r"row 1 \(id 0\): field 'value': holds 'one', expected one number"):
        preferences(tmp_path, train=[PAIRS[0] | {"value": "one"}])


def test_a_file_without_types_is_read_as_one_with(tmp_path: Path) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(PAIRS[0]))
    writer.writeheader()
    writer.writerows(PAIRS[6:])
    content = source(tmp_path, PAIRS[:6], PAIRS[6:], columns=COLUMNS)
    content["splits"]["test"] = pinned(tmp_path, "test.csv", table.getvalue())
    assert read(content)[0] == preferences(tmp_path)[0]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"train": [PAIRS[0] | {"rejected": "1 "}]}, r"row 1 \(id 0\): 'chosen' and 'rejected' hold the same answer"),
        ({"train": [PAIRS[0] | {"chosen": ""}]}, r"row 1 \(id 0\): field 'chosen' holds '', expected text"),
        ({"train": [PAIRS[0] | {"question": None}]}, r"field 'question' holds None, expected text"),
        ({"train": [*PAIRS[:6], PAIRS[5]]}, r"row 7 \(id 5\): the id occurs twice"),
        ({"columns": {"question": "prompt"}}, r"no column 'prompt', which columns.question names; expected one of"),
        ({"columns": {"chosen": "chosn"}}, r"which columns.chosen names; did you mean 'chosen'"),
        ({"columns": {"chosen": "rejected"}}, "'columns' names the column 'rejected' twice"),
        ({"columns": {"chosen_score": "id"}}, "names one of 'chosen_score' and 'rejected_score'"),
        ({"test": [*PAIRS[6:], PAIRS[0] | {"id": 99}]}, r"row 0 of 'train' has the same question as row 99 of 'test'"),
        ({"test": [*PAIRS[6:], PAIRS[6] | {"id": "x"}]}, r"row x of 'test' has the same question as row 6 of 'test'"),
        ({"drop": {"99": "unreadable"}}, "'drop' names ids that do not occur: 99; the first row's is '0'"),
        ({"validation": {"rows": 6, "seed": 1}}, "'validation' holds out 6 rows of 6 different training questions"),
        ({"classes": {"good": 1}}, "unknown key 'classes'"),
    ],
)  # fmt: skip
def test_preferences_that_cannot_be_meant_are_refused(tmp_path: Path, extra: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        preferences(tmp_path, **extra)


def test_scores_say_when_the_two_answers_are_exchanged(tmp_path: Path) -> None:
    exchanged = SCORED_COLUMNS | {"chosen": "rejected", "rejected": "chosen"}
    exchanged |= {"chosen_score": "rejected_score", "rejected_score": "chosen_score"}
    with pytest.raises(InputError, match="in 6 of 6 rows the rejected answer has the higher score"):
        preferences(tmp_path, SCORED[:3], SCORED[3:6], columns=exchanged)
    for wrong in ("high", None, True, "nan"):
        with pytest.raises(InputError, match=r"row 1 \(id 0\): field 'chosen_score' holds .*, expected a number"):
            preferences(tmp_path, [SCORED[0] | {"chosen_score": wrong}], SCORED[3:], columns=SCORED_COLUMNS)


def test_without_an_id_column_a_row_is_dropped_by_its_place(tmp_path: Path) -> None:
    splits, _ = preferences(tmp_path, columns={}, drop={"train-0": "unreadable", "train-3": "unreadable"})
    assert [row["id"] for row in splits["train"]] == [f"train-{n}" for n in (1, 2, 4, 5)]
    with pytest.raises(InputError, match=r"'drop' names 'r0', but rows without 'columns.id' are called SPLIT-POSITION"):
        preferences(tmp_path, columns={}, drop={"r0": "unreadable"})


def test_one_question_may_have_several_pairs_in_training_alone(tmp_path: Path) -> None:
    another = PAIRS[0] | {"id": 99, "rejected": "7"}
    assert len(preferences(tmp_path, train=[*PAIRS[:3], another])[0]["train"]) == 4
    with pytest.raises(InputError, match="row 99 of 'test' has the same question as row 0 of 'test'"):
        preferences(tmp_path, train=PAIRS[3:], test=[*PAIRS[:3], another])


def test_repeats_are_kept_in_one_split_the_test_split_first(tmp_path: Path) -> None:
    train = [*PAIRS[:9], PAIRS[0] | {"id": "again"}]
    test = [*PAIRS[9:], PAIRS[3] | {"id": "x"}, PAIRS[9] | {"id": "y"}]
    splits, record = preferences(tmp_path, train=train, test=test, repeats="drop")
    assert [row["id"] for row in splits["test"]] == ["9", "10", "11", "x"]
    assert [row["id"] for row in splits["train"]] == ["0", "1", "2", "4", "5", "6", "7", "8", "again"]
    assert record["repeats_left_out"] == {"test": 1, "train": 1}


def test_every_row_has_every_column(tmp_path: Path) -> None:
    short = {name: value for name, value in PAIRS[1].items() if name != "value"}
    with pytest.raises(InputError, match=r"train.jsonl: row 2: there is no column 'value', which columns.gold names"):
        preferences(tmp_path, train=[PAIRS[0], short])


def test_between_splits_letters_and_digits_decide_as_in_the_step_prepare(tmp_path: Path) -> None:
    test = [PAIRS[6] | {"question": "What is 31?"}]
    train = [PAIRS[0] | {"question": "What is 3 + 1?"}, PAIRS[1]]
    with pytest.raises(InputError, match="row 0 of 'train' has the same question as row 6 of 'test'"):
        preferences(tmp_path, train=train, test=test)
    splits, _ = preferences(tmp_path, train=train, test=test, repeats="drop")
    assert [row["id"] for row in splits["train"]] == ["1"]


def test_questions_with_other_signs_are_others(tmp_path: Path) -> None:
    test = [PAIRS[3] | {"id": n, "question": f"What is 3 {sign} 1?"} for n, sign in enumerate("+-*")]
    assert len(preferences(tmp_path, train=PAIRS[:2], test=test, columns={})[0]["test"]) == 3


def test_validation_rows_are_held_out_of_training(tmp_path: Path) -> None:
    splits, record = preferences(tmp_path, validation={"rows": 2, "seed": 1})
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 4, "test": 6, "validation": 2}
    assert record["sets"]["validation"]["rows"] == 2
    assert not {row["id"] for row in splits["train"]} & {row["id"] for row in splits["validation"]}


def test_generated_preferences_are_completions_of_the_schema() -> None:
    content = {"rows": "preference", "kind": "generator", "seed": 7, "licence": "MIT"}
    splits, record = read(content | {"splits": {"train": 200, "validation": 20, "test": 50}})
    for row in splits["train"] + splits["test"]:
        assert strict_answer(row["chosen"]) == row["gold"] != strict_answer(row["rejected"])
        assert row["slip"] and row["chosen_score"] is None
    assert record["row_kind"] == "preference" and record["seed"] == 7 and set(record["sets"]) == {"validation", "test"}


def test_more_rows_than_there_are_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.data.generated.slips import pairs

    two = [next(pairs("basic", "train", seed)) for seed in (1, 2)]
    monkeypatch.setattr("grpo_cot.data.preferences.pairs", lambda *_: iter(two * 2000))
    content = {"rows": "preference", "kind": "generator", "seed": 7, "licence": "MIT"}
    with pytest.raises(InputError, match="fewer than 3 different rows for the split 'train'; lower its number"):
        read(content | {"splits": {"train": 3, "test": 3}})


def test_a_data_set_on_the_hub_is_read_in_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads a folder by the same call as an id on the Hub."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/train.jsonl").write_text(lines(PAIRS))
    content = {
        "rows": "preference", "kind": "hub", "id": "owner/rows", "revision": COMMIT, "licence": "MIT",
        "splits": {"train": "train[:6]", "test": "train[6:]"}, "columns": COLUMNS,
    }  # fmt: skip
    suite = validated(KIND.source, content, "toy.yaml").model_copy(update={"id": str(tmp_path / "rows")})
    assert KIND.load(suite, "toy")[0] == preferences(tmp_path)[0]


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"train": "train", "test": "train"}, "splits.test: its rows are those of 'train', all of them"),
        ({"train": "train", "more": "train[90%:]", "test": "test"}, "splits.more: some of its rows are rows of 'tr"),
        ({"train": "train", "validation": "test[:10%]", "test": "test"}, "some of its rows are rows of 'validation'"),
    ],
)
def test_make_check_sees_the_rows_of_the_hub_that_two_splits_share(
    tmp_path: Path, splits: dict[str, str], says: str
) -> None:
    content = {"rows": "preference", "kind": "hub", "id": "owner/rows", "revision": COMMIT, "licence": "MIT"}
    apart = {"train": "train[:90%]", "more": "train[90%:]", "test": "test"}
    KIND.examine(validated(KIND.source, content | {"splits": apart}, "toy.yaml"), Path("toy.yaml"), tmp_path, False)
    with pytest.raises(InputError, match=rf"toy.yaml: splits.*{says[8:]}"):
        KIND.examine(
            validated(KIND.source, content | {"splits": splits}, "toy.yaml"), Path("toy.yaml"), tmp_path, False
        )


def test_make_check_reads_local_files(tmp_path: Path) -> None:
    content = source(tmp_path, [PAIRS[0] | {"rejected": "1"}], PAIRS[3:]) | {"folder": "."}
    with pytest.raises(InputError, match=r"toy.yaml: train.jsonl: row 1 .* hold the same answer"):
        KIND.examine(validated(KIND.source, content, "toy.yaml"), Path("toy.yaml"), tmp_path, False)


def test_a_kind_of_rows_that_there_is_not_is_refused(tmp_path: Path) -> None:
    for name in ("preferences", "3", "null", "[preference]"):
        (tmp_path / "toy.yaml").write_text(f"rows: {name}\nkind: generator\n")
        with pytest.raises(InputError, match=r"toy.yaml: rows is .*, expected one of: preference, text; take it out"):
            read_any(tmp_path / "toy.yaml")


def test_every_data_set_of_the_repository_is_of_one_kind() -> None:
    kinds = {path.stem: read_any(path)[0] for path in (ROOT / "sources/datasets").glob("*.yaml")}
    assert kinds["generated"] == KINDS[None] and kinds["generated-preferences"] == KIND
