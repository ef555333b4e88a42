"""When GRPO should stop, by what its log says of the validation split, and sentences on that split.

Everything is read off the log alone, so that a resumed training stops where an uninterrupted one does, and the verdict
gives the reason for which the training stopped.
"""

from collections.abc import Mapping, Sequence

from scipy.stats import binomtest

from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.training.curves import NO_ENTROPY, mean

ACCURACY = "eval_strict_accuracy"
FORMAT = "eval_format_adherence"
TRUNCATED = "eval_truncated"
PROBLEMS = "eval_problems"
CHANGED = "eval_changed_answers"  # since the first evaluation
Entry = Mapping[str, float]
# A format is kept while so much of it is left as at the best evaluation.
KEPT = 0.9


def stop_reason(log: Sequence[Entry], patience: int | None) -> str | None:
    """Why a training should stop at the last evaluation of its log; None: it should go on.

    With `patience` null it never should. Otherwise, where the last evaluation is not the best one since the start, it
    should

    - where the accuracy's Wilson interval lay below that of the best evaluation twice in a row: a collapse;
    - where twice in a row more than half of the answers were cut off, and significantly more than at the best one;
    - where the entropy logged since the evaluation before is next to nothing;
    - after `patience` evaluations without a gain.

    What the model did before the first step is no checkpoint that could be kept, and counts for none of these.
    """
    evaluations = [entry for entry in evaluations_of(log) if entry["step"]]
    if patience is None or not evaluations:
        return None
    best, last = best_of(evaluations), evaluations[-1]
    if last is best:
        return None
    later = evaluations[evaluations.index(best) + 1 :]
    course = (
        f"strict accuracy on {last[PROBLEMS]:.0f} validation problems was {best[ACCURACY]:.1%} at step "
        f"{best['step']:.0f} and is {last[ACCURACY]:.1%}"
    )
    two = later[-2:] if len(later) > 1 else []
    if two and all(_apart(entry, best, ACCURACY) for entry in two):
        before, after = best[FORMAT], last[FORMAT]
        if after >= KEPT * before:
            return (
                f"{course}, though {after:.0%} of the answers keep the format: the rewards pay for something else, or "
                "the learning rate is too high"
            )
        return f"{course}, and the format was lost with it ({before:.0%} -> {after:.0%}): the policy collapsed"
    if two and all(entry[TRUNCATED] > 0.5 and _apart(best, entry, TRUNCATED) for entry in two):
        return f"{course}, and {last[TRUNCATED]:.0%} of the answers run into the limit of tokens"
    since = evaluations[-2]["step"]
    if mean("entropy", [entry for entry in log if entry["step"] > since]) < NO_ENTROPY:
        return f"{course}, and the policy's entropy is below {NO_ENTROPY}: it no longer explores"
    if len(later) >= patience:
        return f"{course}: no gain in {len(later)} {'evaluation' if len(later) == 1 else 'evaluations'}"
    return None


def evaluations_of(log: Sequence[Entry]) -> list[Entry]:
    """The entries of a log that are of the validation split, in their order."""
    return [entry for entry in log if ACCURACY in entry]


def best_of(evaluations: Sequence[Entry]) -> Entry:
    """The evaluation with the highest strict accuracy, of several the first, as the trainer chooses its checkpoint."""
    return max(evaluations, key=lambda entry: entry[ACCURACY])


def validation_sentences(log: Sequence[Entry], phase: GrpoPhase) -> list[str]:
    """Sentences on the validation split, where the phase was judged on it: the course, the choice, and the stop."""
    evaluations = evaluations_of(log)
    if phase.validation is None or not evaluations:
        return []
    first, last = evaluations[0], evaluations[-1]
    low, high = _interval(last, ACCURACY)
    figures = f"{last[ACCURACY]:.1%} [{low:.1%}, {high:.1%}]"
    of = f"Strict accuracy on {last[PROBLEMS]:.0f} validation problems"
    sentences = [
        f"{of} went from {first[ACCURACY]:.1%} (step {first['step']:.0f}) to {figures} (step {last['step']:.0f})."
        if first is not last
        else f"{of} was {figures} (step {last['step']:.0f})."
    ]
    later = [entry for entry in evaluations if entry["step"]]
    best = best_of(later) if later else last
    if best is not last:
        kept = "that checkpoint is kept" if phase.grpo.get("load_best_model_at_end") else "the last step is kept"
        place = f"step {best['step']:.0f}"
        if best[ACCURACY] == last[ACCURACY]:
            sentences.append(f"It was as high at {place} already: {kept}.")
        else:
            sentences.append(f"Of the steps it was highest at {place}, {best[ACCURACY]:.1%}: {kept}.")
    if first["step"] == 0 and first is not last and best[ACCURACY] <= first[ACCURACY]:
        sentences.append("No step was better than the start.")
    if last.get(CHANGED) == 0:
        sentences.append(
            f"Not one answer differs from that of step {first['step']:.0f}: the policy hardly moves; raise the "
            "learning rate (an adapter takes about ten times that of all weights), or train longer."
        )
    reason, steps = stop_reason(log, phase.validation.patience), phase.grpo["max_steps"]
    if reason and last["step"] < steps:
        sentences.append(f"Training stopped at step {last['step']:.0f} of {steps}: {reason}.")
    return sentences


def _apart(lower: Entry, higher: Entry, share: str) -> bool:
    """Whether a share's interval in one evaluation lies below that in another."""
    return _interval(lower, share)[1] < _interval(higher, share)[0]


def _interval(entry: Entry, share: str) -> tuple[float, float]:
    """The 95 % Wilson interval of a share of an evaluation's problems; SciPy's own, for an edit of the project's
    statistics must not make every training stale."""
    problems = round(entry[PROBLEMS])
    interval = binomtest(round(entry[share] * problems), problems).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
