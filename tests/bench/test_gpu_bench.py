"""bench/gpu without a GPU: its measurements run on the embedded model, and the suite says that there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

pytestmark = pytest.mark.slow
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'bench/gpu'}", "CUDA_VISIBLE_DEVICES": ""}


def measured(*command: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the embedded base's shape."""
    folder = tmp_path_factory.mktemp("base")
    make = f"from pathlib import Path; from shape import random_base; random_base('tiny', Path({str(folder)!r}))"
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "TOKENIZERS_DIR"}
    subprocess.run([sys.executable, "-c", make], cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("variant", [pytest.param("bare", marks=pytest.mark.prove), "transformers"])
def test_a_step_is_taken_apart_into_its_parts(base: Path, variant: str) -> None:
    figures = measured(
        "bench/gpu/grpo_steps.py", variant, "--base", str(base), "--completion", "16", "--steps", "2"
    )  # fmt: skip
    parts = [figures[f"{part}_seconds"] for part in ("rollout", "scoring", "attestation", "training")]
    assert sum(parts) == pytest.approx(figures["step_seconds"])
    assert figures["rollout_seconds"] > 0 and figures["training_seconds"] > 0
    assert figures["completions"] == 8
    assert figures["steps"] == 2
    assert 256 < figures["sequence_tokens"] <= 256 + 16  # as long as the recipe allows, to within a sentence


def test_a_process_of_a_measurement_finds_the_packages_that_the_measurement_found() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "from shape import environment; print(environment()['PYTHONPATH'])"], cwd=ROOT,
        env=ENVIRONMENT | {"PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}:/elsewhere"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    folders = found.stdout.strip().split(":")
    assert folders[0] == str(ROOT / "src")
    assert folders[-1] == "/elsewhere"


def test_without_a_gpu_nothing_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "bench/gpu/measure.py"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "measure: there is no GPU that torch can use; nothing was measured"
