"""PPO's mathematics: by hand, and as an independent implementation has it.

`ppo_oracle.json` holds what TRL 0.11.4, the last release with a PPO trainer for texts, makes of random tensors. A
script cut the functions of trl/core.py (masked_whiten, entropy_from_logits and what these use), the class
AdaptiveKLController of trl/trainer/utils.py, and the methods compute_rewards, compute_advantages and loss of PPOTrainer
(trl/trainer/ppo_trainer.py) out of its wheel by their names, and ran them in float64 on torch.randn with the seed 14,
rounded to four digits: three completions of 5, 3 and 1 tokens over a vocabulary of 4, whose policy moves by `shift` and
XX"""

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from grpo_cot.training.ppo.mathematics import (
    KlPenalty,
    advantages_and_returns,
    explained_variance,
    kl_estimate,
    masked_mean,
    masked_variance,
    next_coefficient,
    policy_losses,
    token_rewards,
    value_losses,
    whitened,
)

DATA: dict[str, Any] = json.loads(Path(__file__).with_name("ppo_oracle.json").read_text())
SETTINGS, TRL = DATA["settings"], DATA["trl"]
GIVEN = {name: torch.tensor(values, dtype=torch.float64) for name, values in DATA["given"].items()}
IDS = GIVEN["ids"].long()
MASK = (torch.arange(IDS.shape[1]) < torch.tensor(DATA["lengths"]).unsqueeze(1)).double()
KINDS: tuple[KlPenalty, ...] = get_args(KlPenalty)


def tensor(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(found: torch.Tensor, expected: Any) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-10)


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, IDS.unsqueeze(-1)).squeeze(-1)


