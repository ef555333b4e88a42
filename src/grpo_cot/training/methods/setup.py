"""A phase before its trainer is made: its settings, its rows, and what several methods hand to their trainers alike."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase, ProgressCallback

from grpo_cot.common.files import Row
from grpo_cot.models.opening import Opening, opening
from grpo_cot.recipes.phases import Phase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.rewards.promise import Reward

# Of several processes in one step (grpo_cot.training.launch), the first writes the results, and speaks.
MAIN = os.environ.get("LOCAL_RANK", "0") == "0"


@dataclass(frozen=True)
class Setup:
    """A phase of a recipe with the rows that it trains on.

    `samples` are completions of the model's own (`grpo_cot.training.examples.own_completions`), for a method that draws
    them. `validation` is the split on which a phase chooses its checkpoint. `reward_model` is the recipe's, trained.
    """

    recipe: Recipe
    phase: Phase
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[Row]
    validation: Sequence[Row] = ()
    samples: Sequence[Row] = ()
    reward_model: Reward | None = None

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


class Progress(ProgressCallback):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """The trainer's progress bar with the reward or the loss beside it, instead of thirty figures a step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the bar, and say where a resumed training goes on."""
        if state.global_step and state.is_world_process_zero:
            print(f"Resuming from step {state.global_step} of {state.max_steps}.", flush=True)
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:  # the time left is that of steps made now
            self.training_bar.initial = self.training_bar.n = self.current_step = state.global_step
            self.training_bar.refresh()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Put the newest figures beside the bar."""
        if self.training_bar is not None and logs and "reward" in logs:
            self.training_bar.set_postfix(
                reward=f"{logs['reward']:.2f}", tokens=f"{logs['completions/mean_length']:.0f}"
            )
        elif self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")


def resolved(configuration: Any) -> dict[str, Any]:
    """A trainer's settings with every default spelt out, less the machine's own paths."""
    settings: dict[str, Any] = json.loads(configuration.to_json_string())
    for name in ("output_dir", "logging_dir", "run_name"):
        settings.pop(name, None)
    return settings


def selected(trainer: Any) -> dict[str, Any]:
    """The checkpoint that was chosen on the validation split, as a part of a configuration, with the figure by which it
    was; nothing where none was."""
    state, figure = trainer.state, trainer.args.metric_for_best_model
    if not trainer.args.load_best_model_at_end or state.best_metric is None:
        return {}
    return {"selected": {"step": state.best_global_step, f"eval_{figure.removeprefix('eval_')}": state.best_metric}}
