"""Where an interrupted step goes on: a scratch folder by fingerprint, one process at a time, whole checkpoints.

DVC deletes a step's outputs before it runs the step again, so checkpoints live outside them. The folder's name is a
fingerprint of everything that decides the result: a changed recipe never resumes from another recipe's state.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import zipfile
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from grpo_cot.common.files import file_hash, write_json
from grpo_cot.common.machine import hold

KEPT = 7 * 24 * 3600  # seconds after the last write, of the scratch folders of other settings
DECISIVE = "decisive.json"
TOLD = b"\nTold to end (SIGTERM): ending after the step from which training can go on. A second time ends at once.\n"


def fingerprint(parts: Mapping[str, Any]) -> str:
    """16 hex digits that change with any part; parts are JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder for the life of the block, waiting while another process does.

    Raises:
        InputError: the folder's file system keeps no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        if not hold(lock):
            lock.seek(0)
            print(
                f"Another process (pid {lock.read().strip()}) is at work in {folder}; waiting until it ends.",
                flush=True,
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def loaded_code() -> dict[str, str]:
    """The sha256 of every module of this package, of the data beside it, and of the user's rewards, if imported.

    A step that may resume is bound to the code that it runs: an edit elsewhere leaves its unfinished work in use.
    """
    files = {
        name: module.__file__
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("grpo_cot", "my_rewards") and getattr(module, "__file__", None)
    }
    # Beside the user's rewards lies the checkout, and no code.
    rooms = {Path(file).parent for name, file in files.items() if file and name != "my_rewards"}
    data = {f"{room.name}/{path.name}": path for room in rooms for path in room.glob("*.yaml")}
    return {name: file_hash(Path(file)) for name, file in sorted({**files, **data}.items()) if file}


@contextmanager
def resumable(root: Path, decisive: Mapping[str, Any]) -> Iterator[Path]:
    """A scratch folder in `root` for a step's work, which still holds the work of an interrupted run of the same step.

    One process at a time is in the block. `decisive` says everything that decides the result (JSON values); it and the
    code that is loaded name the folder. The folder is removed when the block succeeds, and kept when it fails. Folders
    of other settings or code are named, and removed when the step starts a week after they were last written.
    """
    callers = Callers()
    parts = {**decisive, "code": loaded_code()}
    folder = root / fingerprint(parts)
    with exclusive(root):
        _tidy(root, folder, parts)
        write_json(folder / DECISIVE, parts)
        yield folder
        if callers.alive():  # otherwise nobody records this result, and the next run takes it over
            shutil.rmtree(folder)


def _tidy(root: Path, own: Path, parts: Mapping[str, Any]) -> None:
    """Name the folders of other settings; remove those that nothing was written to for a week."""
    for other in sorted(path for path in root.iterdir() if path.is_dir() and path != own):
        written = max((path.stat().st_mtime for path in other.rglob("*") if path.is_file()), default=0.0)
        if time.time() - written > KEPT:
            shutil.rmtree(other)
            print(f"Removed {other}: nothing was written there for a week.", flush=True)
        else:
            until = time.strftime("%Y-%m-%d %H:%M", time.localtime(written + KEPT))
            print(
                f"Kept {other}, of an interrupted run that differs in {_difference(other, parts)}: put that back to go "
                f"on from there. It is removed after {until}.",
                flush=True,
            )


def _difference(other: Path, parts: Mapping[str, Any]) -> str:
    """The parts, and of code the modules, in which another folder's run differs from this one."""
    try:
        others = json.loads((other / DECISIVE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "something that it did not write down"
    names = []
    for name in sorted(others.keys() | parts.keys()):
        theirs, ours = others.get(name), parts.get(name)
        if isinstance(theirs, dict) and isinstance(ours, dict):
            names += [f"{name}.{key}" for key in sorted(theirs.keys() | ours) if theirs.get(key) != ours.get(key)]
        elif theirs != ours:
            names.append(name)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


@contextmanager
def noticing_termination(*, led: bool = False) -> Iterator[Callable[[], bool]]:
    """Inside, the first SIGTERM ends nothing; the yielded function says whether it came. The second ends this process.

    Schedulers send it a while before they take a machine away, and so does `docker stop`. Only the main thread may be
    inside. Processes that this one forks end as ever. A process that is `led` by another one leaves it to that one to
    speak and to end all: the signal may reach it from several sides.
    """
    owner, came = os.getpid(), False

    def notice(number: int, frame: object) -> None:
        nonlocal came
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif came and not led:
            os._exit(128 + number)  # the default of the first process of a container would be to do nothing
        came = True
        if not led:
            os.write(2, TOLD)  # not print: the signal may have come in the middle of one

    before = signal.signal(signal.SIGTERM, notice)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, before)


class Journal(UserDict[str, Any]):
    """Finished pieces of work by name (JSON values), in a file that grows with each; a kill loses the one in progress.

    A line that a kill cut off is removed when the file is opened again.
    """

    def __init__(self, path: Path) -> None:
        """Read what the file holds, if there is one."""
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
            try:
                name, value = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            self.data[name] = value
            whole += len(line)
        if path.is_file():
            os.truncate(path, whole)

    def __setitem__(self, name: str, value: Any) -> None:
        """Append a piece; on return it is in the file."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, value]) + "\n")
        self.data[name] = value


def last_whole_checkpoint(folder: Path, processes: int = 1) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed.

    The trainer writes trainer_state.json last, so a checkpoint is whole when that file can be read. Of several
    processes, each writes its random state by itself and may still be at it then: those files must be whole, too.
    """
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            step = int(json.loads((path / "trainer_state.json").read_text())["global_step"])
        except (OSError, ValueError, KeyError):
            step = None
        states = [path / f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else []
        if step is None or not all(zipfile.is_zipfile(state) for state in states):  # torch saves zip archives
            shutil.rmtree(path, ignore_errors=True)  # the other processes remove it as well
        else:
            whole.append((step, path))
    return max(whole)[1] if whole else None


class Callers:
    """The processes that started this one; when one of them has died, nobody will record what this one produces."""

    def __init__(self, nearest: int | None = None) -> None:
        """Remember the processes above this one: so many of the nearest, or all."""
        self._processes = psutil.Process().parents()[:nearest]

    def alive(self) -> bool:
        """Whether every process that was above this one at the start still runs."""
        return all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in self._processes)
