"""Training watched live: the dashboards' files hold the curves and tables of completions, the terminal a bar."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json, read_yaml, write_json, write_jsonl, write_text
from grpo_cot.recipes.recipe import Recipe


def content(**changes: Any) -> dict[str, Any]:
    read = read_yaml(ROOT / "tests/pipeline/short.yaml")
    phase = read["phases"][0]
    phase["grpo"] |= {"max_steps": 4, "max_completion_length": 16, "report_to": ["tensorboard", "wandb", "trackio"]}
    phase["grpo"] |= changes
    phase["show_completions"] = 2
    return dict(read)


@pytest.mark.slow
def test_every_dashboard_gets_curves_and_completions_in_files_of_the_checkout(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shutil.copytree(ROOT / "assets/tiny/model", tmp_path / "base")
    write_json(tmp_path / "base/base.json", {"kind": "path"})
    rows = training_rows()
    rows[0]["messages"][-1]["content"] = "<script>alert(1)</script> # 2 apples"
    write_jsonl(tmp_path / "prompts/train.jsonl", rows)
    write_text(tmp_path / "recipe.yaml", json.dumps(content()))
    places = {
        "recipe": "recipe.yaml", "prompts": "prompts", "base": "base", "seed": "1", "scratch": ".cache/train/watched",
        "curves": "curves", "output": "runs/watched/train",
    }  # fmt: skip
    environment = {"PYTHONPATH": str(ROOT / "src"), "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    step = subprocess.run(
        [sys.executable, ROOT / "scripts/train.py", *(word for name in places for word in (f"--{name}", places[name]))],
        cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert step.returncode == 0, step.stderr
    cache = tmp_path / ".cache"

    events = EventAccumulator(str(cache / "tensorboard/watched"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/reward")] == [1, 2, 3, 4]
    texts = events.Tensors("completions/text_summary")
    assert [text.step for text in texts] == [2, 4] and b"advantage" in texts[0].tensor_proto.string_val[0]

    tables = sorted(cache.glob("wandb/offline-run-*/files/media/table/completions_*.table.json"))
    columns = ["step", "prompt", "completion", *content()["rewards"], "advantage"]
    assert [read_json(table)["columns"] for table in tables] == [columns, columns]
    assert len(read_json(tables[0])["data"]) == 16

    with sqlite3.connect(cache / "trackio/grpo-cot.db") as database:
        logged = [(name, json.loads(text)) for name, text in database.execute("SELECT run_name, metrics FROM metrics")]
    [name] = {name for name, _ in logged}
    assert name.startswith("watched 01-grpo ") and len(name) == len("watched 01-grpo ") + 6
    assert [entry["train/global_step"] for _, entry in logged if "train/reward" in entry] == [1, 2, 3, 4]
    shown = [entry["completions"] for _, entry in logged if "completions" in entry]
    assert len(shown) == 2 and shown[0]["_type"] == "trackio.table"

    bars = [line for line in step.stderr.replace("\r", "\n").splitlines() if "/4 [" in line]
    assert len(bars) >= 4 and not any("advantage" in line or "'loss'" in line for line in step.stderr.splitlines())


def test_a_models_text_is_indented_for_tensorboard() -> None:
    from grpo_cot.training.methods.watching import as_markdown

    columns = {"step": [2], "prompt": ["a\nb"], "completion": ["<b>x</b>\n# y"], "correctness": [0.5]}
    assert as_markdown(columns) == (
        "**correctness 0.5**\n\nprompt\n\n    a\n    b\n\ncompletion\n\n    <b>x</b>\n    # y"
    )


def test_after_a_resumption_the_time_left_is_that_of_the_steps_made_since() -> None:
    from transformers import TrainerControl, TrainerState

    from grpo_cot.training.methods.setup import Progress

    progress, state = Progress(), TrainerState(max_steps=100)
    state.global_step = 90
    progress.on_train_begin(None, state, TrainerControl())
    state.global_step = 91
    progress.on_step_end(None, state, TrainerControl())
    shown = progress.training_bar.format_dict
    progress.training_bar.close()
    assert (shown["n"], shown["initial"], shown["total"]) == (91, 90, 100)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"report_to": "none"}, "show_completions is 2, but grpo.report_to names no dashboard"),
        ({"logging_steps": 4, "save_steps": 4}, "show_completions is 2, no multiple of the 4 of grpo.logging_steps"),
    ],
    ids=str,
)
def test_tables_that_nobody_would_see_are_refused(changes: dict[str, Any], says: str) -> None:
    from grpo_cot.checks.rules import check_training_sections

    with pytest.raises(InputError) as error:
        check_training_sections(Recipe.model_validate(content(**changes)), "recipe.yaml")
    assert says in str(error.value)
