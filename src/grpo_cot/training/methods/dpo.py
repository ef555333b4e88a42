"""Direct preference optimisation (Rafailov et al., 2023) on pairs of the data set, or of the model's own completions,
right and wrong."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from trl import DPOTrainer

from grpo_cot.recipes.phases import DpoPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training.curves import loss_verdict as verdict
from grpo_cot.training.examples import own_pairs, preference_dataset, published_pairs
from grpo_cot.training.methods.setup import Examples, Setup, reference_settings
from grpo_cot.training.workload import drawn_samples

__all__ = ["EncodedDPOTrainer", "configuration", "dataset", "trainer", "verdict", "workload"]


def configuration(recipe: Recipe, phase: DpoPhase) -> dict[str, Any]:
    """The settings that the pipeline adds to the phase's own."""
    return reference_settings(recipe)


def dataset(setup: Setup) -> Examples:
    """The pairs as token ids.

    Raises:
        InputError: there is no pair, or all pairs are longer than `max_length`.
    """
    extra, longest = setup.recipe.prompt.chat_template_kwargs, setup.phase.settings["max_length"]
    pairs = own_pairs(setup.samples) if setup.phase.own_samples else published_pairs(setup.prompts, setup.opening)
    return Examples(preference_dataset(pairs, setup.tokenizer, extra, longest))


class EncodedDPOTrainer(DPOTrainer):  # type: ignore[misc]  # TRL is not followed by mypy here
    """DPOTrainer on rows that are token ids already: its own preparation adds what a template writes after the end
    token, or no end token at all, and generation and SFT would not agree with it."""

    def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
        return dataset


def trainer(setup: Setup, configuration: Any, model: Any, examples: Examples) -> Any:
    """TRL's trainer, without its own preparation of the rows."""
    return EncodedDPOTrainer(
        model=model, args=configuration, train_dataset=examples.train, processing_class=setup.tokenizer,
        peft_config=setup.adapter,
    )  # fmt: skip


def workload(recipe: Recipe, phase: DpoPhase, settings: Mapping[str, Any], *, fresh: bool) -> dict[str, Any]:
    """The largest batch: both sides of the pairs at full length, after samples at full length."""
    return {
        "rows": 2 * settings["per_device_train_batch_size"], "length": settings["max_length"],
        "targets": settings["max_length"], "loss": "preference", "reference": not fresh,
        **(drawn_samples(recipe, phase.samples) if phase.samples else {}),
    }  # fmt: skip
