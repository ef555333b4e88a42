"""Problems of the validation split, answered by the policy while GRPO trains it.

It answers greedily, as many tokens as a rollout may have, by the same code as in the step evaluate, and is graded as
there. TRL's own evaluation samples as training does, and its figures are rewards and a loss.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from bitsandbytes.nn.modules import Linear4bit
from transformers import Trainer, TrainerCallback

from grpo_cot.answers import same_answer
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, read_jsonl, write_jsonl
from grpo_cot.models.generation import Completion, encode, generate, sampled
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.schema import sections
from grpo_cot.training.methods.setup import Setup
from grpo_cot.training.validation.stopping import (
    ACCURACY,
    CHANGED,
    FORMAT,
    PROBLEMS,
    TRUNCATED,
    evaluations_of,
    stop_reason,
)

SEED = 0  # of the draw of problems: all seeds of a recipe are judged on the same ones


def validation_problems(setup: Setup) -> list[Row]:
    """The rows of the validation split that the phase is judged on; none where it is not.

    Raises:
        InputError: one has no final answer.
    """
    section = setup.phase.validation if isinstance(setup.phase, GrpoPhase) else None
    if section is None:
        return []
    rows = sampled(setup.validation, section.problems, SEED)
    if strange := next((row["id"] for row in rows if row["gold"] is None), None):
        raise InputError(
            f"row {strange} of the validation split has no final answer, so that no accuracy can be measured on it; "
            "set the phase's 'validation' to null"
        )
    return rows


class Validation:
    """What stands in the place of a GRPO trainer's own `evaluate`.

    It keeps the answers beside the checkpoints (`file`): rows of step, id, text (as it is judged), tokens, truncated.
    """

    def __init__(self, trainer: Any, setup: Setup, problems: list[Row]) -> None:
        """Ask `problems` of the model that `trainer` trains."""
        self._trainer, self._setup, self._problems = trainer, setup, problems
        messages = [row["messages"] for row in problems]
        self._prompts = encode(setup.tokenizer, messages, setup.recipe.prompt.chat_template_kwargs)

    @property
    def file(self) -> Path:
        """The answers of all evaluations so far."""
        return answers_file(Path(self._trainer.args.output_dir))

    def evaluate(self, *unused: Any, **ignored: Any) -> dict[str, float]:
        """The figures of the present step, which are logged.

        A resumed training that evaluates at its start (`eval_on_start`) gets those of the log, or none between two
        evaluations, so that its log is an uninterrupted one's. The last step is evaluated whatever its number.
        """
        trainer, state = self._trainer, self._trainer.state
        if state.global_step % state.eval_steps and state.global_step < state.max_steps:
            return {}
        logged = [entry for entry in evaluations_of(state.log_history) if entry["step"] == state.global_step]
        if logged:
            return dict(logged[0])
        start = time.perf_counter()
        answers = self._answers()
        earlier = read_jsonl(self.file) if self.file.is_file() else []
        first = [row["text"] for row in earlier if row["step"] == earlier[0]["step"] < state.global_step]
        figures = self._figures(answers) | {"eval_runtime": time.perf_counter() - start}
        if first:
            figures[CHANGED] = fmean(answer.text != text for answer, text in zip(answers, first, strict=True))
        if state.is_world_process_zero:
            ids = [row["id"] for row in self._problems]
            write_jsonl(self.file, [
                *(row for row in earlier if row["step"] < state.global_step),
                *({"step": state.global_step, "id": name, **answer._asdict()}
                  for name, answer in zip(ids, answers, strict=True)),
            ])  # fmt: skip
        Trainer.log(trainer, figures)  # GRPOTrainer's would add, and forget, the rollouts' figures
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, state, trainer.control, figures)
        return figures

    def _answers(self) -> list[Completion]:
        """Every problem's answer as it is judged; of several processes each gives its part."""
        trainer = self._trainer
        settings, process = trainer.args, trainer.accelerator.process_index
        parts = [list(range(number, len(self._prompts), settings.world_size)) for number in range(settings.world_size)]
        sampling = {"do_sample": False, "max_new_tokens": settings.max_completion_length}
        prompts, own = [self._prompts[index] for index in parts[process]], []
        if prompts:  # of fewer problems than processes some have none
            with answering(trainer.model), random_state_kept():
                own = generate(
                    trainer.model, self._setup.tokenizer, prompts, sampling,
                    batch_size=settings.per_device_eval_batch_size, seed=0, progress="validation",
                )  # fmt: skip
        gathered = gather_object([list(zip(parts[process], own, strict=True))])
        opening = self._setup.opening
        found = dict(pair for part in gathered for pair in part)
        return [found[index]._replace(text=opening.judged(found[index].text)) for index in range(len(self._prompts))]

    def _figures(self, answers: list[Completion]) -> dict[str, float]:
        texts = [sections(answer.text) for answer in answers]
        right = [
            same_answer(text[1] if text else None, row["gold"], row["locale"])
            for text, row in zip(texts, self._problems, strict=True)
        ]
        return {
            ACCURACY: fmean(right), FORMAT: fmean(text is not None for text in texts),
            TRUNCATED: fmean(answer.truncated for answer in answers),
            "eval_completion_tokens": fmean(answer.tokens for answer in answers), PROBLEMS: len(answers),
        }  # fmt: skip


class Stop(TrainerCallback):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Stops a training that its evaluations say should stop."""

    def __init__(self, patience: int | None) -> None:
        """See `grpo_cot.training.validation.stopping.stop_reason`."""
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, and leave no checkpoint here: a training that is resumed from it would make a step too many."""
        if state.global_step and stop_reason(state.log_history, self._patience):
            control.should_training_stop = True
            control.should_save = False


def validate(trainer: Any, setup: Setup, problems: list[Row]) -> None:
    """Have a GRPO trainer evaluate on the validation split, and stop where that says so."""
    assert isinstance(setup.phase, GrpoPhase) and setup.phase.validation is not None
    trainer.evaluate = Validation(trainer, setup, problems).evaluate
    trainer.add_callback(Stop(setup.phase.validation.patience))


def answers_file(checkpoints: Path) -> Path:
    """Where the answers are kept while the phase with these checkpoints trains."""
    return checkpoints.with_suffix(".validation.jsonl")


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Inside, a model in training answers as one that is not trained: without dropout and gradient checkpointing.

    4-bit layers stay as they are: bitsandbytes repacks one that answers on a CPU, and cannot train it then.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for module, training in modes:
        if isinstance(module, Linear4bit):
            module.training = training
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def random_state_kept() -> Iterator[None]:
    """What is drawn inside leaves Python's, NumPy's and torch's generators as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
