"""Data sets: every source of a suite, read into one form of row.

A row: `id`, `question`, `answer` (as published), `gold` (the final answer in plain English notation, `70000`, `2.5`),
`locale` (the notation of the row's numbers) and `solution` (the worked solution as plain text, or null).
"""

import csv
import itertools
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.files import Row, file_hash, read_json, read_jsonl, read_yaml, unmarked
from grpo_cot.data.overlap import normalised, refuse_repeats
from grpo_cot.data.sources import SOURCE_FILE, FilesSource, GeneratorSuite, HeldOut, HubSource, Locale, Suite, tables
from grpo_cot.hub.errors import hub_errors
from grpo_cot.numbers import numeric_value
from grpo_cot.problems.generators import GENERATORS, Problem, Split
from grpo_cot.schema import gold

_ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator annotations, <<48/2=24>>
_MOST_DECIMALS = 20
_OF_A_SET = ("rows", "sha256", "contains", "dropped", "benchmark")  # not recorded of the training split


class _Raw(NamedTuple):
    """A split as its source has it: rows, its name in an error, and the sha256 of a local file."""

    rows: list[Row]
    where: str
    sha256: str | None


def read_source(path: Path) -> Suite:
    """A source file's content.

    Raises:
        InputError: the file is missing, no YAML, or does not fit; the first problem is named.
    """
    return validated(SOURCE_FILE, read_yaml(path), path)


