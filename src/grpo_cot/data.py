"""Data sets: where rows come from, and the one form they all take (id, question, answer, gold).

A source file in `sources/datasets/` names one of three kinds: `generator` (`grpo_cot.problems`), `files` (local JSON
Lines, pinned by sha256) and `hub` (a Hub data set at a pinned revision). A data set is a suite: its training split and
every evaluation set that goes with it.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from grpo_cot.files import InputError, Row, read_jsonl
from grpo_cot.problems import problems
from grpo_cot.schema import gold


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    licence: str
    drop: dict[str, str] = {}  # row id: why it is left out


class Columns(BaseModel):
    """Which of the source's columns hold the question and the worked answer, and the id where there is one."""

    model_config = ConfigDict(extra="forbid", strict=True)
    question: str = "question"
    answer: str = "answer"
    id: str | None = None


class PinnedFile(BaseModel):
    """A local file and the sha256 of its content."""

    model_config = ConfigDict(extra="forbid", strict=True)
    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class GeneratorSource(_Source):
    """Problems from the embedded generator; `splits` says how many of each. Evaluation structures never train."""

    kind: Literal["generator"]
    seed: int
    splits: dict[Literal["train", "test"], Annotated[int, Field(gt=0)]]


class FilesSource(_Source):
    """JSON Lines files in a folder: a path, or the name of the environment variable that holds it."""

    kind: Literal["files"]
    folder: str | None = None
    folder_variable: str | None = None
    splits: dict[str, PinnedFile]
    columns: Columns = Columns()


class HubSource(_Source):
    """A data set on the Hub at a commit; `splits` maps our split names to the Hub's."""

    kind: Literal["hub"]
    id: str
    configuration: str | None = None
    revision: str = Field(pattern="^[0-9a-f]{40}$")  # a commit: a branch moves
    splits: dict[str, str]
    columns: Columns = Columns()


DatasetSource = GeneratorSource | FilesSource | HubSource
SOURCE_FILE: TypeAdapter[DatasetSource] = TypeAdapter(Annotated[DatasetSource, Field(discriminator="kind")])


def _generated(source: GeneratorSource) -> dict[str, list[Row]]:
    splits: dict[str, list[Row]] = {}
    for split, count in source.splits.items():
        different = {problem.question: problem for problem in itertools.islice(problems(split, source.seed), 2 * count)}
        rows = [{"question": problem.question, "answer": problem.answer} for problem in different.values()][:count]
        if len(rows) < count:
            raise InputError(f"the generator has fewer than {count} different problems for the split {split!r}")
        splits[split] = rows
    return splits


def _from_files(source: FilesSource, name: str) -> tuple[dict[str, list[Row]], dict[str, str]]:
    folder = source.folder
    if source.folder_variable:
        folder = os.environ.get(source.folder_variable)
        if not folder:
            raise InputError(
                f"data set {name}: set the environment variable {source.folder_variable} to the folder that holds "
                + ", ".join(file.path for file in source.splits.values())
            )
    splits, hashes = {}, {}
    for split, file in source.splits.items():
        path = Path(folder or ".") / file.path
        if not path.is_file():
            raise InputError(f"{path}: no such file (data set {name}, split {split})")
        hashes[split] = hashlib.sha256(path.read_bytes()).hexdigest()
        if hashes[split] != file.sha256:
            raise InputError(f"{path}: its sha256 is {hashes[split]}, expected {file.sha256}: not the pinned file")
        splits[split] = read_jsonl(path)
    return splits, hashes


def _from_hub(source: HubSource) -> dict[str, list[Row]]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return {
            split: datasets.load_dataset(
                source.id, source.configuration, split=name, revision=source.revision
            ).to_list()
            for split, name in source.splits.items()
        }
    except (DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the data set {source.id} at {source.revision} cannot be read: {reason}") from None


def uniform_rows(raw: Iterable[Row], split: str, columns: Columns, drop: dict[str, str], where: str) -> list[Row]:
    """Rows as (id, question, answer, gold), in the source's order, without those that `drop` names.

    Raises:
        InputError: a column is missing or no text, an answer has no readable gold, or an id occurs twice.
    """
    rows, seen = [], set()
    for position, row in enumerate(raw):
        if columns.id is not None and columns.id not in row:
            raise InputError(f"{where}: row {position + 1} lacks the id column {columns.id!r}")
        identifier = _identifier(row, split, position, columns)
        place = f"{where}: row {position + 1} (id {identifier})"
        if identifier in seen:
            raise InputError(f"{place}: the id occurs twice, expected every id once")
        seen.add(identifier)
        if identifier in drop:
            continue
        texts = {}
        for field, column in (("question", columns.question), ("answer", columns.answer)):
            text = row.get(column)
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{place}: field {column!r} holds {text!r:.60}, expected text")
            texts[field] = text
        try:
            rows.append({"id": identifier, **texts, "gold": gold(texts["answer"])})
        except ValueError as error:
            hint = "correct it, or list the id under 'drop' in the source file with the reason"
            raise InputError(f"{place}: field {columns.answer!r}: {error}; {hint}") from None
    if not rows:
        raise InputError(f"{where}: no row is left, expected at least one")
    return rows


def load(source: DatasetSource, name: str) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Every split's rows, and the record of where they came from (what was pinned, hashes, counts, dropped ids).

    Raises:
        InputError: the source cannot be read as described, or a row is malformed and not dropped by name.
    """
    hashes: dict[str, str] = {}
    columns = Columns()
    if isinstance(source, GeneratorSource):
        raw = _generated(source)
    elif isinstance(source, FilesSource):
        raw, hashes = _from_files(source, name)
        columns = source.columns
    else:
        raw = _from_hub(source)
        columns = source.columns
    splits = {}
    for split, rows in raw.items():
        where = source.splits[split].path if isinstance(source, FilesSource) else f"data set {name}, split {split}"
        splits[split] = uniform_rows(rows, split, columns, source.drop, where)
    known = {
        _identifier(row, split, position, columns) for split, rows in raw.items() for position, row in enumerate(rows)
    }
    if unknown := set(source.drop) - known:
        raise InputError(f"data set {name}: 'drop' names ids that do not occur: {', '.join(sorted(unknown))}")
    record = {
        "name": name,
        **dict.fromkeys(("id", "configuration", "revision", "seed")),
        **source.model_dump(include={"kind", "id", "configuration", "revision", "seed", "licence", "drop"}),
        "sha256": hashes,
        "rows": {split: len(rows) for split, rows in splits.items()},
    }
    return splits, record


def _identifier(row: Row, split: str, position: int, columns: Columns) -> str:
    return f"{split}-{position}" if columns.id is None else str(row.get(columns.id))
