"""One stage, run and recorded by DVC as `dvc repro` would, with a dvc.lock that may grow: `stage.py STAGE`.

DVC reads all of dvc.lock and writes it anew whenever it records a stage, in pure Python: with 24 runs in it nine
seconds for each of 235 stages, in which a kill leaves half of the file. Here a stage's own lines alone are read and put
in, the same ones that DVC writes, and the file is replaced as a whole.
"""

import os
import re
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from dvc import dvcfile
from dvc.cli import main as dvc
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import dumps_yaml, parse_yaml

HEAD = "schema: '2.0'\nstages:\n"
BODY = re.compile(r"(?:  .*\n)*")  # nothing but stages follows
ARGUMENTS = ["--wait-for-lock", "repro", "--single-item", "--allow-missing"]
_dump_stages, _load = dvcfile.Lockfile.dump_stages, dvcfile.Lockfile._load


def lines_of(text: str, name: str) -> re.Match[str] | None:
    """A stage's lines in the text of a dvc.lock."""
    return re.search(rf"^  {re.escape(name)}:\n(?:    .*\n)*", text, re.MULTILINE)


def is_plain(text: str) -> bool:
    """Whether a dvc.lock holds stages alone, as DVC writes them."""
    return text.startswith(HEAD) and bool(BODY.fullmatch(text, len(HEAD)))


def with_stage(text: str, name: str, lines: str) -> str:
    """The text of a dvc.lock in which a stage has these `lines`, at its old place or at the end.

    >>> text = HEAD + "  a:\\n    cmd: x\\n  b:\\n    cmd: y\\n"
    >>> with_stage(text, "a", "  a:\\n    cmd: z\\n") == HEAD + "  a:\\n    cmd: z\\n  b:\\n    cmd: y\\n"
    True
    """
    old = lines_of(text, name)
    return text[: old.start()] + lines + text[old.end() :] if old else text + lines


def dump_stages(lock: Any, stages: Any, **settings: Any) -> None:
    """In the place of DVC's own method: record stages in its lock file."""
    path = Path(lock.path)
    text = path.read_text(encoding="utf-8") if path.is_file() else HEAD
    if not is_plain(text):
        _dump_stages(lock, stages, **settings)
        return
    changed = text
    for stage in stages:
        lines = dumps_yaml({"stages": to_lockfile(stage, **settings)}).removeprefix("stages:\n")
        changed = with_stage(changed, stage.name, lines)
    if changed == text:
        return
    dvcfile.logger.info("Updating lock file '%s'", lock.relpath)
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".dvc.lock.", delete=False) as file:
        file.write(changed)
    mode = path.stat().st_mode if path.is_file() else 0o666 & ~_umask()
    written = Path(file.name)
    written.chmod(mode)
    written.replace(path)
    lock.repo.scm_context.track_file(lock.relpath)


def load(lock: Any, **settings: Any) -> tuple[Any, str]:
    """In the place of DVC's own method: of a lock file no more than the stage that is run, which is all that its run
    looks at (`--single-item`)."""
    path = Path(lock.path)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if settings or not is_plain(text):
        whole: tuple[Any, str] = _load(lock, **settings)
        return whole
    own = lines_of(text, sys.argv[1])
    text = HEAD + own[0] if own else "schema: '2.0'\n"
    return lock.validate(parse_yaml(text, lock.path), lock.relpath), text


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


if __name__ == "__main__":
    dvcfile.Lockfile.dump_stages, dvcfile.Lockfile._load = dump_stages, load
    sys.exit(dvc([*ARGUMENTS, *sys.argv[1:]]))
