"""A byte order mark, which Excel and Notepad write before a text, is a part of no question, id, key or recipe."""

from pathlib import Path

import pytest
from data.test_rows import pinned, with_set
from support import ROOT

from grpo_cot.common.files import read_text, read_yaml
from grpo_cot.data.rows import load

MARK = "\ufeff"


@pytest.mark.parametrize(
    ("name", "text", "header"),
    [
        ("set.jsonl", '{"key": "a", "ask": "2?", "n": 2}\n', True),
        ("set.json", '[{"key": "a", "ask": "2?", "n": 2}]', True),
        ("set.csv", '"key",ask,n\na,2?,2\n', True),
        ("set.csv", '"a",2?,2\n', False),
        ("set.tsv", "key\task\tn\na\t2?\t2\n", True),
        ("set.tsv", "a\t2?\t2\n", False),
    ],
)
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str, text: str, header: bool) -> None:
    pin = pinned(tmp_path, name, MARK + text) | ({} if header else {"fields": ["key", "ask", "n"]})
    splits, _ = load(with_set(tmp_path, pin, columns={"question": "ask", "gold": "n", "id": "key"}), "toy")
    assert [(row["id"], row["question"], row["gold"]) for row in splits["other"]] == [("a", "2?", "2")]


@pytest.mark.parametrize(("name", "line"), [("set.jsonl", '{"ask": "%d?", "n": 2}\n'), ("set.tsv", "%d?\t2\n")])
def test_files_with_marks_may_be_joined_end_to_end(tmp_path: Path, name: str, line: str) -> None:
    pin = pinned(tmp_path, name, MARK + line % 1 + MARK + line % 2)
    pin |= {"fields": ["ask", "n"]} if name.endswith(".tsv") else {}
    splits, _ = load(with_set(tmp_path, pin, columns={"question": "ask", "gold": "n"}), "toy")
    assert [row["question"] for row in splits["other"]] == ["1?", "2?"]


def test_a_byte_order_mark_in_a_source_file_or_recipe_is_no_part_of_it(tmp_path: Path) -> None:
    for name in ("sources/datasets/generated.yaml", "experiments/tiny-grpo.yaml"):
        content = (ROOT / name).read_text(encoding="utf-8")
        (tmp_path / "marked.yaml").write_text(MARK + content, encoding="utf-8")
        assert read_text(tmp_path / "marked.yaml") == content
        assert read_yaml(tmp_path / "marked.yaml") == read_yaml(ROOT / name)
