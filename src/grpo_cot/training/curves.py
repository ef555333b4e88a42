"""The curves of a training: what of a trainer's log is kept, its tables for plots, and sentences on it."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from grpo_cot.common.files import write_text
from grpo_cot.recipes.phases import GrpoPhase, TrainerSection

# Logged by the trainer, but different at every run (times) or after a resumption (the mean loss and the tokens seen
# restart at 0): kept out of files that later steps read.
VOLATILE = re.compile(r"step_time|_runtime|_per_second|total_flos|train_loss|num_tokens")
NO_ENTROPY = 0.01  # nats a token: below it a policy no longer explores
NOT_FINITE = "not_finite"  # of a log entry: how many of its numbers are not finite


def repeatable(entry: Mapping[str, float | None], phase: TrainerSection) -> dict[str, float]:
    """An entry of the log without what differs at every run, and without what was not measured.

    It is sorted, because a checkpoint gives it back in another order. Trainers log some figures that they did not
    measure: TRL None for a reward that judged no completion, and 0 for the length of the completions that ended where
    none did; Unsloth a KL of 0 where `beta` is 0 and none is computed. A gradient norm or an entropy that is no
    number (float16 overflows) is no measurement either. Of other numbers that are not finite the entry says how many
    there were (`NOT_FINITE`).
    """
    unmeasured = set()
    for prefix in ("", "eval_"):
        if isinstance(phase, GrpoPhase) and not phase.settings.get("beta"):
            unmeasured.add(f"{prefix}kl")
        if entry.get(f"{prefix}completions/clipped_ratio") == 1:
            unmeasured |= {
                name
                for name in entry
                if name.startswith(f"{prefix}completions/") and name.endswith("_terminated_length")
            }
    logged = {
        name: value
        for name, value in sorted(entry.items())
        if not VOLATILE.search(name) and name not in unmeasured and value is not None
    }
    finite = {name: value for name, value in logged.items() if math.isfinite(value)}
    lost = len(logged.keys() - finite.keys() - {"grad_norm", "entropy"})
    return finite | ({NOT_FINITE: lost} if lost else {})


def divergence(log: Sequence[Mapping[str, float]]) -> list[str]:
    """A sentence where steps logged numbers that are not finite; else none."""
    steps = [entry["step"] for entry in log if NOT_FINITE in entry]
    if not steps:
        return []
    return [
        f"{len(steps)} of {len(log)} logged steps had numbers that are not finite, from step {steps[0]:.0f} on: "
        "training diverged; lower the learning rate, or train in bfloat16 or float32."
    ]


def write_tables(log: Sequence[Mapping[str, float]], folder: Path) -> None:
    """Every logged quantity over the steps, one table each, for `dvc plots`."""
    for name in {name for entry in log for name in entry} - {"step", "epoch"}:
        points = [f"{int(entry['step'])}\t{entry[name]}" for entry in log if name in entry]
        write_text(folder / f"{name}.tsv", "\n".join([f"step\t{name}", *points]) + "\n")


def ends(steps: Sequence[Mapping[str, float]]) -> tuple[Sequence[Mapping[str, float]], Sequence[Mapping[str, float]]]:
    """The first tenth of the steps and the last, between which changes are measured."""
    tenth = max(1, len(steps) // 10)
    return steps[:tenth], steps[-tenth:]


def mean(name: str, part: Sequence[Mapping[str, float]]) -> float:
    """The mean of a logged quantity; NaN where it was not logged, so that no comparison with it holds."""
    values = [entry[name] for entry in part if name in entry]
    return statistics.fmean(values) if values else math.nan


def loss_verdict(log: Sequence[Mapping[str, float]], phase: TrainerSection) -> list[str]:
    """Sentences on a loss, and on the validation split where the phase was judged on it."""
    steps = [entry for entry in log if "loss" in entry]
    if not steps:
        return ["The trainer logged no step."]
    first, last = ends(steps)
    before, after = mean("loss", first), mean("loss", last)
    sentences = [f"The loss went from {before:.3f} to {after:.3f} in {len(steps)} logged steps."]
    if after >= before and len(steps) > 1:
        sentences.append("The loss did not fall: nothing was learnt.")
    held_out = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    if held_out:
        course = f"went from {held_out[0]:.3f} to" if len(held_out) > 1 else "was at the end"
        sentences.append(f"On the validation split it {course} {held_out[-1]:.3f}.")
    if len(held_out) > 2 and held_out[-1] > 1.05 * min(held_out):
        remedy = "that checkpoint is kept" if phase.settings.get("load_best_model_at_end") else "train for less"
        sentences.append(f"It was lowest in between, at {min(held_out):.3f}: {remedy}.")
    return sentences


def reward_sentences(steps: Sequence[Mapping[str, float]]) -> list[str]:
    """Sentences on the mean reward of steps that logged one: what became of it, and whether it rose."""
    first, last = ends(steps)
    before, after = mean("reward", first), mean("reward", last)
    sentences = [f"The mean reward went from {before:.2f} to {after:.2f} in {len(steps)} logged steps."]
    if after - before <= 0.02 * abs(before):
        sentences.append("The reward did not rise: nothing that it pays for was learnt.")
    return sentences


def cut_sentences(steps: Sequence[Mapping[str, float]], limit: int) -> list[str]:
    """A sentence where many completions of the last steps hit the limit of that many tokens; else none."""
    clipped = mean("completions/clipped_ratio", ends(steps)[1])
    return [f"{clipped:.0%} of completions hit the length cap of {limit} tokens at the end."] if clipped > 0.2 else []


def unpaid_sentences(steps: Sequence[Mapping[str, float]]) -> list[str]:
    """A sentence on each reward that was logged and never paid."""
    names = {name for entry in steps for name in entry if name.startswith("rewards/") and name.endswith("/mean")}
    return [
        f"The reward {name.split('/')[1]} never paid."
        for name in sorted(names)
        if all(entry[name] == 0.0 for entry in steps if name in entry)
    ]


def entropy_sentences(steps: Sequence[Mapping[str, float]]) -> list[str]:
    """A sentence where the entropy of the last steps is next to nothing; else none."""
    lost = mean("entropy", ends(steps)[1]) < NO_ENTROPY
    return [f"The policy's entropy fell below {NO_ENTROPY}: it no longer explores."] if lost else []
