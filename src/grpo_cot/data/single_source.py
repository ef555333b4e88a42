"""What data sets of other rows than questions with final answers have in common.

Their source file says so by `rows`. They have one source each: generated, files or a data set of the Hub. Their splits
share no text: `train` and `validation` are for training, `judge` (of texts) for the judge, the others for evaluation.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from grpo_cot.common.errors import InputError, naming, nearest
from grpo_cot.common.fields import Text
from grpo_cot.common.files import Row
from grpo_cot.data.examination import is_to_be_read, origin, refuse_shared_rows
from grpo_cot.data.held_out import hold_out
from grpo_cot.data.overlap import text_key
from grpo_cot.data.sources import FilesPlace, HeldOut, HubPlace, Locale, Reason
from grpo_cot.data.tables import Raw, identifier_of, read_files, read_hub
from grpo_cot.hub.licences import Licence

Reader = Callable[[Row, str], Row]  # a source's row and its place in an error -> the fields of ours
Key = Callable[[str], Hashable]
_KEPT_AFTER = {"test": 0, "validation": 2, "judge": 3, "train": 4}  # other evaluation sets: 1
_APART = {"train", "validation", "judge"}
_LEARNT = {"train", "judge"}  # may have a text twice


class SingleSource(BaseModel):
    """Rows that others wrote.

    `repeats`: what becomes of a text that occurs in several splits, or twice in one for evaluation. `drop` keeps it in
    one place, in the test split before the others and in the training split last, and counts the rest.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    licence: Licence
    locale: Locale = "en"
    drop: dict[Text, Reason] = {}  # row id: why it is left out
    repeats: Literal["refuse", "drop"] = "refuse"
    validation: HeldOut | None = None
    note: Text | None = None


class SingleSourceFiles(FilesPlace, SingleSource):
    """Rows in files."""


class SingleSourceHub(HubPlace, SingleSource):
    """Rows in a data set on the Hub."""


AnySource = SingleSourceFiles | SingleSourceHub


def held_out(source: BaseModel) -> dict[str, HeldOut]:
    """The training rows that a source holds out, by the split that they become: none of a generated one."""
    sections = {purpose: getattr(source, purpose, None) for purpose in ("validation", "judge")}
    return {purpose: section for purpose, section in sections.items() if section}


def evaluation_sets(source: Any) -> list[str]:
    """The names of all splits but the training split."""
    return [*(str(name) for name in source.splits if name != "train"), *held_out(source)]


def check_needed(splits: Collection[str], needed: Sequence[str]) -> None:
    """Refuse splits without the needed ones.

    Raises:
        ValueError: one is missing.
    """
    if missing := [name for name in needed if name not in splits]:
        raise ValueError(f"'splits' lacks {' and '.join(missing)}")


def check_splits(source: AnySource, columns: Mapping[str, str]) -> None:
    """Refuse splits, columns or ids that a source cannot have.

    Args:
        source: the source.
        columns: the names of its columns by field.

    Raises:
        ValueError: a needed split is missing or named twice, or a column is not in the header that the file gives.
    """
    check_needed(source.splits, ("train", "test"))
    if alike := [name for name, count in Counter(map(str.lower, source.splits)).items() if count > 1]:
        raise ValueError(f"two splits are named {alike[0]!r} but for capitals, and may be one file; rename one")
    if twice := [purpose for purpose in held_out(source) if purpose in source.splits]:
        raise ValueError(f"{twice[0]!r} holds rows out, and 'splits' names a split {twice[0]!r}; give one of them")
    if twice := [name for name, count in Counter(columns.values()).items() if count > 1]:
        raise ValueError(f"'columns' names the column {twice[0]!r} twice; name it where it belongs, once")
    if "id" not in columns:
        position = re.compile(rf"({'|'.join(map(re.escape, source.splits))})-(0|[1-9]\d*)")
        if strange := [identifier for identifier in source.drop if not position.fullmatch(identifier)]:
            raise ValueError(
                f"'drop' names {strange[0]!r}, but rows without 'columns.id' are called SPLIT-POSITION, "
                f"{next(iter(source.splits))}-0 the first; name the row so"
            )
    for split, file in source.splits.items():
        fields = None if isinstance(file, str) else file.fields
        if fields and (absent := [(field, name) for field, name in columns.items() if name not in fields]):
            field, name = absent[0]
            raise ValueError(
                f"columns.{field} names {name!r}, which splits.{split}.fields lacks; {nearest(name, fields)}"
            )


