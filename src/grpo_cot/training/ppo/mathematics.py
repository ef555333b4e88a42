"""The mathematics of PPO on completions: rewards, advantages, losses and the KL's coefficient, without a model.

Tensors are (rows, tokens) of completions unless said otherwise. `mask` is 1 from a completion's first token to its
last, its end token included, and 0 after that. What a function returns outside the mask says nothing, unless it says
so.
"""

from typing import Literal

import torch

KlPenalty = Literal["kl", "abs", "mse"]
SMALL = 1e-8  # a variance below it is none
LARGEST_ERROR = 0.2  # of the KL, relative to its target, that the controller answers to


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the mask, a scalar, whatever is outside, also where that is no number."""
    return values.masked_fill(mask == 0, 0).sum() / mask.sum()


def masked_variance(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The unbiased variance over the mask, a scalar; 0 of a single token."""
    centred = (values - masked_mean(values, mask)) * mask
    return centred.square().sum() / (mask.sum() - 1).clamp(min=1)


def whitened(values: torch.Tensor, mask: torch.Tensor, *, keep_mean: bool = False) -> torch.Tensor:
    """Values with variance 1 over the mask, and with mean 0, or with the mean that they had."""
    mean = masked_mean(values, mask)
    scaled = (values - mean) * torch.rsqrt(masked_variance(values, mask) + SMALL)
    return scaled + mean if keep_mean else scaled


def kl_estimate(policy: torch.Tensor, reference: torch.Tensor, kind: KlPenalty) -> torch.Tensor:
    """How far the policy is from the reference at each token, (rows, tokens).

    Both are log-probabilities of the sampled tokens. `kl`: log p - log q, whose mean is the Kullback-Leibler
    divergence, and which can be negative. `abs`: its absolute value. `mse`: half of its square (Schulman's k2,
    http://joschu.net/blog/kl-approx.html). TRL's `full`, the divergence of the whole distribution, is left out: it is
    the same whatever token was chosen, so that as a reward it holds no choice back.
    """
    apart = policy - reference
    if kind == "abs":
        return apart.abs()
    return apart.square() / 2 if kind == "mse" else apart


def token_rewards(scores: torch.Tensor, kl: torch.Tensor, mask: torch.Tensor, coefficient: float) -> torch.Tensor:
    """The reward of each token: what its distance to the reference costs, and at the last one the score, (rows,).

    Ziegler et al., 2019, equation 2. 0 outside the mask.
    """
    rewards = -coefficient * kl * mask
    last = mask.sum(dim=1, keepdim=True) - 1
    return rewards.scatter_add(1, last.long(), scores.unsqueeze(1).to(rewards.dtype))


def advantages_and_returns(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimates (Schulman et al., 2016, equation 16) and the returns that values are to learn.

    `values` are estimates before each token. A completion's end, be it its end token or the limit, is worth 0. Both are
    0 outside the mask.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(rewards)
    later_value = later_advantage = torch.zeros_like(rewards[:, 0])
    for token in reversed(range(rewards.shape[1])):
        surprise = rewards[:, token] + gamma * later_value - values[:, token]
        later_advantage = advantages[:, token] = surprise + gamma * lam * later_advantage
        later_value = values[:, token]
    return advantages, advantages + values


def policy_losses(
    new: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, cliprange: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped surrogate, negated, of each token, and where the clip decides (booleans).

    `new` and `old` are log-probabilities. Schulman et al., 2017, equation 7.
    """
    ratio = (new - old).exp()
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return torch.max(free, clipped), clipped > free


def value_losses(
    new: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, cliprange: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the squared error of each token's value, and where the clip decides (booleans).

    A value that moves further than `cliprange` from what it was gains nothing by it (Schulman et al., 2016, as their
    code does it: OpenAI's baselines, ppo2).
    """
    free = (new - returns).square()
    clipped = (torch.max(torch.min(new, old + cliprange), old - cliprange) - returns).square()
    return torch.max(free, clipped) / 2, clipped > free


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The share of the returns' variance that the values foresaw, a scalar: 1 is all, 0 what a constant foresees, and
    below 0 they mislead. NaN where the returns do not vary."""
    variance = masked_variance(returns, mask)
    return torch.where(variance > 0, 1 - masked_variance(returns - values, mask) / variance, torch.nan)


def next_coefficient(coefficient: float, kl: float, completions: int, *, target: float, horizon: float) -> float:
    """The KL's coefficient after a rollout of that many completions, whose mean KL (of a completion, in nats) was `kl`.

    It rises where the KL is above its target, and falls where it is below (Ziegler et al., 2019, section 2.2, with 1 /
    horizon as the gain of each completion).

    >>> next_coefficient(0.2, kl=12.0, completions=100, target=6.0, horizon=1000)
    0.20400000000000001
    """
    error = min(max(kl / target - 1, -LARGEST_ERROR), LARGEST_ERROR)
    return coefficient * (1 + error * completions / horizon)
