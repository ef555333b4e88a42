"""A file in `sources/datasets/`: a training set with its test split, and the evaluation sets beside it.

A data set is a suite: all rows of a run's training and evaluation, each part pinned. Three kinds of source:
`generator` (`grpo_cot.problems`), `files` (local files, pinned by sha256) and `hub` (a Hub data set at a commit).
"""

import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

from grpo_cot.common.errors import nearest
from grpo_cot.common.fields import Seed, Sha256, Text
from grpo_cot.hub.licences import Licence
from grpo_cot.hub.names import RepositoryId
from grpo_cot.problems.generators import Generator

Locale = Literal["en", "vi"]  # how numbers are written: 70,000 and 2.5, or 70.000 and 2,5
SetName = Annotated[
    str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
]  # names a file: SET.jsonl, eval-SET.jsonl


# So many generated problems take five minutes and 1.8 GB at worst, where the step asks a scheduler for 2. The
# generators have many more different ones, and the steps that map, judge and count rows take longer.
MOST_ROWS = 1_000_000
# Training rows of Hub data sets as published; vi_gsm8k is GSM8K's rows translated.
PUBLISHED_ROWS = {"openai/gsm8k": 7473, "hllj/vi_gsm8k": 7473}


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
        if twice := [name for name, count in Counter(self.names()).items() if count > 1]:
            raise ValueError(f"the column {twice[0]!r} is named twice; name it where it belongs, once")
        return self

    def names(self) -> list[str]:
        """All columns, the question's first."""
        questions = [self.question] if isinstance(self.question, str) else self.question
        return [*questions, *(name for name in (self.answer, self.gold, self.solution, self.id) if name is not None)]


class HeldOut(_Model):
    """Training rows held out for checkpoint selection: how many, drawn with which seed."""

    rows: int = Field(gt=0, le=MOST_ROWS)
    seed: Seed


def _table_name(value: str) -> str:
    path = PurePosixPath(value)
    if path.suffix not in (".jsonl", ".json", ".csv", ".tsv"):
        raise ValueError("expected a name that ends in .jsonl, .json, .csv or .tsv")
    if path.is_absolute() or ".." in path.parts or "\\" in value:  # a container sees the folder alone
        raise ValueError("expected a path within the folder; name another folder in 'folder' or 'folder_variable'")
    return value


def _reason(value: str) -> str:
    if not value.strip():
        raise ValueError("expected the reason why the row is left out, in words")
    return value


Reason = Annotated[str, AfterValidator(_reason)]


class PinnedFile(_Model):
    """A local file (.jsonl, .json, .csv, .tsv), its sha256, and the names of its columns where it has no header."""

    path: Annotated[str, AfterValidator(_table_name)]
    sha256: Sha256
    fields: list[Text] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _header(self) -> "PinnedFile":
        if self.fields and len(set(self.fields)) < len(self.fields):
            raise ValueError("'fields' names a column twice")
        if self.fields and not self.path.endswith(("csv", "tsv")):
            raise ValueError("'fields' stands in for the header of a .csv or .tsv, and the path names neither")
        return self


class Benchmark(_Model):
    """A benchmark of the Hub, whose page ranks models: a data set there, and a task that its `eval.yaml` defines."""

    id: RepositoryId
    task_id: Text


class _Table(_Model):
    """Rows that others wrote."""

    licence: Licence
    locale: Locale = "en"
    columns: Columns = Columns()
    drop: dict[Text, Reason] = {}  # row id: why it is left out
    drop_where: dict[Text, str] = {}  # column: the text that marks rows to leave out
    benchmarks: dict[SetName, Benchmark] = {}  # split: the benchmark whose problems, all of them, it holds
    note: Text | None = None  # for readers of the figures; shown in the report and the model card


class FilesPlace(_Model):
    """Files in a folder: a path, or the name of the environment variable that holds it."""

    kind: Literal["files"]
    folder: Text | None = None
    folder_variable: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*$")
    splits: dict[SetName, PinnedFile] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_folder(self) -> "FilesPlace":
        if self.folder and self.folder_variable:
            raise ValueError("names both 'folder' and 'folder_variable': give one of them")
        return self


class FilesSource(FilesPlace, _Table):
    """Problems in files."""


def _commit(revision: Any) -> Any:
    if not isinstance(revision, str) or not re.fullmatch("[0-9a-f]{40}", revision):
        raise ValueError(
            "expected the commit to read, its 40 hexadecimal digits (a branch such as main moves); copy it from the "
            "data set's page on the Hub: Files and versions, History"
        )
    return revision


class HubPlace(_Model):
    """A data set on the Hub at a commit; `splits` maps our split names to the Hub's."""

    kind: Literal["hub"]
    id: RepositoryId
    configuration: Text | None = None
    revision: Annotated[str, BeforeValidator(_commit)] = Field(default="", validate_default=True)
    splits: dict[SetName, Text] = Field(min_length=1)