def read_rows(
    source: AnySource, name: str, columns: Mapping[str, str], same: tuple[str, Key], reader: Reader, root: Path
) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Every split's rows, and the record of their origin.

    Args:
        source: the source.
        name: the data set's.
        columns: the names of its columns by field.
        same: the field of our rows by which two are the same, and its key within a split; between splits letters and
            digits decide, as in the step prepare.
        reader: reads a row's fields.
        root: a `folder` is relative to it.

    Raises:
        InputError: the source cannot be read, a column is missing, a row is malformed, or a text is in two splits.
    """
    raw = read_files(source, name, root) if isinstance(source, FilesPlace) else read_hub(source, name)
    splits: dict[str, list[Row]] = {}
    ids: list[str] = []
    for split, content in raw.items():
        _check_columns(content, columns)
        identified = _identified(content, split, columns.get("id"))
        ids += identified
        splits[split] = [
            {"id": identifier, **reader(row, place)}
            for (identifier, place), row in zip(identified.items(), content.rows, strict=True)
            if identifier not in source.drop
        ]
    if unknown := source.drop.keys() - set(ids):
        raise InputError(
            f"data set {name}: 'drop' names ids that do not occur: {', '.join(sorted(unknown))}; the first row's is "
            f"{ids[0]!r}; correct them, or take them out"
        )
    repeats = _without_repeats(splits, same, name, drop=source.repeats == "drop")
    for purpose, held in held_out(source).items():
        splits["train"], splits[purpose] = hold_out(splits["train"], same[0], purpose, held, name)
    if empty := [split for split, rows in splits.items() if not rows]:
        raise InputError(f"data set {name}: no row of the split {empty[0]!r} is left, expected at least one")
    hashes = {split: content.sha256 for split, content in raw.items() if content.sha256}
    return splits, record(source, name, splits, hashes, repeats)


def _check_columns(content: Raw, columns: Mapping[str, str]) -> None:
    for position, row in enumerate(content.rows, start=1):
        for field, column in columns.items():
            if column not in row:
                place = "" if position == 1 else f"row {position}: "
                raise InputError(
                    f"{content.where}: {place}there is no column {column!r}, which columns.{field} names; "
                    f"{nearest(column, row)}"
                )


def _identified(content: Raw, split: str, column: str | None) -> dict[str, str]:
    """The rows' ids, in order, and their places in an error."""
    places: dict[str, str] = {}
    for position, row in enumerate(content.rows):
        identifier = identifier_of(row, split, position, column)
        place = f"{content.where}: row {position + 1} (id {identifier})"
        if identifier in places:
            raise InputError(f"{place}: the id occurs twice, expected every id once")
        places[identifier] = place
    return places


