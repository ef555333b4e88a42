"""Errors as sentences: the one exception that a user sees, and pydantic's problems in its words."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class InputError(ValueError):
    """Input that a step refuses, as one sentence: file, row, field, the value found, the value expected, the remedy.

    >>> print(InputError("a key \\x1b[2J of a stranger's file"))
    a key \\x1b[2J of a stranger's file
    """

    def __str__(self) -> str:
        """The sentence, in which control characters do nothing to a terminal."""
        said = super().__str__()
        return "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in said
        )


@contextmanager
def naming(where: object) -> Iterator[None]:
    """Put the file that an error of the block is about in front of its sentence."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint that names the nearest valid name, or lists them when none is near.

    >>> nearest("learning_rat", ["learning_rate", "beta"])
    "did you mean 'learning_rate'?"
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of: {', '.join(names)}"


def shown(value: object) -> str:
    """A value as an error message shows it: text in quotes and called so, long ones cut."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'}{' (text)' if isinstance(value, str) else ''}"


Model = TypeVar("Model")


def validated(kind: "type[Model] | TypeAdapter[Model]", value: Any, where: object) -> Model:
    """The value as a pydantic model or an annotated type.

    Raises:
        InputError: it does not fit; the first problem is named.
    """
    from pydantic import TypeAdapter, ValidationError  # here, because programs that read no such file start sooner

    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        # A misspelt key is also a missing one; the misspelling is what helps.
        first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        field = ".".join(_path(first["loc"], value))
        if first["type"] == "extra_forbidden":
            *section, name = map(str, first["loc"])
            schema = adapter.json_schema()
            elsewhere = name in _field_names([schema, *schema.get("$defs", {}).values()])
            names = _field_names(_inside(schema, section))
            hint = "it does not belong in this place; take it out" if elsewhere else nearest(name, names)
            raise InputError(f"{where}: unknown key {field!r}; {hint}") from None
        if first["type"].startswith("union_tag"):  # of a phase, or of a source
            tag = ".".join([*([field] if field else []), first["ctx"]["discriminator"].strip("'")])
            if first["type"] == "union_tag_invalid":
                known = [name.strip("'") for name in first["ctx"]["expected_tags"].split(", ")]
                found = first["input"][first["ctx"]["discriminator"].strip("'")]
                raise InputError(f"{where}: {tag} is {shown(found)}; {nearest(str(found), known)}") from None
            field, first["type"] = tag, "missing"
        if first["type"] == "missing":
            raise InputError(f"{where}: the key {field!r} is missing") from None
        message = first["msg"].removeprefix("Value error, ")
        if not field:
            raise InputError(f"{where}: {message}") from None
        raise InputError(
            f"{where}: {field}: {message[0].lower()}{message[1:]}, found {shown(first['input'])}"
        ) from None


def _path(location: Sequence[int | str], value: Any) -> Iterator[str]:
    """The keys that lead to an error, without what pydantic adds: validators, and the tag that chose a union's member
    (`method` of a phase, `kind` of a source)."""
    tags, above = _tags(value), None
    for part in location:
        if part in tags or str(part).startswith("function-"):
            tags = set()
            continue
        # Phases are counted from 1, as in every other sentence about one.
        yield str(part + 1 if above == "phases" and isinstance(part, int) else part)
        above = part
        inside = isinstance(value, list) and isinstance(part, int) and part < len(value)
        value = value[part] if inside or (isinstance(value, dict) and part in value) else None
        tags = _tags(value)


def _tags(value: Any) -> set[str]:
    chosen = [value.get(key) for key in ("method", "kind")] if isinstance(value, dict) else []
    return {tag for tag in chosen if isinstance(tag, str)}


def _inside(schema: dict[str, Any], location: Sequence[str]) -> list[dict[str, Any]]:
    """The JSON schemas of the place in a value that pydantic's location leads to."""
    definitions = schema.get("$defs", {})

    def members(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "$ref" in part:
            part = definitions[part["$ref"].rpartition("/")[2]]
        yield part
        for key in ("anyOf", "oneOf", "allOf"):
            for member in part.get(key, ()):
                yield from members(member)

    found = list(members(schema))
    for key in location:
        tags = [part["discriminator"]["mapping"] for part in found if "discriminator" in part]
        following = [{"$ref": tag[key]} for tag in tags if key in tag] or [
            child
            for part in found
            for child in (
                part.get("properties", {}).get(key),
                part.get("items"),
                part.get("additionalProperties"),
                *part.get("patternProperties", {}).values(),
            )
            if isinstance(child, dict)
        ]
        # What pydantic adds for itself (a validator's name) leads to no other place.
        found = [member for part in following for member in members(part)] or found
    return found


def _field_names(schemas: Iterable[dict[str, Any]]) -> set[str]:
    return {name for schema in schemas for name in schema.get("properties", {})}
