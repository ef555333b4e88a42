"""SIGTERM while a trainer works: a checkpoint first, from which it goes on as if nothing had happened."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grpo_cot.common.errors import InputError
from grpo_cot.resuming import last_whole_checkpoint, noticing_termination

EPOCHS = {
    "num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 5,
    "load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False,
}  # fmt: skip


def trained(folder: Path, told_at: int | None, settings: dict[str, Any]) -> Any:
    """A trainer after training from the folder's last checkpoint; ten rows, one a step, and evaluations that worsen."""
    import torch
    from transformers import Trainer, TrainingArguments

    from grpo_cot.ending import resume_training

    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(2, 1)

        def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
            return {"loss": ((self.layer(x) - labels) ** 2).mean()}

    class Told(Trainer):  # type: ignore[misc]
        def training_step(self, *arguments: Any, **keywords: Any) -> Any:
            if self.state.global_step + 1 == told_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(*arguments, **keywords)

        def evaluate(self, *arguments: Any, **keywords: Any) -> dict[str, float]:
            figures: dict[str, float] = super().evaluate(*arguments, **keywords)
            figures["eval_loss"] = float(self.state.global_step)
            return figures

    rows = [{"x": torch.tensor([1.0, number]), "labels": torch.tensor([number / 7])} for number in range(10)]
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", per_device_train_batch_size=1, learning_rate=1e-2,
        disable_tqdm=True, seed=1, **settings,
    )  # fmt: skip
    trainer = Told(
        model=Line(), args=arguments, train_dataset=rows, eval_dataset=rows if "eval_strategy" in settings else None
    )
    resume_training(trainer, last_whole_checkpoint(folder))
    return trainer


def outcome(trainer: Any) -> tuple[Any, ...]:
    """The weights, the steps of the log's entries and of the evaluations, the losses, and the best checkpoint."""
    log = [(entry["step"], entry.get("loss"), entry.get("eval_loss")) for entry in trainer.state.log_history[:-1]]
    weights = [parameter.tolist() for parameter in trainer.model.parameters()]
    return weights, log, trainer.state.best_global_step, trainer.state.global_step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "told_at", "end"),
    [
        (EPOCHS, 3, 5),  # in the middle of an epoch: nothing is evaluated there
        (EPOCHS, 9, 10),  # at an epoch's end: after its evaluation
        (
            {
                "max_steps": 10, "eval_strategy": "steps", "eval_steps": 4, "save_steps": 4, "logging_steps": 2,
                "save_total_limit": 1, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss",
                "greater_is_better": False,
            },
            5, 6,
        ),  # beside the best checkpoint, though one is kept
        ({"num_train_epochs": 1.5, "save_steps": 10, "logging_steps": 4}, 6, 8),
        ({"max_steps": 6, "logging_steps": 2, "save_strategy": "no"}, 1, 2),
    ],
)  # fmt: skip
def test_a_training_told_to_end_leaves_a_checkpoint_and_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, settings: dict[str, Any], told_at: int, end: int
) -> None:
    whole = outcome(trained(tmp_path / "whole", None, settings))
    last = whole[-1]
    with pytest.raises(InputError, match=rf"end \(SIGTERM\): it did so after step {end} of {last} and left a check"):
        trained(tmp_path / "told", told_at, settings)
    assert (tmp_path / f"told/checkpoint-{end}/trainer_state.json").is_file()
    assert outcome(trained(tmp_path / "told", None, settings)) == whole


@pytest.mark.slow
@pytest.mark.parametrize("saves", ["steps", "no"])
def test_a_training_that_has_made_its_last_step_is_not_thrown_away(tmp_path: Path, saves: str) -> None:
    settings = {"max_steps": 5, "logging_steps": 2, "save_strategy": saves, "save_steps": 2}
    assert outcome(trained(tmp_path / "told", 5, settings)) == outcome(trained(tmp_path / "whole", None, settings))


@pytest.mark.slow
def test_a_part_of_an_epoch_is_not_made_longer_by_a_restart_after_its_last_step(tmp_path: Path) -> None:
    settings = {"num_train_epochs": 1.5, "save_steps": 15, "logging_steps": 5}
    whole = trained(tmp_path, None, settings)
    assert whole.state.global_step == trained(tmp_path, None, settings).state.global_step == 15


def test_the_first_signal_is_noticed_the_second_ends_and_a_forked_process_ends_at_the_first() -> None:
    program = """
import os, signal, sys, time
from grpo_cot.resuming import noticing_termination
with noticing_termination() as told:
    ready, begun = os.pipe()
    child = os.fork()
    if not child:
        os.write(begun, b".")
        time.sleep(60)
        os._exit(1)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.kill(os.getpid(), signal.SIGTERM)
    print(ended, told(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
print("never", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == [str(-signal.SIGTERM), "True"]
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.count("Told to end (SIGTERM): ending after the step") == 1


def test_outside_the_signal_does_what_it_did() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with noticing_termination() as told:
        assert not told() and signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
