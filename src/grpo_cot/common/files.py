"""Reading and writing the pipeline's files: errors that name file and row, and writes that are whole or absent."""

import copy
import hashlib
import json
import math
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from grpo_cot.common.errors import InputError

Row = dict[str, Any]
Message = dict[str, str]  # one turn of a conversation: role and content


def _unreadable(path: Path, error: OSError | UnicodeError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file")
    return InputError(f"{path}: {'not UTF-8 text' if isinstance(error, UnicodeError) else error.strerror}")


def read_text(path: Path) -> str:
    """A text file's content, without the byte order mark that some editors and spreadsheets put before it.

    Raises:
        InputError: the file is missing or no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise _unreadable(path, error) from None


def unmarked(line: str) -> str:
    """A line without a byte order mark before it: files joined end to end have one in the middle."""
    return line.removeprefix("\ufeff")


def read_yaml(path: Path) -> Any:
    """A YAML 1.2 file's content, read by the parser that DVC uses (`1e-5` is a number).

    Raises:
        InputError: the file is missing or no YAML, or a value is none that a step could write down again: a date,
            NaN, an infinity, a whole number of more than 64 bits, text that is no UTF-8.
    """
    try:
        content = copy.deepcopy(_parsed(read_text(path)))
        unfit = next(_unfit(content, ()), None)
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if unfit:
        place, problem = unfit
        raise InputError(f"{path}: {'.'.join(place) or 'the file'}: {problem}")
    return content


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """A YAML text's content. `make check` reads a recipe once for each run that names it, and the parser is slow."""
    return YAML(typ="safe", pure=True).load(text)


def _unfit(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The places in a file's content, and what is wrong with the value there."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, int | str) and not isinstance(key, bool):
                yield from _unfit(key, (*place, "a key"))
                yield from _unfit(inner, (*place, str(key)))
            else:
                yield place, f"expected keys that are text or whole numbers, found {key!r:.60}"
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            yield place, f"expected text that can be written in UTF-8, found {value!r:.60}"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield place, f"expected a finite number, found {value}"
    elif value is not None and not isinstance(value, bool | int):
        yield place, f"expected text, a number, true, false or null, found {value} ({type(value).__name__}); quote text"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield place, "expected a number of at most 64 bits"


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        InputError: the file is missing or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno} is not valid JSON: {error.msg}") from None


def read_jsonl(path: Path) -> list[Row]:
    """A JSON Lines file's rows.

    Raises:
        InputError: the file is missing or empty, or a line is not a JSON object (the message names the line).
    """
    rows = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(map(unmarked, lines), start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair cannot be written again
                except (ValueError, RecursionError) as error:
                    reason = error.msg if isinstance(error, json.JSONDecodeError) else error
                    raise InputError(f"{path}: line {number} is not valid JSON: {reason}") from None
                if not isinstance(row, dict):
                    raise InputError(f"{path}: line {number} is a JSON {type(row).__name__}, expected an object")
                rows.append(row)
    except (OSError, UnicodeError) as error:
        raise _unreadable(path, error) from None
    if not rows:
        raise InputError(f"{path}: the file is empty, expected at least one row")
    return rows


def _temporary(path: Path) -> Path:
    # Not the process's number: that of every container's first process is 1, and they may share the folder.
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or nothing: to a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; NaN and infinities are refused, for they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write a JSON Lines file, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A fresh folder to fill, which takes `path`'s place when the block succeeds and vanishes when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_hash(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder and the folders in it, by its path within."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in paths}
