"""Real GSM8K rows through every step, on a model that cannot solve them."""

import json
from pathlib import Path

import pytest

from pipeline.conftest import new_project

pytestmark = pytest.mark.slow
PARAMS = """\
runs:
  tiny-gsm8k: {recipe: tiny-gsm8k, dataset: gsm8k, base: tiny, image: cpu, seed: 1}
datasets: [gsm8k]
bases: [tiny]
comparisons: {}
"""


def test_gsm8k_goes_through_the_whole_pipeline(gsm8k_folder: Path, tmp_path: Path) -> None:
    project = new_project(tmp_path, PARAMS)
    project.environment["GSM8K_DIR"] = str(gsm8k_folder)
    assert len(project.repro()) == 11
    run = project.folder / "runs/tiny-gsm8k"
    summary = json.loads((run / "prompts/summary.json").read_text())
    assert {name: facts["prompts"] for name, facts in summary.items()} == {"train": 7473, "test": 1319}
    assert all(facts["too_long"] == [] and facts["also_in_train"] == 0 for facts in summary.values())
    metrics = json.loads((run / "grade/metrics.json").read_text())
    assert metrics["n"] == 50
    assert "not pushed to the Hub" in (run / "report.html").read_text()
    assert "MIT" in (project.folder / "published/tiny-gsm8k/adapter/README.md").read_text()
