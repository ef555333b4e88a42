"""What several tests share."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grpo_cot.common.files import read_yaml
from grpo_cot.problems.generators import problems

ROOT = Path(__file__).parent.parent


def outputs_in_lock(folder: Path) -> dict[str, Any]:
    """dvc.lock's stages, but for the records and reports, which hold times: command, parameters, hashes."""

    def repeatable(entry: Any) -> bool:
        return "record/" not in entry["path"] and not entry["path"].endswith("report.html")

    stages = read_yaml(folder / "dvc.lock")["stages"]
    for stage in stages.values():
        for kind in ("deps", "outs"):
            stage[kind] = [entry for entry in stage.get(kind, []) if repeatable(entry)]
    return dict(stages)


def training_rows() -> list[dict[str, Any]]:
    """Sixteen rows as the step prepare leaves them, less what training does not read."""
    return [
        {
            "id": str(number), "messages": [{"role": "user", "content": problem.question}], "gold": str(problem.value),
            "locale": "en", "solution": "\n".join(problem.steps),
        }
        for number, problem in enumerate(itertools.islice(problems("train", 3), 16))
    ]  # fmt: skip


def tell_at(monkeypatch: pytest.MonkeyPatch, trainer: Any, call: int) -> None:
    """Tell this process to end, as a scheduler does, at that training step of all; `trainer` is its class."""
    _at(monkeypatch, trainer, call, lambda: os.kill(os.getpid(), signal.SIGTERM))


def kill_at(monkeypatch: pytest.MonkeyPatch, trainer: Any, call: int) -> None:
    """End a training in the middle of its work, at that training step of all; `trainer` is its class."""

    def end() -> None:
        raise KeyboardInterrupt

    _at(monkeypatch, trainer, call, end)


def _at(monkeypatch: pytest.MonkeyPatch, trainer: Any, call: int, happens: Callable[[], None]) -> None:
    step, calls = trainer.training_step, 0

    def interrupted(self: Any, *arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            happens()
        return step(self, *arguments, **settings)

    monkeypatch.setattr(trainer, "training_step", interrupted)
