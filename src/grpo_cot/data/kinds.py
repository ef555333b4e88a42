"""The kinds of rows that data sets have, by `rows` in their source file: questions with final answers, which is what a
file without it has, preferences, and texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from grpo_cot.common.errors import InputError, shown, validated
from grpo_cot.common.files import Row, read_yaml
from grpo_cot.data import examination, rows, single_source, sources
from grpo_cot.data.preferences import PREFERENCE_SOURCE, load_preferences
from grpo_cot.data.texts import TEXT_SOURCE, load_texts

Loader = Callable[..., tuple[dict[str, list[Row]], dict[str, Any]]]


class Kind(NamedTuple):
    """Of a kind: the content of a source file, the reader of its rows, the check of `make check`, and the names of all
    splits but the training split."""

    source: TypeAdapter[Any]
    load: Loader
    examine: Callable[[Any, Path, Path, bool], None]
    evaluation_sets: Callable[[Any], list[str]]


def _of_a_single_source(source: TypeAdapter[Any], load: Loader) -> Kind:
    def examine(content: Any, path: Path, root: Path, outside: bool) -> None:
        if isinstance(content, single_source.SingleSourceFiles | single_source.SingleSourceHub):
            single_source.examine_table(content, path, root, outside, lambda root: load(content, path.stem, root))

    return Kind(source, load, examine, single_source.evaluation_sets)


KINDS: dict[str | None, Kind] = {
    None: Kind(sources.SOURCE_FILE, rows.load, examination.examine, sources.evaluation_sets),
    "preference": _of_a_single_source(PREFERENCE_SOURCE, load_preferences),
    "text": _of_a_single_source(TEXT_SOURCE, load_texts),
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
