"""A new training method is a class, a file and a line: shown by adding one to a copy of the library and training it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

METHOD = '''"""Supervised fine-tuning on the first half of the worked solutions."""

from grpo_cot.training.examples import worked_solutions
from grpo_cot.training.methods import sft
from grpo_cot.training.methods.setup import Examples, Setup
from grpo_cot.training.methods.sft import configuration, trainer, verdict, workload

__all__ = ["configuration", "dataset", "trainer", "verdict", "workload"]


def dataset(setup: Setup) -> Examples:
    """The first half of the worked solutions."""
    return sft.with_validation(setup, worked_solutions(setup.prompts[: len(setup.prompts) // 2], setup.opening))
'''
PHASE = '''class HalfPhase(SftPhase):
    """Half of the solutions."""

    method: Literal["half"]


# One phase of training.'''
TRAIN = """
import json, sys
from pathlib import Path
from support import ROOT, training_rows
from grpo_cot.checks.recipe import check_training
from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training.phases import train_phases

content = read_yaml(ROOT / "tests/pipeline/short.yaml")
settings = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "max_length": 256,
            "loss_type": "nll", "bf16": False, "logging_steps": 1, "report_to": "none"}
content["phases"] = [{"method": "half", "lora": content["phases"][0]["lora"], "sft": settings}]
recipe = Recipe.model_validate(content)
check_training(recipe, "recipe")
result = train_phases(recipe, training_rows(), [], ROOT / "assets/tiny/model", 1, Path(sys.argv[1]), {})
print(json.loads((result / "01-half/configuration.json").read_text())["rows"])
"""


@pytest.mark.slow
def test_a_trivial_method_touches_three_files(tmp_path: Path) -> None:
    library = tmp_path / "src/grpo_cot"
    shutil.copytree(ROOT / "src/grpo_cot", library, ignore=shutil.ignore_patterns("__pycache__"))

    def edit(path: str, *changes: tuple[str, str]) -> None:
        text = (library / path).read_text()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (library / path).write_text(text)

    (library / "training/methods/half.py").write_text(METHOD)
    edit("recipes/phases.py", ("# One phase of training.", PHASE), ("| Seq2SeqPhase,", "| Seq2SeqPhase | HalfPhase,"))
    edit(
        "training/methods/registry.py",
        ("import dpo, grpo,", "import dpo, grpo, half,"),
        ('    "sft": sft,\n', '    "sft": sft,\n    "half": half,\n'),
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, tmp_path / "scratch"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["8"], done.stderr[-3000:]
