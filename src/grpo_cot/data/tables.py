"""Tables that others wrote, from local files and from the Hub, as they stand: rows of columns and their values."""

import csv
import os
from pathlib import Path
from typing import Any, NamedTuple

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, file_hash, read_json, read_jsonl, unmarked
from grpo_cot.data.sources import FilesPlace, HubPlace
from grpo_cot.hub.errors import hub_errors


class Raw(NamedTuple):
    """A split as its source has it: rows, its name in an error, and the sha256 of a local file."""

    rows: list[Row]
    where: str
    sha256: str | None


def read_files(source: FilesPlace, name: str, root: Path) -> dict[str, Raw]:
    """The rows of local files by split; a `folder` is relative to `root`.

    Raises:
        InputError: a file is missing, not the pinned one, or no table.
    """
    folder, named = source.folder or ".", f"the folder {source.folder or '.'!r}"
    if source.folder_variable:
        folder = os.environ.get(source.folder_variable, "")
        named = f"the folder {folder!r} ({source.folder_variable})"
        if not folder:
            raise InputError(
                f"data set {name}: set the environment variable {source.folder_variable} to the folder that holds "
                + ", ".join(file.path for file in source.splits.values())
            )
    raw = {}
    for split, file in source.splits.items():
        path = root / folder / file.path
        if not path.is_file():
            raise InputError(
                f"data set {name}: splits.{split}.path is {file.path!r}, and {named} has no such file; correct one of "
                "them, or put the file there"
            )
        sha256 = file_hash(path)
        if sha256 != file.sha256:
            raise InputError(
                f"{path}: its sha256 is {sha256}, expected {file.sha256}: not the pinned file; get that, or pin this"
            )
        raw[split] = Raw(_table(path, file.fields), file.path, sha256)
    return raw


def _table(path: Path, columns: list[str] | None) -> list[Row]:
    """A local file's rows; the ending of its name says the format, `columns` stand in for a header."""
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    if path.suffix == ".json":
        rows = read_json(path)
        if not isinstance(rows, list) or not rows:
            raise InputError(f"{path}: expected a JSON list of at least one object, found {rows!r:.60}")
        for position, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise InputError(f"{path}: row {position} is a JSON {type(row).__name__}, expected an object")
        return rows
    # Tab-separated files are read as they stand: a quotation mark in one (MGSM) is a part of the text.
    style: dict[str, Any] = {} if path.suffix == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            cells = [row for row in csv.reader(map(unmarked, lines), **style) if row]
    except (UnicodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix} in UTF-8: {error}") from None
    fields, cells = (columns, cells) if columns else (cells[0] if cells else [], cells[1:])
    if not cells:
        raise InputError(f"{path}: the file is empty, expected at least one row")
    for position, row in enumerate(cells, start=1):
        if len(row) != len(fields):
            raise InputError(
                f"{path}: row {position} has {len(row)} columns, expected {len(fields)} ({', '.join(fields)})"
            )
    return [dict(zip(fields, row, strict=True)) for row in cells]


def read_hub(source: HubPlace, name: str) -> dict[str, Raw]:
    """The rows of a data set on the Hub by split.

    Raises:
        InputError: the Hub does not give it at that commit.
    """
    import datasets
    from huggingface_hub import HfApi

    with hub_errors(f"the data set {source.id} at {source.revision} cannot be read"):
        try:
            return {
                split: Raw(
                    datasets.load_dataset(source.id, source.configuration, split=part, revision=source.revision)
                    .to_list(), f"data set {name}, split {split}", None,
                )
                for split, part in source.splits.items()
            }  # fmt: skip
        except Exception:
            # The library hides what the Hub answered; the Hub is asked again for the reason, and only then, because
            # what is in the cache is read without it.
            api = HfApi()
            api.auth_check(source.id, repo_type="dataset")
            api.dataset_info(source.id, revision=source.revision)
            raise


def identifier_of(row: Row, split: str, position: int, column: str | None) -> str:
    """A row's id: that of its column, or SPLIT-POSITION."""
    return f"{split}-{position}" if column is None else str(row[column])


def text_of(row: Row, column: str, place: str) -> str:
    """A column's text.

    Raises:
        InputError: the column is missing or holds no text.
    """
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{place}: field {column!r} holds {text!r:.60}, expected text")
    return text
