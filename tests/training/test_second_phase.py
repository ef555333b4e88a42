"""A later phase that is killed and resumed ends the same to the byte, whatever its reference, in whichever epoch."""

from pathlib import Path
from typing import Any

import pytest
from support import ROOT, training_rows

from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.recipe import Recipe

COMMON = {
    "max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "bf16": False, "save_steps": 2,
    "gradient_checkpointing": False, "logging_steps": 1, "report_to": "none", "optim": "adamw_torch", "beta": 0.1,
}  # fmt: skip
GRPO = COMMON | {
    "num_generations": 4, "max_completion_length": 8, "temperature": 1.0, "loss_type": "dapo", "scale_rewards": "group",
}  # fmt: skip
DPO = COMMON | {"max_length": 256, "loss_type": ["sigmoid"]}
SFT = {name: value for name, value in COMMON.items() if name != "beta"} | {"max_length": 256, "loss_type": "nll"}
SAMPLES = {"problems": 8, "batch_size": 8, "count": 2, "sampling": {"do_sample": True, "max_new_tokens": 8}}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rows"), [("grpo", 16), ("grpo", 3), ("dpo", 16), ("dpo", 3)])
def test_a_later_phase_with_a_reference_resumes_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, rows: int
) -> None:
    """Its checkpoints hold two adapters, the one in training and the reference's; three rows are soon seen once."""
    from transformers import Trainer

    from grpo_cot.training import phases
    from grpo_cot.training.phases import train_phases

    monkeypatch.setattr(phases, "own_completions", lambda *unused: [
        {**row, "right": [row["solution"]], "wrong": ["0"]} for row in training_rows()[:rows]
    ])  # fmt: skip
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    own = {"grpo": {"grpo": GRPO, "rollouts": None}, "dpo": {"dpo": DPO, "samples": SAMPLES}}[method]
    content["phases"] = [
        {"method": "sft", "lora": content["phases"][0]["lora"], "sft": SFT},
        {"method": method, "lora": None, **own},
    ]
    content["rewards"] = {"random": 1.0}
    recipe = Recipe.model_validate(content)

    def train(scratch: Path) -> dict[str, bytes]:
        result = train_phases(recipe, training_rows()[:rows], [], ROOT / "assets/tiny/model", 1, scratch, {})
        return {str(path.relative_to(result)): path.read_bytes() for path in result.rglob("*") if path.is_file()}

    whole = train(tmp_path / "whole")
    save, calls = Trainer._save_checkpoint, []

    def killed(self: Any, *arguments: Any) -> None:
        save(self, *arguments)
        calls.append(1)
        if len(calls) == 5:  # the second one of the second phase
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "_save_checkpoint", killed)
        train(tmp_path / "killed")
    resumed = train(tmp_path / "killed")
    assert [name for name in whole if whole[name] != resumed.get(name)] == []
