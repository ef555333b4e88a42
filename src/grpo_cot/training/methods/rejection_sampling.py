"""Rejection-sampling fine-tuning (Yuan et al., 2023): supervised, on the model's own right completions."""

from collections.abc import Mapping
from typing import Any

from grpo_cot.recipes.phases import RejectionSamplingPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training.examples import right_completions
from grpo_cot.training.methods import sft
from grpo_cot.training.methods.setup import Examples, Setup
from grpo_cot.training.methods.sft import configuration, trainer, verdict
from grpo_cot.training.workload import drawn_samples

__all__ = ["configuration", "dataset", "trainer", "verdict", "workload"]


def dataset(setup: Setup) -> Examples:
    """The right ones among the model's own completions.

    Raises:
        InputError: none is right, or all are longer than `max_length`.
    """
    return sft.with_validation(setup, right_completions(setup.samples))


def workload(
    recipe: Recipe, phase: RejectionSamplingPhase, settings: Mapping[str, Any], *, fresh: bool
) -> dict[str, Any]:
    """The largest batch: rows of `max_length`, after samples at full length."""
    return {**sft.workload(recipe, phase, settings, fresh=fresh), **drawn_samples(recipe, phase.samples)}