def _different(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems whose question did not come before, as they are drawn: a million of them need not all be kept."""
    seen = set()
    for problem in problems:
        if problem.question not in seen:
            seen.add(problem.question)
            yield problem


def _generated(suite: GeneratorSuite) -> dict[str, list[Row]]:
    counts = {str(split): count for split, count in suite.splits.items()}
    splits: dict[str, list[Row]] = {}
    streams: dict[Split, tuple[str, ...]] = {"train": ("train", "validation"), "test": ("test",)}
    for stream, parts in streams.items():
        total = sum(counts.get(part, 0) for part in parts)
        different = _different(itertools.islice(GENERATORS[suite.problems](stream, suite.seed), 2 * total))
        for part in parts:
            rows = [
                {
                    "id": f"{part}-{position}", "question": problem.question, "answer": problem.answer,
                    "gold": gold(problem.answer), "locale": suite.locale, "solution": plain_solution(problem.answer),
                }
                for position, problem in enumerate(itertools.islice(different, counts.get(part, 0)))
            ]  # fmt: skip
            if len(rows) < counts.get(part, 0):
                raise InputError(f"the generator has fewer than {total} different problems for the split {stream!r}")
            if rows:
                splits[part] = rows
    return splits


def _from_files(source: FilesSource, name: str, root: Path) -> dict[str, _Raw]:
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
        raw[split] = _Raw(_table(path, file.fields), file.path, sha256)
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


def _from_hub(source: HubSource, name: str) -> dict[str, _Raw]:
    import datasets
    from huggingface_hub import HfApi

    with hub_errors(f"the data set {source.id} at {source.revision} cannot be read"):
        try:
            return {
                split: _Raw(
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


def plain_solution(text: str) -> str | None:
    """A worked solution without GSM8K's annotations and its `####` line; None when nothing is left.

    >>> plain_solution("12 + 7 = <<12+7=19>>19\\n#### 19")
    '12 + 7 = 19'
    """
    return _ANNOTATION.sub("", text).split("####")[0].strip() or None


def plain_number(value: object, locale: Locale) -> str:
    """A number in plain English notation, without grouping. Text is read by locale, a JSON number is itself.

    Raises:
        ValueError: it is no number, or text that states more than one.

    >>> plain_number("70.000", "vi"), plain_number("2,5", "vi"), plain_number(51.0, "vi")
    ('70000', '2.5', '51')
    """
    fraction = None
    if isinstance(value, str):
        fraction = numeric_value(value, locale)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        fraction = numeric_value(str(value))
    if fraction is None:
        raise ValueError(f"holds {value!r:.60}, expected one number")
    scaled, decimals = fraction, 0
    while scaled.denominator > 1:
        if decimals == _MOST_DECIMALS:
            raise ValueError(f"holds {value!r:.60}, which no decimal of {_MOST_DECIMALS} places equals")
        scaled, decimals = scaled * 10, decimals + 1
    return _decimal(scaled, decimals)


def _decimal(scaled: Fraction, decimals: int) -> str:
    digits = str(abs(scaled.numerator)).zfill(decimals + 1)
    whole, rest = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    return f"{'-' if scaled < 0 else ''}{whole}{'.' if rest else ''}{rest}"


def uniform_rows(raw: Iterable[Row], split: str, source: FilesSource | HubSource, where: str) -> list[Row]:
    """Rows as this module describes them, in the source's order, without those that `drop` and `drop_where` name.

    Raises:
        InputError: a column is missing or no text, an answer has no readable gold, or an id occurs twice.
    """
    columns = source.columns
    rows, seen = [], set()
    for position, row in enumerate(raw):
        if columns.id is not None and columns.id not in row:
            raise InputError(f"{where}: row {position + 1} lacks the id column {columns.id!r}")
        identifier = _identifier(row, split, position, columns.id)
        place = f"{where}: row {position + 1} (id {identifier})"
        if identifier in seen:
            raise InputError(f"{place}: the id occurs twice, expected every id once")
        seen.add(identifier)
        for column in source.drop_where:
            if column not in row:
                raise InputError(f"{place}: there is no column {column!r}, which 'drop_where' names")
        if identifier in source.drop or any(row[column] == text for column, text in source.drop_where.items()):
            continue
        names = [columns.question] if isinstance(columns.question, str) else columns.question
        parts = [_text(row, column, place) for column in names]
        question = parts[0] if len(parts) == 1 else " ".join(part.strip() for part in parts)
        rows.append({"id": identifier, "question": question, **_answer(row, source, place)})
    if not rows:
        raise InputError(f"{where}: no row is left, expected at least one")
    return rows


def _answer(row: Row, source: FilesSource | HubSource, place: str) -> Row:
    """A row's `answer`, `gold`, `locale` and `solution`."""
    columns, locale = source.columns, source.locale
    answer = _text(row, columns.answer, place) if columns.answer else None
    solution = _text(row, columns.solution, place) if columns.solution else answer
    try:
        final = _gold(answer, locale) if answer else plain_number(row.get(columns.gold or ""), locale)
    except ValueError as error:
        hint = "correct it, or list the id under 'drop' in the source file with the reason"
        raise InputError(f"{place}: field {(columns.answer or columns.gold)!r}: {error}; {hint}") from None
    return {
        "answer": answer or str(row[columns.gold or ""]), "gold": final, "locale": locale,
        "solution": plain_solution(solution) if solution else None,
    }  # fmt: skip


def _text(row: Row, column: str, place: str) -> str:
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{place}: field {column!r} holds {text!r:.60}, expected text")
    return text


def _gold(answer: str, locale: Locale) -> str:
    """The final answer of a worked one, `#### GOLD`."""
    if locale == "en":
        return gold(answer)
    if answer.count("####") != 1:
        raise ValueError(f"expected one '####' before the final answer, found {answer.count('####')}")
    return plain_number(answer.split("####")[1], locale)


def _identifier(row: Row, split: str, position: int, column: str | None) -> str:
    return f"{split}-{position}" if column is None else str(row[column])


def _hold_out(rows: list[Row], held: HeldOut, name: str) -> tuple[list[Row], list[Row]]:
    """Training rows without the validation rows, and these: drawn among the questions that occur once, in order."""
    texts = [normalised(row["question"]) for row in rows]
    counts = Counter(texts)
    once = [position for position, text in enumerate(texts) if counts[text] == 1]
    if held.rows >= len(once):
        raise InputError(
            f"data set {name}: 'validation' holds out {held.rows} rows of {len(once)} different training questions; "
            "expected fewer"
        )
    positions = set(random.Random(held.seed).sample(once, held.rows))
    rest = [row for position, row in enumerate(rows) if position not in positions]
    return rest, [rows[position] for position in sorted(positions)]


def _check_contained(splits: dict[str, list[Row]], inner: str, outer: str, name: str) -> None:
    questions = {normalised(row["question"]) for row in splits[outer]}
    if strange := [row["id"] for row in splits[inner] if normalised(row["question"]) not in questions]:
        raise InputError(
            f"data set {name}: the source file says that {inner!r} contains rows of {outer!r} only, but {len(strange)} "
            f"are not there ({strange[0]} first)"
        )


def read_table(
    source: FilesSource | HubSource, name: str, root: Path = Path()
) -> tuple[dict[str, list[Row]], dict[str, dict[str, Any]]]:
    """Rows that others wrote, and the record of their origin, by split; a `folder` is relative to `root`.

    Raises:
        InputError: see `load`.
    """
    raw = _from_files(source, name, root) if isinstance(source, FilesSource) else _from_hub(source, name)
    splits, sets, ids = {}, {}, []
    for split, content in raw.items():
        rows = splits[split] = uniform_rows(content.rows, split, source, content.where)
        if split != "train":
            refuse_repeats(rows, content.where)
        ids += [_identifier(row, split, at, source.columns.id) for at, row in enumerate(content.rows)]
        dropped = len(content.rows) - len(rows)
        if dropped and split in source.benchmarks:
            raise InputError(
                f"data set {name}: benchmarks.{split} is published of all its problems, but {dropped} of {split!r} are "
                "left out by 'drop' or 'drop_where'; take the benchmark out, or keep them"
            )
        sets[split] = _facts(source, split) | {"sha256": content.sha256, "dropped": dropped}
    if unknown := set(source.drop) - set(ids):
        raise InputError(
            f"data set {name}: 'drop' names ids that do not occur: {', '.join(sorted(unknown))}; the first row's is "
            f"{ids[0]!r}; correct them, or take them out"
        )
    for column, text in source.drop_where.items():
        if not any(row[column] == text for content in raw.values() for row in content.rows):
            raise InputError(
                f"data set {name}: 'drop_where' leaves out rows whose {column!r} is {text!r} (text), and there is none;"
                " correct it, or take it out"
            )
    return splits, sets


def arrange(suite: Suite, splits: dict[str, list[Row]], name: str) -> None:
    """Hold the validation rows out, and compare each set with the one that has all of its rows, where both were read.

    Raises:
        InputError: there are too few training rows, or a set has other rows.
    """
    if not isinstance(suite, GeneratorSuite) and suite.validation and "train" in splits:
        splits["train"], splits["validation"] = _hold_out(splits["train"], suite.validation, name)
    for source in suite.evaluation:
        for split in source.splits:
            if source.contains and {split, source.contains} <= splits.keys():
                _check_contained(splits, split, source.contains, name)


def load(suite: Suite, name: str) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Every split's rows, and the record of their origin (pins, hashes, licences, dropped ids).

    Raises:
        InputError: a source cannot be read as described, or a row is malformed and not dropped by name, or an
            evaluation set asks a question twice.
    """
    splits: dict[str, list[Row]] = {}
    sets: dict[str, dict[str, Any]] = {}
    if isinstance(suite, GeneratorSuite):
        splits |= _generated(suite)
        sets |= {split: _facts(suite, split) for split in splits}
    for source in tables(suite):
        rows, origin = read_table(source, name)
        splits, sets = splits | rows, sets | origin
    arrange(suite, splits, name)
    if not isinstance(suite, GeneratorSuite) and suite.validation:
        sets["validation"] = sets["train"] | {"dropped": 0, "held_out": suite.validation.model_dump()}
    for split, facts in sets.items():
        facts["rows"] = len(splits[split])
    record = {
        "name": name,
        **{key: value for key, value in sets["train"].items() if key not in _OF_A_SET},
        "seed": suite.seed if isinstance(suite, GeneratorSuite) else None,
        "sha256": {split: facts["sha256"] for split, facts in sets.items() if facts["sha256"]},
        "rows": {split: len(rows) for split, rows in splits.items()},
        "sets": {split: facts for split, facts in sets.items() if split != "train"},
    }
    return splits, record


def _facts(source: FilesSource | HubSource | GeneratorSuite, split: str) -> dict[str, Any]:
    """The record of a split that comes from a source."""
    absent = dict.fromkeys(("id", "configuration", "revision", "note", "contains", "sha256"))
    benchmark = None if isinstance(source, GeneratorSuite) else source.benchmarks.get(split)
    fields = {"kind", "id", "configuration", "revision", "licence", "locale", "note", "contains", "drop", "drop_where"}
    always = {"drop": {}, "locale": source.locale, "dropped": 0, "benchmark": benchmark and benchmark.model_dump()}
    return absent | always | source.model_dump(include=fields)
