"""When a validated training stops, and what is said of it: from logs alone."""

import itertools
from typing import Any

import pytest
from support import ROOT

from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.training.validation.stopping import stop_reason, validation_sentences


def entry(step: int, accuracy: float, format_: float = 0.9, truncated: float = 0.0) -> dict[str, float]:
    return {
        "step": step, "eval_strict_accuracy": accuracy, "eval_format_adherence": format_, "eval_truncated": truncated,
        "eval_problems": 100, "eval_completion_tokens": 30.0,
    }  # fmt: skip


def log_of(*evaluations: dict[str, float], entropy: float = 0.5) -> list[dict[str, float]]:
    """A log with one step's entry before each evaluation but that of step 0."""
    pairs = [
        [{"step": each["step"], "reward": 1.0, "entropy": entropy}, each] if each["step"] else [each]
        for each in evaluations
    ]
    return list(itertools.chain.from_iterable(pairs))


def phase(patience: int | None = 3, *, chooses: bool = True) -> GrpoPhase:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")["phases"][0]
    settings = {"max_steps": 60, "load_best_model_at_end": chooses}
    return GrpoPhase.model_validate(
        content | {"grpo": content["grpo"] | settings, "validation": {"problems": 100, "patience": patience}}
    )


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (log_of(entry(10, 0.7), entry(20, 0.4), entry(30, 0.3)), "70.0% at step 10 and is 30.0%, though 90% of the"),
        (log_of(entry(10, 0.7), entry(20, 0.4), entry(30, 0.3, 0.2)), "the format was lost with it (90% -> 20%)"),
        (log_of(entry(10, 0.5), entry(20, 0.45, truncated=0.6), entry(30, 0.45, truncated=0.8)), "80% of the answers"),
        (log_of(entry(10, 0.5), entry(20, 0.49), entropy=0.001), "entropy is below 0.01"),
        (log_of(entry(10, 0.5), entry(20, 0.5), entry(30, 0.45), entry(40, 0.49)), ": no gain in 3 evaluations"),
    ],
    ids=["format-kept", "format-lost", "length", "entropy", "no-gain"],
)
def test_each_reason_to_stop_is_found_and_none_with_patience_null(log: list[Any], says: str) -> None:
    reason = stop_reason(log, 3)
    assert reason is not None and says in reason
    assert stop_reason(log, None) is None
    assert stop_reason(log[:-2], 3) is None  # not before


@pytest.mark.parametrize(
    "log",
    [
        [],
        log_of(entry(0, 0.9)),
        log_of(entry(0, 0.9), entry(10, 0.1)),  # worse than the start, of which there is no checkpoint
        log_of(entry(10, 0.7), entry(20, 0.3)),  # one bad evaluation is no collapse
        log_of(entry(10, 0.7), entry(20, 0.3), entry(30, 0.71)),  # it came back
        log_of(entry(10, 0.5), entry(20, 0.45, truncated=0.6), entry(30, 0.52, truncated=0.9)),  # length that pays
        log_of(entry(10, 0.5, truncated=0.7), entry(20, 0.45, truncated=0.7), entry(30, 0.45, truncated=0.75)),
        log_of(entry(10, 0.5), entry(20, 0.5), entry(30, 0.5)),
        log_of(entry(10, 0.5), entry(20, 0.6), entropy=0.001),
    ],
)
def test_what_is_no_reason(log: list[Any]) -> None:
    assert stop_reason(log, 3) is None


def test_the_verdict_says_the_course_the_choice_and_the_stop() -> None:
    log = log_of(entry(0, 0.2), entry(10, 0.7), entry(20, 0.4), entry(30, 0.3))
    course, choice, stop = validation_sentences(log, phase())
    assert course == (
        "Strict accuracy on 100 validation problems went from 20.0% (step 0) to 30.0% [21.9%, 39.6%] (step 30)."
    )
    assert choice == "Of the steps it was highest at step 10, 70.0%: that checkpoint is kept."
    assert stop.startswith("Training stopped at step 30 of 60: strict accuracy on 100 validation problems was 70.0%")
    assert validation_sentences(log, phase(None))[1:] == [choice]
    assert "the last step is kept" in validation_sentences(log, phase(None, chooses=False))[1]
    below = log_of(entry(0, 0.9), entry(10, 0.7), entry(20, 0.6))
    assert validation_sentences(below, phase())[1:] == [
        "Of the steps it was highest at step 10, 70.0%: that checkpoint is kept.", "No step was better than the start.",
    ]  # fmt: skip
    assert validation_sentences(log_of(entry(10, 0.7)), phase()) == [
        "Strict accuracy on 100 validation problems was 70.0% [60.4%, 78.1%] (step 10)."
    ]
    alike = log_of(entry(0, 0.2), entry(10, 0.4), entry(20, 0.4))
    assert validation_sentences(alike, phase())[1:] == ["It was as high at step 10 already: that checkpoint is kept."]
    still = log_of(entry(0, 0.2), entry(10, 0.2) | {"eval_changed_answers": 0.0})
    assert (
        "Not one answer differs from that of step 0: the policy hardly moves" in validation_sentences(still, phase())[2]
    )
    moved = log_of(entry(0, 0.2), entry(10, 0.2) | {"eval_changed_answers": 0.01})
    assert not any("differs" in sentence for sentence in validation_sentences(moved, phase()))
    unwatched = phase().model_copy(update={"validation": None})
    assert validation_sentences(log, unwatched) == validation_sentences(log[:1][:0], phase()) == []
