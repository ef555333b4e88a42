"""A file in `sources/datasets/`: a training set with its test split, and the evaluation sets beside it.

A data set is a suite: all rows of a run's training and evaluation, each part pinned. Three kinds of source:
`generator` (`grpo_cot.problems`), `files` (local files, pinned by sha256) and `hub` (a Hub data set at a commit).
"""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

from grpo_cot.common.fields import Repository, Seed, Sha256, Text
from grpo_cot.problems.generators import Generator

Locale = Literal["en", "vi"]  # how numbers are written: 70,000 and 2.5, or 70.000 and 2,5
SetName = Annotated[
    str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
]  # names a file: SET.jsonl, eval-SET.jsonl


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Columns(_Model):
    """The names of the source's columns; several columns of a question are joined by a space.

    Either `answer`, a worked answer that ends in `#### GOLD` (the default), or `gold`, the final answer alone, with the
    worked one in `solution` where there is one.
    """

    question: Text | Annotated[list[Text], Field(min_length=1)] = "question"
    answer: Text | None = None
    gold: Text | None = None
    solution: Text | None = None
    id: Text | None = None

    @model_validator(mode="after")
    def _one_place_for_the_gold(self) -> "Columns":
        if self.answer and self.gold:
            raise ValueError("names both 'answer' (worked, ends in '#### GOLD') and 'gold' (alone): give one of them")
        if self.solution and not self.gold:
            raise ValueError("names a 'solution' without 'gold': a worked answer that ends in '#### GOLD' is 'answer'")
        if not self.gold and not self.answer:
            self.answer = "answer"
        return self


class HeldOut(_Model):
    """Training rows held out for checkpoint selection: how many, drawn with which seed."""

    rows: int = Field(gt=0)
    seed: Seed


class PinnedFile(_Model):
    """A local file (.jsonl, .json, .csv, .tsv), its sha256, and the names of its columns where it has no header."""

    path: str
    sha256: Sha256
    fields: list[Text] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _table(self) -> "PinnedFile":
        if Path(self.path).suffix not in (".jsonl", ".json", ".csv", ".tsv"):
            raise ValueError(f"{self.path}: expected a name that ends in .jsonl, .json, .csv or .tsv")
        if self.fields and len(set(self.fields)) < len(self.fields):
            raise ValueError("'fields' names a column twice")
        if self.fields and not self.path.endswith(("csv", "tsv")):
            raise ValueError("'fields' stands in for the header of a .csv or .tsv, and the path names neither")
        return self


class _Table(_Model):
    """Rows that others wrote."""

    licence: str
    locale: Locale = "en"
    columns: Columns = Columns()
    drop: dict[str, str] = {}  # row id: why it is left out
    drop_where: dict[str, str] = {}  # column: the text that marks rows to leave out
    note: str | None = None  # for readers of the figures; shown in the report and the model card


class FilesSource(_Table):
    """Files in a folder: a path, or the name of the environment variable that holds it."""

    kind: Literal["files"]
    folder: Text | None = None
    folder_variable: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*$")
    splits: dict[SetName, PinnedFile] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_folder(self) -> "FilesSource":
        if self.folder and self.folder_variable:
            raise ValueError("names both 'folder' and 'folder_variable': give one of them")
        return self


def _commit(revision: Any) -> Any:
    if not isinstance(revision, str) or not re.fullmatch("[0-9a-f]{40}", revision):
        raise ValueError(
            "expected the commit to read, its 40 hexadecimal digits (a branch such as main moves); copy it from the "
            "data set's page on the Hub: Files and versions, History"
        )
    return revision


class HubSource(_Table):
    """A data set on the Hub at a commit; `splits` maps our split names to the Hub's."""

    kind: Literal["hub"]
    id: Repository
    configuration: Text | None = None
    revision: Annotated[str, BeforeValidator(_commit)] = Field(default="", validate_default=True)
    splits: dict[SetName, Text] = Field(min_length=1)


class _Evaluation(_Model):
    # A split of this suite in which every row of the set occurs, so that the two are not independent evidence; checked.
    contains: str | None = None


class FilesEvaluation(FilesSource, _Evaluation):
    """Evaluation sets from local files."""


class HubEvaluation(HubSource, _Evaluation):
    """Evaluation sets from the Hub."""


class _Suite(_Model):
    evaluation: list[Annotated[FilesEvaluation | HubEvaluation, Field(discriminator="kind")]] = []


class GeneratorSuite(_Suite):
    """Problems from one of the embedded generators; `splits` says how many of each.

    The structures of test problems never train. Validation problems are further ones of the training stream.
    """

    kind: Literal["generator"]
    problems: Generator = "basic"
    seed: Seed
    licence: str
    # More would take hours and gigabytes before it shows whether there are so many different ones.
    splits: dict[Literal["train", "validation", "test"], Annotated[int, Field(gt=0, le=1_000_000)]]
    locale: ClassVar[Locale] = "en"


class FilesSuite(FilesSource, _Suite):
    """A training set from local files."""

    validation: HeldOut | None = None


class HubSuite(HubSource, _Suite):
    """A training set from the Hub."""

    validation: HeldOut | None = None


Suite = GeneratorSuite | FilesSuite | HubSuite


def evaluation_sets(suite: Suite) -> list[str]:
    """The names of all splits but the training split, the suite's own first."""
    names = [str(name) for name in suite.splits if name != "train"]
    if not isinstance(suite, GeneratorSuite) and suite.validation:
        names.append("validation")
    return names + [name for source in suite.evaluation for name in source.splits]


def _complete_and_distinct(suite: Suite) -> Suite:
    names = evaluation_sets(suite)
    if missing := {"train", "test"} - {*names, *suite.splits}:
        raise ValueError(f"'splits' lacks {' and '.join(sorted(missing))}")
    if twice := sorted({name for name in [*names, "train"] if [*names, "train"].count(name) > 1}):
        raise ValueError(f"two splits are named {twice[0]!r}")
    for source in suite.evaluation:
        if source.contains and source.contains not in names:
            raise ValueError(
                f"evaluation: {next(iter(source.splits))} contains {source.contains!r}, which is no evaluation set of "
                f"the suite; it has {', '.join(names)}"
            )
    return suite


SOURCE_FILE: TypeAdapter[Suite] = TypeAdapter(
    Annotated[Suite, Field(discriminator="kind"), AfterValidator(_complete_and_distinct)]
)