def estimate(kind: KlPenalty) -> torch.Tensor:
    sides = [log_probabilities(GIVEN[f"{side}_logits"]) for side in ("old", "reference")]
    return kl_estimate(*sides, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kl_and_the_rewards_are_trls(kind: KlPenalty) -> None:
    kl = estimate(kind)
    same(kl * MASK, TRL[kind]["kl"])
    rewards = token_rewards(GIVEN["scores"], kl, MASK, SETTINGS["kl_coefficient"])
    same(rewards, TRL[kind]["rewards"])


@pytest.mark.parametrize("case", ["plain_rewards", "whitened_rewards"])
def test_advantages_losses_and_their_gradients_are_trls(case: str) -> None:
    expected, whitens = TRL[case], case == "whitened_rewards"
    mask = torch.ones_like(MASK) if whitens else MASK
    rewards = token_rewards(GIVEN["scores"], estimate("kl"), mask, SETTINGS["kl_coefficient"])
    if whitens:
        rewards = whitened(rewards, mask, keep_mean=True)
    advantages, returns = advantages_and_returns(
        rewards, GIVEN["values"], mask, gamma=SETTINGS["gamma"], lam=SETTINGS["lam"]
    )
    same(returns, expected["returns"])
    same(masked_variance(returns, mask), expected["returns_variance"])
    advantages = whitened(advantages, mask)
    same(advantages * mask, expected["advantages"])
    old_values = GIVEN["values"] * mask
    new = log_probabilities(GIVEN["old_logits"] + GIVEN["shift"]).requires_grad_()
    values = (old_values + GIVEN["value_change"]).requires_grad_()
    policy, clipped = policy_losses(new, log_probabilities(GIVEN["old_logits"]), advantages, SETTINGS["cliprange"])
    value, value_clipped = value_losses(values, old_values, returns, SETTINGS["cliprange_value"])
    same(masked_mean(policy, mask), expected["policy_loss"])
    same(masked_mean(value, mask), expected["value_loss"])
    same(masked_mean(clipped, mask), expected["clip_fraction"])
    same(masked_mean(value_clipped, mask), expected["value_clip_fraction"])
    (masked_mean(policy, mask) + SETTINGS["vf_coef"] * masked_mean(value, mask)).backward()
    assert new.grad is not None and values.grad is not None
    same(new.grad, expected["policy_gradient"])
    same(values.grad, expected["value_gradient"])


def test_the_entropy_and_the_log_probabilities_of_the_library_are_trls_too() -> None:
    """The trainer takes both from today's TRL, in one pass."""
    from trl.trainer.utils import selective_log_softmax_and_entropy

    logits = GIVEN["old_logits"] + GIVEN["shift"]
    chosen, entropy = selective_log_softmax_and_entropy(2 * logits, IDS, temperature=2.0)
    same(masked_mean(entropy, MASK), TRL["plain_rewards"]["entropy"])
    torch.testing.assert_close(chosen, log_probabilities(logits))


def test_the_controller_is_trls() -> None:
    coefficient = 0.2
    for kl, expected in zip(TRL["controller"]["kl"], TRL["controller"]["coefficient"], strict=True):
        coefficient = next_coefficient(coefficient, kl, 128, target=6.0, horizon=10_000)
        assert coefficient == pytest.approx(expected, rel=1e-11)


def test_a_score_is_paid_at_the_last_token_and_the_kl_at_every_one() -> None:
    mask = tensor([1, 1, 1], [1, 1, 0], [1, 0, 0])
    kl = tensor([0.5, 0, -1], [1, 2, 9], [4, 9, 9])
    rewards = token_rewards(tensor(3, -1, 0.5), kl, mask, 0.1)
    same(rewards, [[-0.05, 0, 3.1], [-0.1, -1.2, 0], [0.1, 0, 0]])


def test_advantages_by_hand() -> None:
    """Three tokens, one of them beyond the end, gamma 0.5 and lambda 0.5, so that a surprise counts a quarter before.

    Surprises: the second token's 2 - 3 = -1, the first one's 1 + 0.5 x 3 - 0.5 = 2.
    """
    rewards, values, mask = tensor([1, 2, 100]), tensor([0.5, 3, 100]), tensor([1, 1, 0])
    advantages, returns = advantages_and_returns(rewards, values, mask, gamma=0.5, lam=0.5)
    same(advantages, [[1.75, -1, 0]])
    same(returns, [[2.25, 2, 0]])


def test_with_lambda_1_returns_are_the_discounted_rewards_whatever_the_values_say() -> None:
    for values in (tensor([0, 0, 0]), tensor([5, -7, 3])):
        _, returns = advantages_and_returns(tensor([1, 2, 4]), values, tensor([1, 1, 1]), gamma=0.5, lam=1)
        same(returns, [[3, 4, 4]])


def test_what_is_outside_the_mask_changes_nothing() -> None:
    mask = tensor([1, 1, 0], [1, 0, 0])
    rewards, values = tensor([1, 2, 0], [3, 0, 0]), tensor([0.1, 0.2, 0], [0.3, 0, 0])
    noise = 1e3 * (1 - mask)
    plain, noisy = (advantages_and_returns(rewards + n, values + n, mask, gamma=1, lam=0.9) for n in (0, noise))
    for one, other in zip(plain, noisy, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(whitened(rewards, mask) * mask, whitened(rewards + noise, mask) * mask)
    assert masked_mean(rewards / mask, mask) == 2  # 0 / 0 outside
    assert explained_variance(values, rewards, mask) == explained_variance(values + noise, rewards - noise, mask)
    scores = tensor(1, 2)
    assert torch.equal(token_rewards(scores, values, mask, 0.1), token_rewards(scores, values + noise, mask, 0.1))


def test_whitening_by_hand() -> None:
    """1, 3 and 5 have the mean 3 and the unbiased variance 4."""
    values, mask = tensor([1, 3, 99], [5, 99, 99]), tensor([1, 1, 0], [1, 0, 0])
    torch.testing.assert_close(whitened(values, mask) * mask, tensor([-1, 0, 0], [1, 0, 0]))
    torch.testing.assert_close(whitened(values, mask, keep_mean=True) * mask, tensor([2, 3, 0], [4, 0, 0]))
    assert torch.equal(whitened(tensor([7, 99]), tensor([1, 0]))[:, :1], tensor([0]))  # a single token is its own mean


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clips"),
    [
        (1.1, 2.0, -2.2, False),  # within the range: the surrogate itself
        (1.5, 2.0, -2.4, True),  # a good token was made likelier than is paid for
        (0.5, 2.0, -1.0, False),  # a good token was made unlikelier: that is to be undone, so nothing is clipped
        (0.5, -2.0, 1.6, True),  # a bad token was made unlikelier than is paid for
        (1.5, -2.0, 3.0, False),  # a bad token was made likelier
    ],
)
def test_the_surrogate_by_hand(ratio: float, advantage: float, loss: float, clips: bool) -> None:
    new = tensor([math.log(ratio)]).requires_grad_()
    losses, clipped = policy_losses(new, tensor([0]), tensor([advantage]), 0.2)
    torch.testing.assert_close(losses.detach(), tensor([loss]))
    assert clipped.item() == clips
    losses.sum().backward()
    assert new.grad is not None
    assert (new.grad.item() == 0) == clips


@pytest.mark.parametrize(
    ("new", "loss", "clips"),
    [
        (1.1, 0.405, False),  # 0.9^2 / 2
        (1.9, 0.32, True),  # beyond 1.2, which is what counts: 0.8^2 / 2
        (0.5, 1.125, False),  # away from the return: no clip makes that cheaper
    ],
)
def test_the_values_loss_by_hand(new: float, loss: float, clips: bool) -> None:
    losses, clipped = value_losses(tensor([new]), tensor([1.0]), tensor([2.0]), 0.2)
    torch.testing.assert_close(losses, tensor([loss]))
    assert clipped.item() == clips


def test_the_estimators_by_hand() -> None:
    """The policy (1/2, 1/2) and the reference (1/4, 3/4): a half of log 2 and a half of log 2/3."""
    policy, reference = tensor([0.5, 0.5]).log(), tensor([0.25, 0.75]).log()
    same(kl_estimate(policy, reference, "kl"), [[math.log(2), math.log(2 / 3)]])
    same(kl_estimate(policy, reference, "abs"), [[math.log(2), math.log(3 / 2)]])
    same(kl_estimate(policy, reference, "mse"), [[math.log(2) ** 2 / 2, math.log(3 / 2) ** 2 / 2]])
    # Their mean, over what the policy samples, is the divergence itself.
    exact = torch.nn.functional.kl_div(reference, policy, log_target=True, reduction="sum")
    torch.testing.assert_close(kl_estimate(policy, reference, "kl").mean(), exact)


def test_values_that_foresee_everything_explain_everything_and_constants_nothing() -> None:
    returns, mask = tensor([1, 2, 99], [4, 99, 99]), tensor([1, 1, 0], [1, 0, 0])
    assert explained_variance(returns + 5, returns, mask).item() == pytest.approx(1)
    assert explained_variance(torch.full_like(returns, 3), returns, mask).item() == pytest.approx(0)
    assert explained_variance(-returns, returns, mask).item() == pytest.approx(-3)
    assert explained_variance(returns, torch.ones_like(returns), mask).isnan()


def test_the_coefficient_rises_above_the_target_falls_below_it_and_stays_at_it() -> None:
    settings = {"target": 6.0, "horizon": 1000.0}
    assert next_coefficient(0.5, 6.0, 64, **settings) == 0.5
    assert next_coefficient(0.5, 6.6, 100, **settings) == pytest.approx(0.5 * 1.01)
    assert next_coefficient(0.5, 600.0, 100, **settings) == pytest.approx(0.5 * 1.02)
    assert next_coefficient(0.5, 0.0, 100, **settings) == pytest.approx(0.5 * 0.98)
