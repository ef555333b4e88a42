"""Supervised fine-tuning on the data set's worked solutions, rewritten into the schema."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from trl import SFTTrainer

from grpo_cot.common.files import Row
from grpo_cot.recipes.phases import SftPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training.curves import loss_verdict as verdict
from grpo_cot.training.examples import completion_dataset, worked_solutions
from grpo_cot.training.methods.setup import Examples, Setup

__all__ = ["configuration", "dataset", "trainer", "verdict", "with_validation", "workload"]


def configuration(recipe: Recipe, phase: SftPhase) -> dict[str, Any]:
    """The settings that the pipeline adds to the phase's own."""
    return {"completion_only_loss": True}


def dataset(setup: Setup) -> Examples:
    """The worked solutions.

    Raises:
        InputError: there are none, or all are longer than `max_length`.
    """
    return with_validation(setup, worked_solutions(setup.prompts, setup.opening))


def with_validation(setup: Setup, rows: Sequence[Row]) -> Examples:
    """Rows of messages and completion as token ids, beside the worked solutions of the validation split where the phase
    is judged on it."""

    def encoded(rows: Sequence[Row]) -> Dataset:
        extra, longest = setup.recipe.prompt.chat_template_kwargs, setup.phase.settings["max_length"]
        return completion_dataset(rows, setup.tokenizer, extra, longest)

    validation = encoded(worked_solutions(setup.validation, setup.opening)) if setup.selects else None
    return Examples(encoded(rows), validation)


def trainer(setup: Setup, configuration: Any, model: Any, examples: Examples) -> Any:
    """TRL's trainer."""
    return SFTTrainer(
        model=model, args=configuration, train_dataset=examples.train, eval_dataset=examples.validation,
        processing_class=setup.tokenizer, peft_config=setup.adapter,
    )  # fmt: skip


def workload(recipe: Recipe, phase: SftPhase, settings: Mapping[str, Any], *, fresh: bool) -> dict[str, Any]:
    """The largest batch: rows of `max_length`."""
    loss = "chunked" if settings["loss_type"] == "chunked_nll" else "usual"
    return {"length": settings["max_length"], "targets": settings["max_length"], "loss": loss}