class HubSource(HubPlace, _Table):
    """Problems in a data set on the Hub."""

    def published_rows(self) -> int | None:
        """The number of training rows of a data set that the repository knows."""
        return PUBLISHED_ROWS.get(self.id) if self.splits.get("train") == "train" else None


class _Evaluation(_Model):
    # A split of this suite in which every row of the set occurs, so that the two are not independent evidence; checked.
    contains: Text | None = None


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
    licence: Licence
    splits: dict[Literal["train", "validation", "test"], Annotated[int, Field(gt=0, le=MOST_ROWS)]]
    locale: ClassVar[Locale] = "en"

    @model_validator(mode="after")
    def _few_enough(self) -> "GeneratorSuite":
        if (total := sum(self.splits.values())) > MOST_ROWS:
            raise ValueError(f"'splits' asks for {total} problems in all, expected at most {MOST_ROWS}; lower a number")
        return self


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


def tables(suite: Suite) -> list[FilesSource | HubSource]:
    """The sources whose rows others wrote, the suite's own first."""
    return [*([] if isinstance(suite, GeneratorSuite) else [suite]), *suite.evaluation]


def _complete_and_distinct(suite: Suite) -> Suite:
    names = evaluation_sets(suite)
    if "train" not in suite.splits or "test" not in names:
        missing = [name for name, there in (("train", suite.splits), ("test", names)) if name not in there]
        raise ValueError(f"'splits' lacks {' and '.join(missing)}")
    seen: dict[str, str] = {}
    for name in ["train", *names]:
        if (other := seen.get(name.lower())) is not None:
            if other == name:
                raise ValueError(f"two splits are named {name!r}")
            raise ValueError(
                f"the splits {other!r} and {name!r} differ in capitals alone, and may be one file; rename one"
            )
        seen[name.lower()] = name
    for source in tables(suite):
        _check_table(source)
    claims = Counter((claim.id, claim.task_id) for source in tables(suite) for claim in source.benchmarks.values())
    if twice := [claim for claim, count in claims.items() if count > 1]:
        raise ValueError(f"'benchmarks' names {' '.join(twice[0])} of two splits, but one figure is published of it")
    _check_containers(suite, names)
    return suite


def _check_table(source: FilesSource | HubSource) -> None:
    """Refuse what names a split, a row or a column that the source cannot have."""
    if unknown := source.benchmarks.keys() - (source.splits.keys() - {"train"}):
        raise ValueError(f"'benchmarks' names {min(unknown)!r}, which is no evaluation set of the same 'splits'")
    if source.columns.id is None:
        position = re.compile(rf"({'|'.join(map(re.escape, source.splits))})-(0|[1-9]\d*)")
        if strange := [identifier for identifier in source.drop if not position.fullmatch(identifier)]:
            raise ValueError(
                f"'drop' names {strange[0]!r}, but rows without 'columns.id' are called SPLIT-POSITION, "
                f"{next(iter(source.splits))}-0 the first; name the row so"
            )
    if isinstance(source, FilesSource):
        used = [*source.columns.names(), *source.drop_where]
        for split, file in source.splits.items():
            if file.fields and (absent := [name for name in used if name not in file.fields]):
                raise ValueError(
                    f"'columns' or 'drop_where' names {absent[0]!r}, which splits.{split}.fields lacks; "
                    f"{nearest(absent[0], file.fields)}"
                )


def _check_containers(suite: Suite, names: list[str]) -> None:
    """Refuse `contains` where no set, or no independent one, holds the rows."""
    holders = {split: source.contains for source in suite.evaluation for split in source.splits if source.contains}
    for split, holder in holders.items():
        if holder not in names:
            raise ValueError(
                f"evaluation: {split} contains {holder!r}, which is no evaluation set of the suite; it has "
                f"{', '.join(names)}"
            )
        if holder == "validation":
            raise ValueError(
                f"evaluation: {split} contains 'validation', on which checkpoints are chosen; expected an evaluation "
                "set that shares no question with it"
            )
        chain = [split]
        while holder in holders and holder not in chain:
            chain.append(holder)
            holder = holders[holder]
        if holder == split:
            circle = f" (by way of {', '.join(chain[1:])})" if chain[1:] else ""
            raise ValueError(
                f"evaluation: {split} contains {split!r}{circle}, itself; 'contains' names a larger set "
                "that has all of these rows, too: take one of them out"
            )


SOURCE_FILE: TypeAdapter[Suite] = TypeAdapter(
    Annotated[Suite, Field(discriminator="kind"), AfterValidator(_complete_and_distinct)]
)
