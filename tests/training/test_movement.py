"""How far a policy has moved: not at a rate that is too small, which the verdict says, and no byte of a training."""

from pathlib import Path
from typing import Any

import pytest
from support import ROOT, kill_at, training_rows

from grpo_cot.common.files import read_json, read_yaml
from grpo_cot.recipes.recipe import Recipe

TINY = ROOT / "assets/tiny/model"
CHANGE = "policy/largest_change"
SAYS = "the policy hardly moves; raise the learning rate"


def recipe(**grpo: Any) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    phase = content["phases"][0]
    phase["lora"] |= {"lora_dropout": 0.1}  # which must be off where the policy is asked, and on again afterwards
    phase["grpo"] |= {"max_steps": 10, "save_steps": 2, **grpo}
    return Recipe.model_validate(content | {"rewards": {"random": 1.0}})


def train(wanted: Recipe, scratch: Path) -> Path:
    from grpo_cot.training.phases import train_phases

    return train_phases(wanted, training_rows(), [], TINY, 3, scratch, {}) / "01-grpo"


def verdict(result: Path, wanted: Recipe) -> str:
    from grpo_cot.training.methods import grpo

    return " ".join(grpo.verdict(read_json(result / "log.json"), wanted.phases[0]))  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_curve_tells_a_rate_that_moves_the_policy_from_one_that_does_not(tmp_path: Path) -> None:
    still, moving = recipe(learning_rate=1e-8), recipe(learning_rate=1e-3)
    folders = train(still, tmp_path / "still"), train(moving, tmp_path / "moving")
    curves = [[entry.get(CHANGE, -1) for entry in read_json(folder / "log.json")][:10] for folder in folders]
    assert all(0 < change < 0.001 for change in curves[0])
    assert curves[1][-1] > 0.05 and curves[1][-1] > 2 * curves[1][0]
    assert SAYS in verdict(folders[0], still) and SAYS not in verdict(folders[1], moving)


@pytest.mark.slow
def test_a_warm_up_a_rare_log_and_cut_completions_accuse_nobody(tmp_path: Path) -> None:
    warm = recipe(warmup_steps=2, lr_scheduler_type="constant_with_warmup")
    curve = [entry.get(CHANGE) for entry in read_json(train(warm, tmp_path / "warm") / "log.json")]
    assert curve[0] == 0 and SAYS not in verdict(tmp_path / "warm/result/01-grpo", warm)
    rare = recipe(logging_steps=5, save_steps=5)
    logged = [entry.get(CHANGE) for entry in read_json(train(rare, tmp_path / "rare") / "log.json")]
    every = [entry.get(CHANGE) for entry in read_json(train(recipe(), tmp_path / "every") / "log.json")]
    assert logged[:2] == [every[4], every[9]]  # and no mean of several
    cut = recipe(max_completion_length=1, mask_truncated_completions=True)
    assert not any(CHANGE in entry for entry in read_json(train(cut, tmp_path / "cut") / "log.json"))
    assert SAYS not in verdict(tmp_path / "cut/result/01-grpo", cut)


@pytest.mark.slow
def test_it_changes_nothing_of_a_training_and_a_killed_one_has_the_same_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    from grpo_cot.training.methods import grpo

    wanted = recipe()
    whole = train(wanted, tmp_path / "whole")
    with monkeypatch.context() as patched:
        kill_at(patched, GRPOTrainer, 6)
        with pytest.raises(KeyboardInterrupt):
            train(wanted, tmp_path / "killed")
    killed = train(wanted, tmp_path / "killed")
    assert (killed / "log.json").read_bytes() == (whole / "log.json").read_bytes()
    monkeypatch.setattr(grpo, "measure_movement", lambda trainer: None)
    alone = train(wanted, tmp_path / "alone")
    weights = "adapter_model.safetensors"
    assert (alone / weights).read_bytes() == (whole / weights).read_bytes() == (killed / weights).read_bytes()
    log = [{name: value for name, value in entry.items() if name != CHANGE} for entry in read_json(whole / "log.json")]
    assert log == read_json(alone / "log.json")
