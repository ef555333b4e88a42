"""Data sets: every source of a suite, read into one form of row.

A row: `id`, `question`, `answer` (as published), `gold` (the final answer in plain English notation, `70000`, `2.5`),
`locale` (the notation of the row's numbers) and `solution` (the worked solution as plain text, or null).
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.data.held_out import hold_out
from grpo_cot.data.overlap import normalised, refuse_repeats
from grpo_cot.data.sources import FilesSource, GeneratorSuite, HubSource, Locale, Suite, tables
from grpo_cot.data.tables import identifier_of, read_files, read_hub, text_of
from grpo_cot.numbers import numeric_value
from grpo_cot.problems.generators import GENERATORS, Problem, Split
from grpo_cot.schema import gold

_ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator annotations, <<48/2=24>>
_MOST_DECIMALS = 20
_OF_A_SET = ("rows", "sha256", "contains", "dropped", "benchmark")  # not recorded of the training split


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
        identifier = identifier_of(row, split, position, columns.id)
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
        parts = [text_of(row, column, place) for column in names]
        question = parts[0] if len(parts) == 1 else " ".join(part.strip() for part in parts)
        rows.append({"id": identifier, "question": question, **_answer(row, source, place)})
    if not rows:
        raise InputError(f"{where}: no row is left, expected at least one")
    return rows


def _answer(row: Row, source: FilesSource | HubSource, place: str) -> Row:
    """A row's `answer`, `gold`, `locale` and `solution`."""
    columns, locale = source.columns, source.locale
    answer = text_of(row, columns.answer, place) if columns.answer else None
    solution = text_of(row, columns.solution, place) if columns.solution else answer
    try:
        final = _gold(answer, locale) if answer else plain_number(row.get(columns.gold or ""), locale)
    except ValueError as error:
        hint = "correct it, or list the id under 'drop' in the source file with the reason"
        raise InputError(f"{place}: field {(columns.answer or columns.gold)!r}: {error}; {hint}") from None
    return {
        "answer": answer or str(row[columns.gold or ""]), "gold": final, "locale": locale,
        "solution": plain_solution(solution) if solution else None,
    }  # fmt: skip


def _gold(answer: str, locale: Locale) -> str:
    """The final answer of a worked one, `#### GOLD`."""
    if locale == "en":
        return gold(answer)
    if answer.count("####") != 1:
        raise ValueError(f"expected one '####' before the final answer, found {answer.count('####')}")
    return plain_number(answer.split("####")[1], locale)


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
    raw = read_files(source, name, root) if isinstance(source, FilesSource) else read_hub(source, name)
    splits, sets, ids = {}, {}, []
    for split, content in raw.items():
        rows = splits[split] = uniform_rows(content.rows, split, source, content.where)
        if split != "train":
            refuse_repeats(rows, content.where)
        ids += [identifier_of(row, split, at, source.columns.id) for at, row in enumerate(content.rows)]
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
        splits["train"], splits["validation"] = hold_out(
            splits["train"], "question", "validation", suite.validation, name
        )
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
