"""Data sets of preferences: `rows: preference`.

A row: `id`, `question`, `chosen` and `rejected` (two answers), `chosen_score` and `rejected_score` (numbers, or null
where the source has none), `gold` (the final answer in plain English notation, or null), `locale`, and of generated
pairs `slip`, the fault of the rejected answer if it has one.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from grpo_cot.common.errors import InputError, shown
from grpo_cot.common.fields import Seed, Text
from grpo_cot.common.files import Row
from grpo_cot.data.generated.slips import pairs
from grpo_cot.data.generated.unmarked import unmarked_pairs
from grpo_cot.data.overlap import question_key
from grpo_cot.data.rows import plain_number
from grpo_cot.data.single_source import (
    SingleSourceFiles,
    SingleSourceHub,
    check_needed,
    check_splits,
    generated_rows,
    read_rows,
    record,
)
from grpo_cot.data.sources import MOST_ROWS
from grpo_cot.data.tables import text_of
from grpo_cot.hub.licences import Licence
from grpo_cot.problems.generators import Generator, Split

GeneratedPart = Literal["train", "validation", "test"]
STREAMS: dict[Split, tuple[GeneratedPart, ...]] = {"train": ("train", "validation"), "test": ("test",)}


class PreferenceColumns(BaseModel):
    """The names of the source's columns: `question` is `prompt` in the other published layout, which has scores.

    `gold` holds a question's final answer, a number.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    question: Text = "question"
    chosen: Text = "chosen"
    rejected: Text = "rejected"
    gold: Text | None = None
    id: Text | None = None
    chosen_score: Text | None = None
    rejected_score: Text | None = None

    @model_validator(mode="after")
    def _both_scores(self) -> "PreferenceColumns":
        if (self.chosen_score is None) != (self.rejected_score is None):
            raise ValueError("names one of 'chosen_score' and 'rejected_score': give both or neither")
        return self

    def by_field(self) -> dict[str, str]:
        """The columns that there are."""
        return {field: name for field, name in self.model_dump().items() if name is not None}


class GeneratedPreferences(BaseModel):
    """Pairs of answers to the embedded problems; `splits` says how many.

    The rejected one is `wrong`, with a slip (`grpo_cot.data.generated.slips`), or right and `unmarked`: outside the
    schema (`grpo_cot.data.generated.unmarked`).

    The structures of test problems never train. Validation pairs are further ones of the training stream.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    rows: Literal["preference"]
    kind: Literal["generator"]
    problems: Generator = "basic"
    rejected: Literal["wrong", "unmarked"] = "wrong"
    seed: Seed
    licence: Licence
    splits: dict[GeneratedPart, Annotated[int, Field(gt=0, le=MOST_ROWS // 10)]]


class PreferenceFiles(SingleSourceFiles):
    """Preferences in files."""

    rows: Literal["preference"]
    columns: PreferenceColumns = PreferenceColumns()


class PreferenceHub(SingleSourceHub):
    """Preferences in a data set on the Hub."""

    rows: Literal["preference"]
    columns: PreferenceColumns = PreferenceColumns()


Preferences = GeneratedPreferences | PreferenceFiles | PreferenceHub


def _checked(source: Preferences) -> Preferences:
    if isinstance(source, GeneratedPreferences):
        check_needed(source.splits, ("train", "test"))
    else:
        check_splits(source, source.columns.by_field())
    return source


PREFERENCE_SOURCE: TypeAdapter[Preferences] = TypeAdapter(
    Annotated[Preferences, Field(discriminator="kind"), AfterValidator(_checked)]
)


def load_preferences(
    source: Preferences, name: str, root: Path = Path()
) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Every split's rows, and the record of their origin; a `folder` is relative to `root`.

    Raises:
        InputError: as `read_rows`, or a text is empty, a pair's answers are the same, a score is no number, or most
            scores say that the rejected answer is the better one.
    """
    if isinstance(source, GeneratedPreferences):
        fixed = {"chosen_score": None, "rejected_score": None, "locale": "en"}
        stream_of = {"wrong": pairs, "unmarked": unmarked_pairs}[source.rejected]
        draw = {
            str(stream): (
                ({**pair._asdict(), **fixed} for pair in stream_of(source.problems, stream, source.seed)),
                {str(part): source.splits[part] for part in parts if part in source.splits},
            )
            for stream, parts in STREAMS.items()
        }
        splits = generated_rows(draw, "question", name)
        return splits, record(source, name, splits)
    columns = source.columns

    def read(row: Row, place: str) -> Row:
        question, chosen, rejected = (
            text_of(row, column, place) for column in (columns.question, columns.chosen, columns.rejected)
        )
        if chosen.strip() == rejected.strip():
            raise InputError(
                f"{place}: {columns.chosen!r} and {columns.rejected!r} hold the same answer ({chosen!r:.60}), of which "
                "nothing can be learned; list the id under 'drop' in the source file with the reason"
            )
        better, worse = (_score(row, column, place) for column in (columns.chosen_score, columns.rejected_score))
        return {
            "question": question, "chosen": chosen, "rejected": rejected, "gold": _gold(row, source, place),
            "slip": None, "chosen_score": better, "rejected_score": worse, "locale": source.locale,
        }  # fmt: skip

    splits, facts = read_rows(source, name, columns.by_field(), ("question", question_key), read, root)
    scored = [row for rows in splits.values() for row in rows if row["chosen_score"] is not None]
    wrong = [row["id"] for row in scored if row["chosen_score"] < row["rejected_score"]]
    if len(wrong) > len(scored) / 2:
        raise InputError(
            f"data set {name}: in {len(wrong)} of {len(scored)} rows the rejected answer has the higher score "
            f"({wrong[0]} first); columns.chosen and columns.rejected, or their scores, name each other's columns"
        )
    return splits, facts


def _gold(row: Row, source: PreferenceFiles | PreferenceHub, place: str) -> str | None:
    if source.columns.gold is None:
        return None
    try:
        return plain_number(row[source.columns.gold], source.locale)
    except ValueError as error:
        raise InputError(f"{place}: field {source.columns.gold!r}: {error}") from None


def _score(row: Row, column: str | None, place: str) -> float | None:
    """A score as a number; files without types have it as text."""
    if column is None:
        return None
    value = row[column]
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        score = float(value)
        if not math.isfinite(score):
            raise ValueError
    except ValueError:
        raise InputError(f"{place}: field {column!r} holds {shown(value)}, expected a number") from None
    return score
