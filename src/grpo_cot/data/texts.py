"""Data sets of texts with labels: `rows: text`.

A row: `id`, `text` and `label`, one of the source's classes by its name.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from grpo_cot.common.errors import InputError, shown
from grpo_cot.common.fields import Name, Seed, Text
from grpo_cot.common.files import Row
from grpo_cot.data.generated.feedback import LABELS, FeedbackSplit, sentences
from grpo_cot.data.judged import GeneratedPart, JudgedFiles, JudgedHub, check_splits, generated_rows, read_rows, record
from grpo_cot.data.overlap import text_key
from grpo_cot.data.sources import MOST_ROWS
from grpo_cot.data.tables import text_of
from grpo_cot.hub.licences import Licence

STREAMS: dict[FeedbackSplit, tuple[GeneratedPart, ...]] = {
    "train": ("train", "validation"), "judge": ("judge",), "test": ("test",)
}  # fmt: skip


class TextColumns(BaseModel):
    """The names of the source's columns."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Text = "text"
    label: Text = "label"
    id: Text | None = None

    def by_field(self) -> dict[str, str]:
        """The columns that there are."""
        return {field: name for field, name in self.model_dump().items() if name is not None}


def _distinct(classes: dict[str, int | str]) -> dict[str, int | str]:
    if len(classes) < 2:
        raise ValueError("expected at least two classes")
    if len(set(map(str, classes.values()))) < len(classes):
        raise ValueError("two classes have the same value in the label column")
    return classes


Classes = Annotated[dict[Name, int | str], AfterValidator(_distinct)]  # our name: the value in the label column


class GeneratedTexts(BaseModel):
    """Sentences of student feedback from the embedded generator; `splits` says how many of each.

    No phrasing of a test or a judge sentence occurs in training. Validation sentences are further ones of training.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    rows: Literal["text"]
    kind: Literal["generator"]
    seed: Seed
    licence: Licence
    splits: dict[GeneratedPart, Annotated[int, Field(gt=0, le=MOST_ROWS // 10)]]


class TextFiles(JudgedFiles):
    """Texts in files."""

    rows: Literal["text"]
    columns: TextColumns = TextColumns()
    classes: Classes


class TextHub(JudgedHub):
    """Texts in a data set on the Hub."""

    rows: Literal["text"]
    columns: TextColumns = TextColumns()
    classes: Classes


Texts = GeneratedTexts | TextFiles | TextHub


def _checked(source: Texts) -> Texts:
    if isinstance(source, GeneratedTexts):
        if missing := [name for name in ("train", "test") if name not in source.splits]:
            raise ValueError(f"'splits' lacks {' and '.join(missing)}")
    else:
        check_splits(source, source.columns.by_field())
    return source


TEXT_SOURCE: TypeAdapter[Texts] = TypeAdapter(Annotated[Texts, Field(discriminator="kind"), AfterValidator(_checked)])


def load_texts(source: Texts, name: str, root: Path = Path()) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Every split's rows, and the record of their origin; a `folder` is relative to `root`.

    Raises:
        InputError: as `read_rows`, or a text is empty, a label is none of the classes, or a split lacks a class.
    """
    if isinstance(source, GeneratedTexts):
        draw = {
            str(stream): (
                ({"text": sentence.text, "label": sentence.label} for sentence in sentences(stream, source.seed)),
                {part: source.splits[part] for part in parts if part in source.splits},
            )
            for stream, parts in STREAMS.items()
        }
        splits = generated_rows(draw, "text", name)
        facts = record(source, name, splits) | {"classes": list(LABELS)}
        _check_classes(splits, dict(zip(LABELS, LABELS, strict=True)), name)
        return splits, facts
    columns, named = source.columns, {str(value): label for label, value in source.classes.items()}

    def read(row: Row, place: str) -> Row:
        value = row[columns.label]
        if isinstance(value, bool) or not isinstance(value, int | str) or str(value) not in named:
            raise InputError(
                f"{place}: field {columns.label!r} holds {shown(value)}, which is no class; 'classes' has "
                f"{', '.join(f'{label}: {value}' for label, value in source.classes.items())}; correct "
                "columns.label or 'classes'"
            )
        return {"text": text_of(row, columns.text, place), "label": named[str(value)]}

    splits, facts = read_rows(source, name, columns.by_field(), ("text", text_key), read, root)
    _check_classes(splits, source.classes, name)
    return splits, facts


def _check_classes(splits: dict[str, list[Row]], classes: dict[Any, Any], name: str) -> None:
    """Refuse a split that lacks a class: a model would not learn it there, or no figure would speak of it."""
    for split, rows in splits.items():
        counts = Counter(row["label"] for row in rows)
        if missing := [label for label in classes if not counts[label]]:
            raise InputError(
                f"data set {name}: none of the {len(rows)} rows of the split {split!r} is {missing[0]} (value "
                f"{classes[missing[0]]!r}); take the class out of 'classes', or give the split rows of it"
            )
