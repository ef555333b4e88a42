"""Data sets: every kind of source gives the same rows, and a malformed one is refused in one sentence."""

import hashlib
import json
from pathlib import Path

import pytest

from grpo_cot.data import SOURCE_FILE, load
from grpo_cot.files import InputError

GOOD = [{"question": "2 + 3?", "answer": "2 + 3 = 5\n#### 5"}, {"question": "10 * 100?", "answer": "#### 1,000"}]


def files_source(folder: Path, lines: list[str], **extra: object) -> object:
    text = "".join(line + "\n" for line in lines)
    (folder / "train.jsonl").write_text(text)
    pin = {"path": "train.jsonl", "sha256": hashlib.sha256(text.encode()).hexdigest()}
    source = {"kind": "files", "folder": str(folder), "splits": {"train": pin, "test": pin}, "licence": "MIT", **extra}
    return SOURCE_FILE.validate_python(source)


def rows(folder: Path, lines: list[str], **extra: object) -> list[dict[str, str]]:
    return load(files_source(folder, lines, **extra), "toy")[0]["train"]  # type: ignore[arg-type]


def test_rows_carry_the_normalised_gold(tmp_path: Path) -> None:
    assert [row["gold"] for row in rows(tmp_path, list(map(json.dumps, GOOD)))] == ["5", "1000"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([json.dumps(GOOD[0]), '{"question": "2?", '], r"train.jsonl: line 2 is not valid JSON"),
        ([json.dumps({"question": "2?", "answer": "five"})], r"row 1 .*'answer'.*expected one '####'.*found 0"),
        ([json.dumps({"question": "2?", "answer": "#### 5\n#### 6"})], r"expected one '####'.*found 2"),
        (
            [json.dumps({"question": "2?", "answer": "#### five"})],
            r"row 1 .*expected a number after '####', found 'five'",
        ),
        ([json.dumps({"question": "", "answer": "#### 5"})], r"row 1 .*'question' holds '', expected text"),
        ([json.dumps({"answer": "#### 5"})], r"'question' holds None, expected text"),
        (["[1, 2]"], r"line 1 is a JSON list, expected an object"),
        ([], r"train.jsonl: the file is empty"),
    ],
)
def test_malformed_input_is_one_sentence(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        rows(tmp_path, lines)
    assert "\n" not in str(refusal.value)


def test_a_duplicate_id_is_refused(tmp_path: Path) -> None:
    lines = [json.dumps({**row, "key": "a"}) for row in GOOD]
    with pytest.raises(InputError, match=r"row 2 \(id a\): the id occurs twice"):
        rows(tmp_path, lines, columns={"id": "key"})


def test_a_malformed_row_can_be_dropped_by_name_with_its_reason(tmp_path: Path) -> None:
    lines = [json.dumps(GOOD[0]), json.dumps({"question": "2?", "answer": "five"})]
    source = files_source(tmp_path, lines, drop={"train-1": "no gold", "test-1": "no gold"})
    splits, record = load(source, "toy")  # type: ignore[arg-type]
    assert [row["id"] for row in splits["train"]] == ["train-0"]
    assert record["drop"]["train-1"] == "no gold"


def test_dropping_an_id_that_does_not_occur_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'drop' names ids that do not occur: train-9"):
        rows(tmp_path, [json.dumps(GOOD[0])], drop={"train-9": "typing error"})


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    source = files_source(tmp_path, [json.dumps(GOOD[0])])
    (tmp_path / "train.jsonl").write_text(json.dumps(GOOD[1]) + "\n")
    with pytest.raises(InputError, match="not the pinned file"):
        load(source, "toy")  # type: ignore[arg-type]


def test_the_hub_route_and_the_local_route_give_identical_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub loader reads a folder by the same call as a Hub id; the revision is what it ignores for a folder."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "toy"
    data.mkdir()
    local = load(files_source(data, list(map(json.dumps, GOOD))), "toy")[0]  # type: ignore[arg-type]
    (data / "test.jsonl").write_bytes((data / "train.jsonl").read_bytes())
    hub = SOURCE_FILE.validate_python(
        {
            "kind": "hub",
            "id": str(data),
            "revision": "0" * 40,
            "splits": {"train": "train", "test": "test"},
            "licence": "MIT",
        }
    )
    assert load(hub, "toy")[0] == local


def test_gsm8k_is_read_in_full(gsm8k_folder: Path) -> None:
    from support import ROOT

    from grpo_cot.files import read_yaml

    splits, record = load(SOURCE_FILE.validate_python(read_yaml(ROOT / "sources/datasets/gsm8k.yaml")), "gsm8k")
    assert record["rows"] == {"train": 7473, "test": 1319}
    assert sum("," in row["answer"].split("####")[1] for row in splits["train"]) == 79
    assert sum(row["gold"].startswith("-") for row in splits["train"]) == 3
    assert not any("," in row["gold"] for row in splits["train"])


def test_an_unset_folder_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from support import ROOT

    from grpo_cot.files import read_yaml

    monkeypatch.delenv("GSM8K_DIR", raising=False)
    with pytest.raises(InputError, match="set the environment variable GSM8K_DIR"):
        load(SOURCE_FILE.validate_python(read_yaml(ROOT / "sources/datasets/gsm8k.yaml")), "gsm8k")
