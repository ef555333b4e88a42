"""Where an interrupted training goes on: a scratch folder by fingerprint, one trainer at a time, whole checkpoints.

DVC deletes a step's outputs before it runs the step again, so checkpoints live outside them. The folder's name is a
fingerprint of everything that decides the result, so a changed recipe never resumes from another recipe's state.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil


def fingerprint(parts: Mapping[str, Any]) -> str:
    """16 hex digits that change with any part; parts are JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder for the life of the block, waiting while another process does.

    An OS lock (flock): it ends with its process, however that ends, so no stale lock is ever left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            print(
                f"Another training (pid {lock.read().strip()}) is at work in {folder}; waiting until it ends.",
                flush=True,
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed.

    The trainer writes trainer_state.json last, so a checkpoint is whole when that file can be read.
    """
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            whole.append((int(json.loads((path / "trainer_state.json").read_text())["global_step"]), path))
        except (OSError, ValueError, KeyError):
            shutil.rmtree(path)
    return max(whole)[1] if whole else None


class Callers:
    """The processes that started this one; when one of them has died, nobody will record what this one produces."""

    def __init__(self) -> None:
        """Remember the processes above this one."""
        self._processes = psutil.Process().parents()

    def alive(self) -> bool:
        """Whether every process that was above this one at the start still runs."""
        return all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in self._processes)
