"""`dvc exp`: trying a setting without copying a recipe, in the checkout and as a queue beside it."""

import json
from typing import Any

import pytest

from pipeline.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.prove]
WEIGHT = "experiments/short.yaml:rewards.correctness"


def table(project: Project) -> dict[str, dict[str, Any]]:
    """The figures and settings of `dvc exp show`, by the experiments' names."""
    text = project.run("dvc", "exp", "show", "--json")
    commits = json.loads(text[text.index("[{") :])
    experiments = [experiment for one in commits for experiment in one["experiments"] or ()]
    return {experiment["name"]: experiment["revs"][0]["data"] for experiment in experiments}


def test_a_setting_is_tried_shown_compared_and_applied(copy: Project) -> None:
    before = json.loads((copy.folder / "runs/short-a/grade/metrics.json").read_text())
    message = copy.run("dvc", "exp", "run", "--name", "two", "--set-param", f"{WEIGHT}=2", "grade@short-a")
    assert "Running stage 'train@short-a'" in message and "Running stage 'prepare@short-a'" not in message
    copy.run("git", "restore", ".")
    copy.run("dvc", "checkout", "--quiet")
    for name, weight in (("three", 3), ("four", 4)):
        copy.run("dvc", "exp", "run", "--queue", "--name", name, "--set-param", f"{WEIGHT}={weight}", "audit@short-a")
    copy.run("dvc", "exp", "run", "--run-all")
    experiments = table(copy)
    recipe = "experiments/short.yaml"
    weights = {name: data["params"][recipe]["data"]["rewards"]["correctness"] for name, data in experiments.items()}
    assert weights == {"two": 2, "three": 3, "four": 4}
    figures = experiments["two"]["metrics"]["runs/short-a/grade/metrics.json"]["data"]
    assert 0 <= figures["trained"]["strict_accuracy"]["value"] <= 1
    assert "rewards.correctness" in copy.run("dvc", "exp", "diff", "three", "four")
    copy.run("python", "workflow/index.py")
    page = (copy.folder / "reports/index.html").read_text()
    shown = page[page.index('id="experiments"') :]
    assert shown.count('<th scope="rowgroup"') == 1  # the others have no graded answers
    assert f"{WEIGHT}: 1.0 → 2" in shown
    copy.run("dvc", "exp", "apply", "three")
    assert "correctness: 3" in (copy.folder / "experiments/short.yaml").read_text()
    assert json.loads((copy.folder / "runs/short-a/grade/metrics.json").read_text()) == before
    copy.run("dvc", "exp", "branch", "two", "weight-two")
    assert "weight-two" in copy.run("git", "branch", "--list", "weight-two")