def _without_repeats(splits: dict[str, list[Row]], same: tuple[str, Key], name: str, *, drop: bool) -> dict[str, int]:
    """Take out, or refuse, rows whose text stands in another split, or twice in one that is not learnt from; how many.

    Raises:
        InputError: there are such rows, and they are not to be dropped.
    """
    order = sorted(splits, key=lambda split: _KEPT_AFTER.get(split, 1))
    others: dict[str, tuple[str, str]] = {}  # a text of a split before: that split, and the id of the row that keeps it
    field, key = same
    left_out: dict[str, int] = {}
    for split in order:
        kept: list[Row] = []
        own: dict[Hashable, tuple[str, str]] = {}
        for row in splits[split]:
            here = (split, row["id"])
            other, identifier = others.get(text_key(row[field])) or own.setdefault(key(row[field]), here)
            if other == split and (split in _LEARNT or identifier == row["id"]):
                kept.append(row)
            elif drop:
                left_out[split] = left_out.get(split, 0) + 1
            else:
                raise InputError(
                    f"data set {name}: row {row['id']} of {split!r} has the same {field} as row {identifier} of "
                    f"{other!r} ({row[field]!r:.60}), and what is measured on it would be known; list one under "
                    "'drop' in the source file, or set 'repeats: drop' to keep each in one split"
                )
        splits[split] = kept
        others |= {text_key(row[field]): (split, row["id"]) for row in kept}
    return left_out


def generated_rows(
    draw: Mapping[str, tuple[Iterator[Row], Mapping[str, int]]], text_field: str, name: str
) -> dict[str, list[Row]]:
    """Different rows of endless streams.

    Args:
        draw: by a stream's name, the stream of rows without ids, and how many of them each split gets, in order.
        text_field: the field by which two rows are the same.
        name: the data set's, for an error.

    Raises:
        InputError: a stream has too few different rows: half of what it gave were repeats.
    """
    splits: dict[str, list[Row]] = {}
    for stream, (rows, counts) in draw.items():
        seen: set[str] = set()
        drawn = 0
        for split, count in counts.items():
            splits[split] = []
            while len(splits[split]) < count:
                row = next(rows)
                drawn += 1
                if row[text_field] not in seen:
                    seen.add(row[text_field])
                    splits[split].append({"id": f"{split}-{len(splits[split])}", **row})
                elif drawn > 2 * len(seen) + 1000:
                    raise InputError(
                        f"data set {name}: the generator has fewer than {sum(counts.values())} different rows for the "
                        f"split {stream!r}; lower its number"
                    )
    return splits


def record(
    source: BaseModel, name: str, splits: Mapping[str, list[Row]], hashes: Mapping[str, str] | None = None,
    repeats: Mapping[str, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The record of a data set's origin, in the form of the one of questions (`grpo_cot.data.rows`).

    Args:
        source: the source.
        name: the data set's.
        splits: the rows.
        hashes: by split, the sha256 of a local file.
        repeats: by split, how many rows were left out as repeats.
    """
    left_out = {"splits", "columns", "folder", "folder_variable", "validation", "judge"}
    described = json.loads(source.model_dump_json(exclude=left_out))
    kind = described.pop("rows")
    facts: dict[str, Any] = dict.fromkeys(("id", "configuration", "revision", "note", "contains"))
    facts |= {"drop": {}, "locale": "en"} | described
    return {
        "name": name, "row_kind": kind, "seed": None, **facts,
        "sha256": dict(hashes or {}), "rows": {split: len(rows) for split, rows in splits.items()},
        "repeats_left_out": dict(repeats or {}),
        "sets": {
            split: {**facts, "sha256": (hashes or {}).get(split), "rows": len(rows), "benchmark": None}
            for split, rows in splits.items()
            if split != "train"
        },
    }  # fmt: skip


def examine_table(source: AnySource, path: Path, root: Path, outside: bool, load: Callable[[Path], object]) -> None:
    """Check a source's splits, and its local files as the step download would read them.

    Args:
        source: the source.
        path: its file, named in an error.
        root: the repository's folder.
        outside: whether files outside the repository are read as well.
        load: reads the source's rows from a root.

    Raises:
        InputError: the first problem.
    """
    with naming(path):
        origins = {split: origin(source, split, f"splits.{split}", ()) for split in source.splits}
        refuse_shared_rows(origins, _APART)
        if isinstance(source, FilesPlace) and is_to_be_read(source, root, outside):
            load(root)
