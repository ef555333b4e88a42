"""Recipes with a GRPO phase on the embedded model, and the trainer that a recipe makes."""

from pathlib import Path
from typing import Any

from support import ROOT, training_rows

from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.recipe import Recipe

BASE = ROOT / "assets/tiny/model"
SFT = {
    "max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-4, "max_length": 256, "loss_type": "nll",
    "bf16": False, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
}  # fmt: skip


def recipe(rewards: dict[str, float], *, first: str = "sft", **grpo: Any) -> Recipe:
    """SFT for a step and then GRPO for two, or GRPO alone."""
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    [phase] = content["phases"]
    lora = phase["lora"]
    phase["grpo"] |= {"max_steps": 2, "save_strategy": "no", "max_completion_length": 48} | grpo
    if first == "sft":
        phase["lora"] = None
        content["phases"] = [{"method": "sft", "lora": lora, "sft": SFT}, phase]
    content |= {"rewards": rewards, "quantization": None}
    return Recipe.model_validate(content)


def trainer_of(given: Recipe, folder: Path) -> Any:
    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.training.methods.registry import METHODS, trainer_configuration
    from grpo_cot.training.methods.setup import Setup

    [phase] = given.phases
    setup = Setup(given, phase, load_tokenizer(BASE), training_rows())
    model = load_base(BASE, given.model, given.quantization)
    configuration = trainer_configuration(given, phase, folder, 1)
    return METHODS["grpo"].trainer(setup, configuration, model, METHODS["grpo"].dataset(setup))
