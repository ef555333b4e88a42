"""A phase before its trainer is made: its settings, its rows, and what several methods hand to their trainers alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase

from grpo_cot.common.files import Row
from grpo_cot.models.opening import Opening, opening
from grpo_cot.recipes.phases import Phase
from grpo_cot.recipes.recipe import Recipe


@dataclass(frozen=True)
class Setup:
    """A phase of a recipe with the rows that it trains on.

    `samples` are completions of the model's own (`grpo_cot.training.examples.own_completions`), for a method that draws
    them. `validation` is the split on which a phase chooses its checkpoint.
    """

    recipe: Recipe
    phase: Phase
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[Row]
    validation: Sequence[Row] = ()
    samples: Sequence[Row] = ()

    @property
    def adapter(self) -> LoraConfig | None:
        """The adapter that the trainer is to make; None where the model has one, or all weights are trained."""
        if self.phase.lora is None or self.recipe.backend == "unsloth":
            return None
        return LoraConfig(task_type="CAUSAL_LM", **self.phase.lora)

    @property
    def opening(self) -> Opening:
        """What the prompts' end opens."""
        return opening(self.tokenizer, self.prompts[0]["messages"], self.recipe.prompt)

    @property
    def selects(self) -> bool:
        """Whether the phase is judged on the validation split while it trains."""
        return str(self.phase.settings.get("eval_strategy", "no")) != "no"


class Examples(NamedTuple):
    """What a trainer trains on, and what it is judged on while it trains, if anything."""

    train: Dataset
    validation: Dataset | None = None


def reference_settings(recipe: Recipe) -> dict[str, Any]:
    """How a trainer loads its reference where there is no adapter to switch off: it must compute as the policy does."""
    if recipe.phases[0].lora is not None:
        return {}
    return {"model_init_kwargs": recipe.model.model_dump(include={"dtype", "attn_implementation"})}
