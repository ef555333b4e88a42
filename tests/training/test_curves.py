"""What of a trainer's log is kept and said: a figure that was not measured is neither 0 nor a reason for a sentence."""

import math
from pathlib import Path

import pytest

from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.training.curves import divergence, mean, repeatable, write_tables


def phase(**settings: float) -> GrpoPhase:
    return GrpoPhase(method="grpo", lora=None, rollouts=None, grpo={"max_completion_length": 64, **settings})


# As the trainers write them: Unsloth a KL though beta is 0; TRL None for a reward that judged no completion, and a
# length of 0 where no completion ended; float16 a gradient norm that overflowed.
UNMEASURED = {
    "kl": 0.0, "rewards/mine/mean": None, "completions/clipped_ratio": 1.0,
    "completions/mean_terminated_length": 0.0, "grad_norm": math.inf, "entropy": math.nan,
}  # fmt: skip


def test_what_was_not_measured_is_not_kept() -> None:
    assert repeatable({"reward": 0.0, **UNMEASURED}, phase()) == {"completions/clipped_ratio": 1.0, "reward": 0.0}


def test_what_was_measured_as_0_is_kept() -> None:
    measured = {"kl": 0.0, "completions/clipped_ratio": 0.5, "completions/mean_terminated_length": 9.0, "entropy": 0.0}
    assert repeatable(measured, phase(beta=0.04)) == measured


def test_the_mean_of_what_was_not_logged_fulfils_no_condition() -> None:
    nothing = mean("entropy", [{"reward": 1.0}])
    assert not nothing < 0.01 and not nothing > 0
    assert mean("entropy", [{"entropy": 0.5}, {}, {"entropy": 0.25}]) == 0.375


def test_nothing_is_said_of_what_was_not_logged() -> None:
    from grpo_cot.training.methods.grpo import verdict

    (sentence,) = verdict([{"reward": 0.2}] * 10 + [{"reward": 1.5}] * 10, phase())
    assert sentence == "The mean reward went from 0.20 to 1.50 in 20 logged steps."
    # Phantoms are a share of the groups that varied: where these were not counted, nothing is known of them.
    log = [{"reward": reward, "phantom_advantage": 0.9} for reward in (0.2, 1.5)]
    assert len(verdict(log, phase())) == 1


@pytest.mark.parametrize(("paid", "says"), [(0.0, True), (1.0, False)])
def test_a_reward_that_judges_some_steps_is_called_unpaid_by_these_alone(paid: float, says: bool) -> None:
    from grpo_cot.training.methods.grpo import verdict

    log = [{"reward": 0.2}, {"reward": 0.9, "rewards/mine/mean": paid}]
    assert ("The reward mine never paid." in verdict(log, phase())) == says


def test_a_step_without_a_figure_is_no_row_of_its_table(tmp_path: Path) -> None:
    write_tables([{"step": 1, "reward": 0.5}, {"step": 2, "reward": 0.5, "kl": 0.1}], tmp_path)
    assert (tmp_path / "kl.tsv").read_text() == "step\tkl\n2\t0.1\n"


def test_numbers_that_are_not_finite_are_counted_and_said() -> None:
    lost = repeatable({"step": 3, "loss": math.nan, "reward": math.inf, "grad_norm": math.nan, "entropy": 1.0}, phase())
    assert lost == {"entropy": 1.0, "not_finite": 2, "step": 3}
    assert repeatable({"step": 4, "loss": 1.0, "grad_norm": math.inf}, phase()) == {"loss": 1.0, "step": 4}
    log = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, lost]
    assert divergence(log)[0].startswith("1 of 3 logged steps had numbers that are not finite, from step 3 on")
    assert divergence(log[:2]) == []


def test_a_validation_that_measured_nothing_is_not_zero_either() -> None:
    entry = {
        "step": 3, "eval_kl": 0.0, "eval_loss": 1.0, "eval_completions/clipped_ratio": 1.0,
        "eval_completions/mean_terminated_length": 0.0, "completions/mean_terminated_length": 5.0,
    }  # fmt: skip
    assert repeatable(entry, phase()).keys() == {
        "step", "eval_loss", "eval_completions/clipped_ratio", "completions/mean_terminated_length"
    }  # fmt: skip
