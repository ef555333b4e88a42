"""A phase before its trainer is made: its settings, its rows, and what several methods hand to their trainers alike."""

import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase, ProgressCallback, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.models.opening import Opening, opening
from grpo_cot.recipes.phases import Phase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.resuming import noticing_termination
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


class EndWhenTold(TrainerCallback):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Ends a training that the system told to end, with a checkpoint from which it goes on as if nothing had happened.

    That can be after an entry of the log, because a trainer forgets at a restart what it has summed up since; after the
    last step that learns from one generation; and not between an epoch's last step and an evaluation that follows it.
    """

    def __init__(self, told: Callable[[], bool], shared: int) -> None:
        """`told`: whether it was; `shared`: the steps that learn from one generation."""
        self._told, self._shared = told, shared
        self._logged = -1  # the step of the log's last entry
        self._ending = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End here if a training can go on from here."""
        evaluation_follows = args.eval_strategy == "epoch" and state.epoch == int(state.epoch)
        if control.should_log and not evaluation_follows:
            self._end(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End here if a training can go on from here."""
        if control.should_log or self._logged == state.global_step:
            self._end(state, control)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember the step."""
        self._logged = state.global_step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End: what a trainer does after its last step, this one has yet to do. A finished training is left to end."""
        if self._ending and state.global_step < state.max_steps:
            raise InputError(
                f"the system told this training to end (SIGTERM): it did so after step {state.global_step} of "
                f"{state.max_steps} and left a checkpoint; start again, and it goes on from there"
            )

    def _end(self, state: Any, control: Any) -> None:
        if self._told() and state.global_step % self._shared == 0:
            self._ending = control.should_save = True


def _steps_of_a_generation(args: Any) -> int:
    """After so many steps of the optimiser, or a multiple of them, the next one generates."""
    if hasattr(args, "rollout_steps"):  # PPO's
        return int(args.rollout_steps)
    if hasattr(args, "steps_per_generation"):  # GRPO's
        batches, accumulated = args.num_iterations * args.steps_per_generation, args.gradient_accumulation_steps
        return math.lcm(batches, accumulated) // int(accumulated)
    return 1


def resume_training(trainer: Any, checkpoint: Path | None) -> None:
    """Train, or go on from a checkpoint.

    A training that was stopped after its last step makes no further one: Transformers compares with `max_steps` only
    after a step.

    Raises:
        InputError: the system told this process to end; a checkpoint was written first. (Trainings in several processes
            go on from their last checkpoint: the signal may reach them at different steps.)
    """
    if checkpoint:
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step >= state.max_steps:
            trainer._run_epoch = lambda **unused: None
    with noticing_termination() if trainer.args.world_size == 1 else nullcontext() as told:
        if told:
            trainer.add_callback(EndWhenTold(told, _steps_of_a_generation(trainer.args)))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


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
