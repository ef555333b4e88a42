"""The kinds of rows that data sets have, by `rows` in their source file: questions with final answers, which is what a
file without it has, and preferences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from grpo_cot.common.errors import InputError, shown, validated
from grpo_cot.common.files import Row, read_yaml
from grpo_cot.data import examination, preferences, rows, sources
from grpo_cot.data.single_source import SingleSourceFiles, SingleSourceHub, examine_table


class Kind(NamedTuple):
    """Of a kind: the content of a source file, the reader of its rows, the check of `make check`, and the names of all
    splits but the training split."""

    source: TypeAdapter[Any]
    load: Callable[[Any, str], tuple[dict[str, list[Row]], dict[str, Any]]]
    examine: Callable[[Any, Path, Path, bool], None]
    evaluation_sets: Callable[[Any], list[str]]


def _examine_preferences(source: preferences.Preferences, path: Path, root: Path, outside: bool) -> None:
    if isinstance(source, SingleSourceFiles | SingleSourceHub):
        examine_table(source, path, root, outside, lambda root: preferences.load_preferences(source, path.stem, root))


KINDS: dict[str | None, Kind] = {
    None: Kind(sources.SOURCE_FILE, rows.load, examination.examine, sources.evaluation_sets),
    "preference": Kind(
        preferences.PREFERENCE_SOURCE, preferences.load_preferences, _examine_preferences, preferences.evaluation_sets
    ),
}


def read_any(path: Path) -> tuple[Kind, Any]:
    """A source file's kind and content.

    Raises:
        InputError: the file is missing, no YAML, of no kind that there is, or does not fit.
    """
    content = read_yaml(path)
    stated = isinstance(content, dict) and "rows" in content
    name = content["rows"] if stated else None
    if stated and not (isinstance(name, str) and name in KINDS):
        names = ", ".join(kind for kind in KINDS if kind)
        raise InputError(
            f"{path}: rows is {shown(name)}, expected one of: {names}; take it out where rows are questions with final "
            "answers"
        )
    return KINDS[name], validated(KINDS[name].source, content, path)
