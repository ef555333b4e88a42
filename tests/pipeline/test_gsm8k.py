"""Real GSM8K rows and the evaluation sets beside them through every step, on a model that cannot solve them."""

import json
from pathlib import Path

import pytest
from conftest import folder_from

from pipeline.conftest import new_project

pytestmark = pytest.mark.slow
PARAMS = """\
runs:
  tiny-gsm8k: {recipe: tiny-gsm8k, dataset: gsm8k-suite, base: tiny, image: cpu, seed: 1}
datasets: [gsm8k-suite]
bases: {tiny: cpu}
comparisons: {}
"""


@pytest.mark.prove
def test_gsm8k_goes_through_the_whole_pipeline(gsm8k_folder: Path, tmp_path: Path) -> None:
    evaluation_folder = folder_from("SHARED_DATA_DIR")
    project = new_project(tmp_path, PARAMS)
    project.environment |= {"GSM8K_DIR": str(gsm8k_folder), "EVALUATION_DIR": str(evaluation_folder)}
    project.edit("experiments/tiny-gsm8k.yaml", "sets: [test]", "sets: [test, svamp, mgsm-en]")
    assert len(project.repro()) == 11
    run = project.folder / "runs/tiny-gsm8k"
    summary = json.loads((run / "prompts/summary.json").read_text())
    assert {name: facts["prompts"] for name, facts in summary.items()} == {
        "train": 6973, "validation": 500, "test": 1319, "svamp": 1000, "mgsm-en": 250, "polymath-en": 125,
    }  # fmt: skip
    assert all(facts["too_long"] == [] and facts["also_in_train"] == 0 for facts in summary.values())
    assert summary["mgsm-en"]["also_in"]["test"] == 250
    metrics = json.loads((run / "grade/metrics.json").read_text())
    assert metrics["set"] == "test" and {name: facts["n"] for name, facts in metrics["sets"].items()} == {
        "test": 50, "svamp": 50, "mgsm-en": 50,
    }  # fmt: skip
    assert "not pushed to the Hub" in (run / "report.html").read_text()
    card = (project.folder / "published/tiny-gsm8k/adapter/README.md").read_text()
    assert "- mgsm-en (files, licence cc-by-4.0), 250 rows. All of them are also in test." in card
    assert "- svamp (files, licence mit), 1000 rows." in card
