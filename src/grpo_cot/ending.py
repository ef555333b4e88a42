"""A training that the system may end at any time, and that goes on afterwards as if nothing had happened."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from grpo_cot.common.errors import InputError
from grpo_cot.resuming import noticing_termination


def resume_training(trainer: Any, checkpoint: Path | None) -> None:
    """Train, or go on from a checkpoint.

    A training that was stopped after its last step makes no further one: Transformers compares with `max_steps` only
    after a step. Of several processes all end after the same step, whichever of them was told.

    Raises:
        InputError: the system told this process to end; a checkpoint was written first.
    """
    if checkpoint:
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step >= state.max_steps:
            trainer._run_epoch = lambda **unused: None
    several = trainer.args.world_size > 1
    with noticing_termination(led=several) as told:

        def any_told() -> bool:
            return bool(reduce(torch.tensor(told(), dtype=torch.float32, device=trainer.args.device), "sum"))

        trainer.add_callback(EndWhenTold(any_told if several else told, _steps_of_a_generation(trainer.args)))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


class EndWhenTold(TrainerCallback):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Ends a training that the system told to end, with a checkpoint from which it goes on as if nothing had happened.

    That can be after an entry of the log, because a trainer forgets at a restart what it has summed up since; after the
    last step that learns from one generation; and not between an epoch's last step and an evaluation that follows it.
    """

    def __init__(self, told: Callable[[], bool], shared: int) -> None:
        """`told`: whether it was, asked by all processes at once; `shared`: the steps that learn from one draw."""
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
            PartialState().wait_for_everyone()  # of several processes, another one may be writing
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
