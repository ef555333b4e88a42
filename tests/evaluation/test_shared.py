"""Runs that differ in their training alone ask the base once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, training_rows

from grpo_cot.common.files import Row, write_json, write_jsonl
from grpo_cot.recipes.recipe import EvaluateSection, Recipe, load_recipe

pytestmark = pytest.mark.slow
TINY = ROOT / "assets/tiny/model"


def trained(folder: Path, seed: int) -> Path:
    """The model.json of an adapter that only its seed decides."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    settings = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(TINY), settings).save_pretrained(str(folder / "01-grpo"))
    description = {
        "kind": "adapter", "architecture": "causal", "path": "01-grpo", "base": str(TINY), "quantization": None,
        "model": {"dtype": "float32", "attn_implementation": "sdpa", "threads": 1},
    }  # fmt: skip
    write_json(folder / "model.json", description)
    return folder / "model.json"


def asking(**changes: Any) -> Recipe:
    sampling = {"do_sample": False, "max_new_tokens": 6}
    section = EvaluateSection(
        sets=["test"], before=None, sample=None, seed=0, engine="transformers", batch_size=4, sampling=sampling,
        samples={"problems": 2, "count": 2, "sampling": {"do_sample": True, "max_new_tokens": 6}},
    ).model_copy(update=changes)  # fmt: skip
    return load_recipe(ROOT / "tests/pipeline/short.yaml").model_copy(update={"evaluate": section})


def answered(folder: Path, run: str, recipe: Recipe) -> list[Row]:
    from grpo_cot.evaluation.asking import answer_sets

    model_json = folder / run / "model.json"
    with answer_sets(recipe, "recipe", folder / "prompts", model_json, folder / "scratch" / run) as rows:
        return rows


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two trained models of one base, and six problems."""
    for seed, run in enumerate(("run-1", "run-2")):
        trained(tmp_path / run, seed)
    write_jsonl(tmp_path / "prompts/eval-test.jsonl", training_rows()[:6])
    return tmp_path


def test_the_second_run_has_the_bases_answers_of_the_first_and_its_own_of_the_trained_model(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = answered(study, "run-1", asking())
    assert "Taking" not in capsys.readouterr().out
    second = answered(study, "run-2", asking())
    assert "Taking the base's answers from" in capsys.readouterr().out
    assert [row["base"] for row in first] == [row["base"] for row in second]
    assert all(row["base"]["gold_tokens"] for row in second)
    assert [row["trained"] for row in first] != [row["trained"] for row in second]
    (shared,) = (study / "scratch/of-bases").iterdir()
    assert {name.rpartition(" ")[0] for name in json.loads(shared.read_text())} == {
        "base greedy", "base samples", "base solutions"
    }  # fmt: skip
    os.utime(shared, (0, 0))
    answered(study, "run-2", asking())
    assert shared.stat().st_mtime > 0  # taken, so that it is kept
    shared.unlink()  # asked again, the base says the same
    assert answered(study, "run-2", asking()) == second


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"batch_size": 3}, {"sampling": {"do_sample": False, "max_new_tokens": 5}}]
)
def test_another_way_of_asking_asks_again(study: Path, other: dict[str, Any]) -> None:
    answered(study, "run-1", asking())
    answered(study, "run-2", asking(**other))
    first, second = (study / "scratch/of-bases").iterdir()
    os.utime(first, (0, 0))
    os.utime(second, (0, 0))
    answered(study, "run-1", asking())
    assert len(list((study / "scratch/of-bases").iterdir())) == 1  # nobody had taken the other for a week


def test_other_questions_or_settings_of_the_model_ask_again(study: Path) -> None:
    answered(study, "run-1", asking())
    write_jsonl(study / "prompts/eval-test.jsonl", training_rows()[1:7])
    answered(study, "run-1", asking())
    description = json.loads((study / "run-2/model.json").read_text())
    description["model"]["threads"] = 2
    write_json(study / "run-2/model.json", description)
    answered(study, "run-2", asking())
    assert len(list((study / "scratch/of-bases").iterdir())) == 3
