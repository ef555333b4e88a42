"""Data sets of labelled texts: `rows: text`. A model continues their beginnings, to write texts of one class.

A row: `id`, `question` (the text's first words), `text` (the whole, which begins with them), `label` (its class),
`wanted` (the class to be written, the same in all rows), `gold` and `solution` (null), `locale`. The split `judge` has
the texts from which an independent judge learns what the classes are: nothing else learns from them.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from grpo_cot.common.errors import InputError, nearest, shown
from grpo_cot.common.fields import Seed, Text
from grpo_cot.common.files import Row
from grpo_cot.data.generated.feedback import CLASSES, Stream, feedback
from grpo_cot.data.overlap import text_key
from grpo_cot.data.single_source import (
    SingleSourceFiles,
    SingleSourceHub,
    check_needed,
    check_splits,
    evaluation_sets,
    generated_rows,
    read_rows,
    record,
)
from grpo_cot.data.sources import MOST_ROWS, HeldOut, Locale
from grpo_cot.data.tables import text_of
from grpo_cot.hub.licences import Licence

GeneratedPart = Literal["train", "validation", "judge", "test"]
STREAMS: dict[Stream, tuple[GeneratedPart, ...]] = {
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


def _in_order(value: list[int]) -> list[int]:
    if value[0] > value[1]:
        raise ValueError("expected the smaller number of words first")
    return value


class _Task(BaseModel):
    """The class that texts are to be, and of how many first words their beginnings are: from one number to another."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rows: Literal["text"]
    wanted: Text
    words: Annotated[
        list[Annotated[int, Field(gt=0, le=1000)]], Field(min_length=2, max_length=2), AfterValidator(_in_order)
    ]


class GeneratedTexts(_Task):
    """Students' feedback in English (`grpo_cot.data.generated.feedback`); `splits` says how many sentences.

    What test sentences say of a subject is in no other split, and what the judge's say in none that trains.
    """

    kind: Literal["generator"]
    texts: Literal["feedback"]
    seed: Seed
    licence: Licence
    splits: dict[GeneratedPart, Annotated[int, Field(gt=0, le=MOST_ROWS // 10)]]
    locale: ClassVar[Locale] = "en"

    def class_names(self) -> list[str]:
        """The names of the classes."""
        return list(CLASSES)


def _with_text_keys(value: Any) -> Any:
    """Without quotes a label `0` is a number in YAML; in a column it may be either."""
    return {str(key): name for key, name in value.items()} if isinstance(value, dict) else value


class _Labelled(_Task):
    """Texts that others labelled: `classes` names the class that a value of the label's column, as text, stands for.

    `judge` holds training rows out where `splits` names no split of that name.
    """

    columns: TextColumns = TextColumns()
    classes: Annotated[dict[Text, Text], BeforeValidator(_with_text_keys)]
    judge: HeldOut | None = None

    def class_names(self) -> list[str]:
        """The names of the classes, in their order in the file."""
        return list(dict.fromkeys(self.classes.values()))


class TextFiles(SingleSourceFiles, _Labelled):
    """Labelled texts in files."""


class TextHub(SingleSourceHub, _Labelled):
    """Labelled texts in a data set on the Hub."""


Texts = GeneratedTexts | TextFiles | TextHub


def _checked(source: Texts) -> Texts:
    names = source.class_names()
    if len(names) < 2:
        raise ValueError(f"'classes' names {len(names)} class, expected at least two to tell apart")
    if source.wanted not in names:
        raise ValueError(f"'wanted' is {source.wanted!r}, which is no class; {nearest(source.wanted, names)}")
    if isinstance(source, GeneratedTexts):
        check_needed(source.splits, ("train", "judge", "test"))
        return source
    check_splits(source, source.columns.by_field())
    if "judge" not in evaluation_sets(source):
        raise ValueError(
            "no texts are for the independent judge: name a split 'judge' in 'splits', or hold training rows out as "
            "judge: {rows, seed}"
        )
    return source


TEXT_SOURCE: TypeAdapter[Texts] = TypeAdapter(Annotated[Texts, Field(discriminator="kind"), AfterValidator(_checked)])


def beginning(text: str, words: Sequence[int]) -> str:
    """A text's first words, as many as the text itself decides: within two numbers, and all but one at most.

    The words of the text are one space apart. A text of one word is its own beginning.

    >>> beginning("The slides were hard to read.", [2, 2]), beginning("Too fast.", [2, 7]), beginning("Good.", [2, 7])
    ('The slides', 'Too', 'Good.')
    """
    parts = text.split(" ")
    count = random.Random(text).randint(*words)
    return " ".join(parts[: max(1, min(count, len(parts) - 1))])


def load_texts(source: Texts, name: str, root: Path = Path()) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Every split's rows, and the record of their origin; a `folder` is relative to `root`.

    Raises:
        InputError: as `read_rows`, or a text is empty, `classes` does not name a label, or a class has no row in the
            split from which the reward model or the judge learns it.
    """
    if isinstance(source, GeneratedTexts):
        draw = {
            str(stream): (
                (_row(text, label, source) for text, label in feedback(stream, source.seed)),
                {str(part): source.splits[part] for part in parts if part in source.splits},
            )
            for stream, parts in STREAMS.items()
        }
        splits = generated_rows(draw, "text", name)
        facts = record(source, name, splits)
    else:
        columns, classes = source.columns, source.classes

        def read(row: Row, place: str) -> Row:
            text, label = text_of(row, columns.text, place), str(row[columns.label])
            if label not in classes:
                raise InputError(
                    f"{place}: field {columns.label!r} holds {shown(row[columns.label])}, expected a value that "
                    f"'classes' names: {', '.join(classes)}; name its class there, or list the id under 'drop' with "
                    "the reason"
                )
            return _row(" ".join(text.split()), classes[label], source)

        splits, facts = read_rows(source, name, columns.by_field(), ("text", text_key), read, root)
    for split, learner in (("train", "the reward model"), ("judge", "the independent judge")):
        if missing := [label for label in source.class_names() if all(row["label"] != label for row in splits[split])]:
            raise InputError(
                f"data set {name}: no row of the split {split!r} has the class {missing[0]!r}, which {learner} could "
                "not learn; give it more rows, or take the class out"
            )
    return splits, facts


def _row(text: str, label: str, source: Texts) -> Row:
    return {
        "question": beginning(text, source.words), "text": text, "label": label, "wanted": source.wanted,
        "gold": None, "solution": None, "locale": source.locale,
    }  # fmt: skip
