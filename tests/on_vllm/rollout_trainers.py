"""Trainers of GRPO with rollouts by vLLM, on the embedded model."""

from pathlib import Path
from typing import Any

from rollout_recipes import BASE, grpo_phase, recipe
from support import training_rows

from grpo_cot.recipes.recipe import Recipe

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def trainer(folder: Path, given: Recipe, base: Path = BASE) -> Any:
    from transformers import set_seed

    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.training.methods.registry import METHODS, trainer_configuration
    from grpo_cot.training.methods.setup import Setup

    phase = grpo_phase(given)
    model = load_base(base, given.model, given.quantization)
    set_seed(7)
    configuration = trainer_configuration(given, phase, folder, 7)
    setup = Setup(given, phase, load_tokenizer(base), training_rows())
    made = METHODS[phase.method].trainer(setup, configuration, model, METHODS[phase.method].dataset(setup))
    for parameter in made.model.parameters():
        if parameter.requires_grad:  # as grpo_cot.training.phases does it
            parameter.data = parameter.data.float()
    return made


def exact(folder: Path, sync: str, **grpo: Any) -> Any:
    """A trainer in float32: only so can the gap be near 0."""
    return trainer(folder, recipe(sync, {"model": {"dtype": "float32"}}, **grpo))


def curve(trained: Any, name: str) -> list[float]:
    return [entry[name] for entry in trained.state.log_history if "reward" in entry and name in entry]
