"""What `make check` says of a data set before anything is downloaded, and what it leaves to the step."""

import json
from pathlib import Path
from typing import Any

import pytest
from data.test_rows import GOOD, pinned

from grpo_cot.common.errors import InputError, validated
from grpo_cot.data.examination import examine
from grpo_cot.data.rows import load
from grpo_cot.data.sources import SOURCE_FILE

COMMIT = "a" * 40
HUB = {"kind": "hub", "id": "owner/rows", "revision": COMMIT, "licence": "MIT"}


def examined(content: dict[str, Any], root: Path, *, outside: bool = False) -> None:
    examine(validated(SOURCE_FILE, content, "toy.yaml"), Path("toy.yaml"), root, outside)


def files(root: Path, **extra: object) -> dict[str, Any]:
    """A data set of two files in the folder `rows`."""
    folder = root / "rows"
    folder.mkdir(exist_ok=True)
    splits = {
        name: pinned(folder, f"{name}.jsonl", json.dumps(row))
        for name, row in zip(("train", "test"), GOOD, strict=True)
    }
    return {"kind": "files", "folder": "rows", "splits": splits, "licence": "MIT", **extra}


@pytest.mark.parametrize(
    "splits",
    [
        {"train": "train[:90%]", "test": "train[90%:]"},
        {"train": "train[100:]", "validation": "train[50:100]", "test": "train[:50]"},
        {"train": "train[:-100]", "test": "train[-100:]"},
        {"train": "train+extra", "test": "test"},
        {"train": "train", "test": "test", "few": "test[:10]"},  # prepare counts what evaluation sets share
        {"train": "train[:1000]", "test": "train[50%:]"},  # the size decides: prepare compares the rows
    ],
)
def test_slices_of_a_split_of_the_hub_are_taken_as_the_library_reads_them(
    splits: dict[str, str], tmp_path: Path
) -> None:
    examined(HUB | {"splits": splits}, tmp_path)


@pytest.mark.parametrize("slices", [("t[:60%]", "t[-60%:]"), ("t", "t[:50]"), ("t+other", "t[:9]"), ("all", "t")])
def test_a_validation_split_shares_no_row_either(slices: tuple[str, str], tmp_path: Path) -> None:
    splits = dict(zip(("validation", "test"), slices, strict=True)) | {"train": "train"}
    sentence = r"splits.test: some of its rows are rows of 'validation', too; name another"
    if slices[0] == "all":
        sentence = r"splits.validation: some of its rows are rows of 'train', too; name another"
    with pytest.raises(InputError, match=sentence):
        examined(HUB | {"splits": splits}, tmp_path)


def test_the_same_rows_in_two_sources_are_seen_unless_they_are_read_in_another_way(tmp_path: Path) -> None:
    suite = HUB | {"splits": {"train": "train", "test": "test"}}
    again = HUB | {"splits": {"again": "test"}}
    with pytest.raises(InputError, match=r"evaluation.0.splits.again: its rows are those of 'test', all of them"):
        examined(suite | {"evaluation": [again]}, tmp_path)
    for other in ({"drop_where": {"kind": "easy"}}, {"columns": {"question": "thai"}}, {"revision": "b" * 40}):
        examined(suite | {"evaluation": [again | other]}, tmp_path)


def test_a_benchmark_is_no_slice(tmp_path: Path) -> None:
    benchmark = {"test": {"id": "owner/rows", "task_id": "rows"}}
    with pytest.raises(InputError, match=r"benchmarks.test: splits.test is 'test\[:9\]', and .* of all its problems"):
        examined(HUB | {"splits": {"train": "train", "test": "test[:9]"}, "benchmarks": benchmark}, tmp_path)


def test_a_benchmark_belongs_to_one_set(tmp_path: Path) -> None:
    benchmarks = {name: {"id": "owner/rows", "task_id": "rows"} for name in ("test", "more")}
    splits = {"train": "train", "test": "test", "more": "more"}
    with pytest.raises(InputError, match="'benchmarks' names owner/rows rows of two splits, but one figure is"):
        examined(HUB | {"splits": splits, "benchmarks": benchmarks}, tmp_path)


def test_the_step_reads_a_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads a folder by the same call as an id on the Hub."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = [json.dumps({"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"}) for n in range(10)]
    (folder / "train.jsonl").write_text("\n".join(lines))
    suite = validated(SOURCE_FILE, HUB | {"splits": {"train": "train[:80%]", "test": "train[80%:]"}}, "toy.yaml")
    rows, _ = load(suite.model_copy(update={"id": str(folder)}), "toy")
    assert [row["gold"] for row in rows["train"]] == list("12345678")
    assert [row["gold"] for row in rows["test"]] == ["9", "10"]


def test_more_validation_rows_than_a_known_data_set_has_are_refused_before_it_is_downloaded(tmp_path: Path) -> None:
    gsm8k = HUB | {"id": "openai/gsm8k", "splits": {"train": "train", "test": "test"}}
    examined(gsm8k | {"validation": {"rows": 500, "seed": 7}}, tmp_path)
    with pytest.raises(InputError, match=r"validation.rows is 7473, but openai/gsm8k has 7473 training rows; lower it"):
        examined(gsm8k | {"validation": {"rows": 7473, "seed": 7}}, tmp_path)


def test_sets_that_contain_each_other_are_refused(tmp_path: Path) -> None:
    def suite(**contains: str) -> dict[str, Any]:
        sets = [
            HUB | {"id": f"owner/{name}", "splits": {name: "test"}, "contains": contains[name]} for name in contains
        ]
        return HUB | {"splits": {"train": "train", "test": "test"}, "evaluation": sets}

    examined(suite(a="b", b="test"), tmp_path)
    with pytest.raises(InputError, match=r"a contains 'a' \(by way of b, c\), itself; 'contains' names a larger set"):
        examined(suite(a="b", b="c", c="a"), tmp_path)


def test_files_in_the_repository_are_read_and_those_outside_where_the_data_set_is_to_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    inside = files(root)
    examined(inside, root)
    outside = {key: value for key, value in inside.items() if key != "folder"} | {"folder_variable": "MY_ROWS"}
    monkeypatch.delenv("MY_ROWS", raising=False)
    examined(outside, root, outside=True)  # the step says that the variable is not set, where it runs at all
    monkeypatch.setenv("MY_ROWS", str(elsewhere))
    examined(outside, root)
    with pytest.raises(
        InputError, match=r"toy.yaml: .*splits.train.path is 'train.jsonl', and .*\(MY_ROWS\) has no such"
    ):
        examined(outside, root, outside=True)
    monkeypatch.setenv("MY_ROWS", str(root / "rows"))
    examined(outside, root, outside=True)


def test_rows_that_prepare_would_refuse_are_refused(tmp_path: Path) -> None:
    content = files(tmp_path)
    content["splits"]["test"] = pinned(tmp_path / "rows", "same.jsonl", json.dumps(GOOD[0]) + "\n")
    with pytest.raises(
        InputError, match=r"toy.yaml: 1 questions of the evaluation set 'test' are also in the training"
    ):
        examined(content, tmp_path)


def test_files_too_large_to_read_at_once_are_left_to_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = files(tmp_path, drop={"train-7": "no such row"})
    with pytest.raises(InputError, match="'drop' names ids that do not occur: train-7"):
        examined(content, tmp_path)
    monkeypatch.setattr("grpo_cot.data.examination.MOST_BYTES", 10)
    examined(content, tmp_path)
