"""What fails because of the machine: one sentence each, from the step that meets it."""

import doctest
import errno
import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grpo_cot.common import machine
from grpo_cot.common.errors import InputError
from grpo_cot.common.machine import hold, machine_error
from grpo_cot.common.step import run
from grpo_cot.resuming import exclusive


def test_doctests() -> None:
    assert doctest.testmod(machine).failed == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "no space left on the device (runs/x); make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "runs/x"), "the disk quota is used up (runs/x); make room"),
        (
            OSError(errno.EROFS, "Read-only file system", "runs/x"),
            "the file system is read-only (runs/x); make it writ",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "permission denied (runs/x); give this user"),
        (OSError(errno.EIO, "Input/output error"), "the disk has an error (no file named); look at its health"),
        (MemoryError(), "there is not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "there is not enough memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
            "not enough mem",
        ),
    ],
)
def test_a_step_says_it_in_one_sentence(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(args: Any) -> str:
        raise error

    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    monkeypatch.setenv("DVC_STAGE", "train@x")
    with pytest.raises(SystemExit) as end:
        run(failing, None)
    sentence = str(end.value)
    assert sentence.startswith("train: ") and said in sentence and "\n" not in sentence
    assert sentence.endswith("(`dvc checkout` brings back the earlier outputs of train@x.)")


def test_an_error_of_the_code_keeps_its_traceback() -> None:
    for error in (RuntimeError("shapes differ"), FileNotFoundError(errno.ENOENT, "No such file", "x"), KeyError("x")):
        assert machine_error(error) is None


def test_torchs_own_error_of_too_large_a_tensor_is_one_of_memory() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert machine.out_of_memory(refused.value)


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path: Path) -> None:
    program = f"from grpo_cot.common.machine import hold; print(hold(open({str(tmp_path / 'lock')!r}, 'a')))"
    with (tmp_path / "lock").open("a") as file:
        assert hold(file)
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "True\n"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refusing(*arguments: Any) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refusing)
    with (
        pytest.raises(InputError, match=r"lock: its file system keeps no locks \(No locks available\)"),
        exclusive(tmp_path),
    ):
        pass
