"""Whether a data set is one that the steps download and prepare will take, as far as this machine shows it.

`make check` asks before anything is downloaded. What the Hub alone knows shows in the step.
"""

import os
import re
from collections.abc import Mapping, Set
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from grpo_cot.common.errors import InputError, naming
from grpo_cot.common.files import Row
from grpo_cot.data.overlap import overlaps, refuse_leaks
from grpo_cot.data.rows import arrange, read_table
from grpo_cot.data.sources import FilesPlace, FilesSource, HubPlace, HubSuite, Suite, tables

MOST_BYTES = 50_000_000  # of a source's files; GSM8K's 5 MB are read in a third of a second
ROWS = 10**9  # more than a split has: the slices [:100] and [-100:] are different rows of it
WHOLE = r"\w+(\.\w+)*"  # a split's name on the Hub, without a slice


class Part(NamedTuple):
    """Rows of a split on the Hub, or of a file: from a position up to another."""

    split: str
    start: int
    end: int


class Origin(NamedTuple):
    """A split's rows: `table` is equal for splits that are read in the same way from the same place."""

    field: str
    table: tuple[object, ...]
    parts: list[Part]


def examine(suite: Suite, path: Path, root: Path, outside: bool) -> None:
    """Check what a source file says, and the local files that it names.

    Args:
        suite: The file's content.
        path: The file, named in an error.
        root: The repository's folder.
        outside: Whether files outside the repository are read as well. An environment variable that is not set is left
            to the step, which does not run where its output is in DVC's cache.

    Raises:
        InputError: the first problem: a file is missing or not the pinned one, a row is malformed, two splits have the
            same rows, `drop` names a row that is not there, or whatever else the two steps would refuse of these files.
    """
    with naming(path):
        _check_validation(suite)
        _check_origins(suite)
        read: dict[str, list[Row]] = {}
        for source in tables(suite):
            if isinstance(source, FilesSource) and is_to_be_read(source, root, outside):
                read |= read_table(source, path.stem, root)[0]
        arrange(suite, read, path.stem)
    if "train" in read:
        refuse_leaks(overlaps(read), path)


def is_to_be_read(source: FilesPlace, root: Path, outside: bool) -> bool:
    """Whether `make check` reads a source's files: those in the repository, and with `outside` others, if not large."""
    place = os.environ.get(source.folder_variable, "") if source.folder_variable else source.folder or "."
    folder = (root / place).resolve()
    inside = source.folder_variable is None and folder.is_relative_to(root.resolve())
    if not place or not (inside or outside):
        return False
    files = [folder / file.path for file in source.splits.values()]
    return sum(file.stat().st_size for file in files if file.is_file()) <= MOST_BYTES


def _check_validation(suite: Suite) -> None:
    rows = suite.published_rows() if isinstance(suite, HubSuite) else None
    if isinstance(suite, HubSuite) and suite.validation and rows and suite.validation.rows >= rows:
        raise InputError(
            f"validation.rows is {suite.validation.rows}, but {suite.id} has {rows} training rows; lower it"
        )


def _check_origins(suite: Suite) -> None:
    """Refuse two splits of the same rows, and rows of the training or the validation split in another one."""
    origins: dict[str, Origin] = {}
    sources = tables(suite)
    for position, source in enumerate(sources, start=len(suite.evaluation) - len(sources)):
        where = "splits" if position < 0 else f"evaluation.{position}.splits"
        read = (str(source.columns.question), str(source.drop_where), str(source.drop))
        for split, rows in source.splits.items():
            field = f"{where}.{split}"
            if split in source.benchmarks and isinstance(rows, str) and not re.fullmatch(WHOLE, rows):
                raise InputError(
                    f"benchmarks.{split}: {field} is {rows!r}, and a benchmark is published of all its problems; name "
                    "the whole split, or take the benchmark out"
                )
            origins[split] = origin(source, split, field, read)
    refuse_shared_rows(origins, {"train", "validation"})


def refuse_shared_rows(origins: Mapping[str, Origin], apart: Set[str]) -> None:
    """Refuse two splits of the same rows, and rows of a split that is to be apart in another one.

    Raises:
        InputError: there are such rows.
    """
    in_order = sorted(origins.items(), key=lambda item: item[0] != "train")
    for (name, one), (other, two) in combinations(in_order, 2):
        if one.table != two.table:
            continue
        remedy = "name another file or split there, or take it out"
        if one.parts == two.parts:
            raise InputError(f"{two.field}: its rows are those of {name!r}, all of them; {remedy}")
        if {name, other} & apart and any(_share(a, b) for a in one.parts for b in two.parts):
            raise InputError(f"{two.field}: some of its rows are rows of {name!r}, too; {remedy}")


def origin(source: FilesPlace | HubPlace, split: str, field: str, read: tuple[str, ...]) -> Origin:
    """Where a split's rows come from; `read` is equal for sources that are read in the same way.

    Raises:
        InputError: a slice of a split on the Hub is not written as the library `datasets` reads it.
    """
    if isinstance(source, FilesPlace):
        file = source.splits[split]
        return Origin(field, (file.sha256, str(file.fields), *read), [Part("", 0, ROWS)])
    return Origin(
        field, (source.id.lower(), source.configuration, source.revision, *read), _parts(source.splits[split], field)
    )


def _parts(rows: str, field: str) -> list[Part]:
    """What the library `datasets` reads for the name of a split, for a slice `train[:10%]`, or for several with `+`."""
    if re.fullmatch(WHOLE, rows):
        return [Part(rows, 0, ROWS)]
    from datasets import ReadInstruction

    names = [re.split(r"[\[(]", part)[0].strip() for part in rows.split("+")]
    try:
        parts = [
            Part(part.splitname, part.from_, part.to)
            for part in ReadInstruction.from_spec(rows).to_absolute(dict.fromkeys(names, ROWS))
        ]
    except (ValueError, AssertionError) as error:
        raise InputError(
            f"{field} is {rows!r}, which the library datasets refuses ({' '.join(str(error).split())[:200]}); expected "
            "a split's name such as train, or a slice such as train[:90%]"
        ) from None
    if empty := [part for part in parts if part.start >= part.end]:
        raise InputError(f"{field} is {rows!r}, and the slice of {empty[0].split!r} has no row; correct its ends")
    return parts


def _share(one: Part, two: Part) -> bool:
    same = one.split == two.split or "all" in (one.split, two.split)  # all: the library's word for every split
    return same and one.start < two.end and two.start < one.end
