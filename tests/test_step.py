"""The record of a step: on which processor it ran, for that decides the bytes of what a CPU trains."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from grpo_cot.common.step import processor, run


def test_the_record_names_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["nothing.py", "--record", str(tmp_path / "record.json")])
    run(lambda args: "did nothing", None)
    assert json.loads((tmp_path / "record.json").read_text())["processor"] == processor() != ""


def test_torchs_choice_of_instructions_is_named_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    backends = SimpleNamespace(cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX512"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(backends=backends))
    assert processor().endswith(" (AVX512)")
