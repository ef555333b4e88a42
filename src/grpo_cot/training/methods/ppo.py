"""PPO (Schulman et al., 2017): the recipe's rewards less the distance to the reference, and values of both."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from peft import get_peft_model

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.models.generation import encode
from grpo_cot.recipes.phases import PpoPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.rewards.promise import Reward
from grpo_cot.rewards.registry import Measure, check_columns, reward_functions
from grpo_cot.training.curves import cut_sentences, ends, entropy_sentences, mean, reward_sentences, unpaid_sentences
from grpo_cot.training.methods.grpo import columns_of, judging
from grpo_cot.training.methods.setup import Examples, Setup
from grpo_cot.training.ppo.trainer import Judge, PpoTrainer

RAN_AWAY = 2  # times its target: the controller did not hold the KL
OFTEN = 0.3  # of the tokens of a batch, that the clip decides
MISLED = -0.2  # explained variance: around 0 values know nothing yet, which does little harm


def configuration(recipe: Recipe, phase: PpoPhase) -> dict[str, Any]:
    """The settings that the pipeline adds to the phase's own: none."""
    return {}


def dataset(setup: Setup) -> Examples:
    """The prompts as messages and as token ids, with the columns that the rewards read.

    Raises:
        InputError: a rollout asks more prompts than there are, or one has no final answer, which a reward reads.
    """
    check_columns(setup.recipe.rewards, setup.prompts)
    asked = setup.phase.settings["batch_size"]
    if len(setup.prompts) < asked:
        raise InputError(
            f"{len(setup.prompts)} training prompts are fewer than the {asked} that one rollout asks; add rows, or "
            "lower ppo.batch_size"
        )
    conversations = [row["messages"] for row in setup.prompts]
    encoded = encode(setup.tokenizer, conversations, setup.recipe.prompt.chat_template_kwargs)
    rows = [
        {"prompt": row["messages"], "prompt_ids": ids, **columns_of(row)}
        for row, ids in zip(setup.prompts, encoded, strict=True)
    ]
    return Examples(Dataset.from_list(rows))


def judge(rewards: Sequence[Reward], weights: Sequence[float]) -> Judge:
    """The weighted sums of rewards, which are called as TRL's GRPO trainer calls them, and the mean of each.

    A reward that says nothing of a completion (None, or NaN) is no part of its sum, and of no mean.
    """

    def judged(
        rows: Sequence[Row], texts: Sequence[str], ids: Sequence[Sequence[int]]
    ) -> tuple[list[float], dict[str, float]]:
        columns = {name: [row[name] for row in rows] for name in columns_of(rows[0])}
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        prompts = [row["prompt"] for row in rows]
        sums, figures = [0.0] * len(texts), {}
        for reward, weight in zip(rewards, weights, strict=True):
            paid = reward(prompts=prompts, completions=completions, completion_ids=ids, **columns)
            said = {place: value for place, value in enumerate(paid) if value is not None and not math.isnan(value)}
            for place, value in said.items():
                sums[place] += weight * value
            if said:
                figures[f"rewards/{reward.__name__}/mean"] = statistics.fmean(said.values())
        return sums, figures

    return judged


def trainer(setup: Setup, configuration: Any, model: Any, examples: Examples) -> Any:
    """Our own trainer, on Transformers'."""
    measure = Measure(setup.tokenizer, configuration.max_completion_length)
    rewards, weights = reward_functions(setup.recipe.rewards, setup.reward_model, measure)
    fresh = setup.adapter is not None
    return PpoTrainer(
        model=get_peft_model(model, setup.adapter) if fresh else model, args=configuration,
        train_dataset=examples.train, processing_class=setup.tokenizer,
        judge=judge([judging(reward, setup.opening) for reward in rewards], weights), fresh=fresh,
    )  # fmt: skip


def workload(recipe: Recipe, phase: PpoPhase, settings: Mapping[str, Any], *, fresh: bool) -> dict[str, Any]:
    """The largest batch: prompts and completions at full length, after a rollout of all its completions at once."""
    length, targets = recipe.prompt.max_prompt_length, settings["max_completion_length"]
    return {
        "length": length + targets, "targets": targets, "loss": "actor_critic", "temperature": settings["temperature"],
        "drawn": settings["batch_size"], "drawn_length": length + targets,
        "reference": settings["init_kl_coef"] != 0 and not fresh,
    }  # fmt: skip


def verdict(log: Sequence[Mapping[str, float]], phase: PpoPhase) -> list[str]:
    """Sentences on the reward, the KL, the completions' length, the clips, the values and the entropy, each where it
    was logged."""
    rollouts, steps = ([entry for entry in log if name in entry] for name in ("reward", "policy_loss"))
    if not rollouts:
        return ["The trainer logged no step."]
    sentences = [*reward_sentences(rollouts), *_kl_sentences(rollouts, phase)]
    sentences += cut_sentences(rollouts, phase.ppo["max_completion_length"])
    if mean("completions/mean_length", ends(rollouts)[1]) < 2:
        sentences.append("Completions end at once: the policy writes nothing.")
    clipped, skipped = mean("clip_fraction", steps), mean("skipped", steps)
    if clipped > OFTEN:
        sentences.append(
            f"The clip decided {clipped:.0%} of the tokens: steps are too large; lower ppo.learning_rate or "
            "ppo.ppo_epochs."
        )
    if skipped > 0:
        sentences.append(f"{skipped:.1%} of the batches taught nothing: the policy was too far from their own.")
    explained = mean("explained_variance", ends(rollouts)[1])
    if explained < MISLED:
        sentences.append(
            f"At the end the values explained {explained:.2f} of the returns' variance, less than a constant would: "
            "they made the advantages worse."
        )
    return [*sentences, *unpaid_sentences(rollouts), *_exploration_sentences(steps)]


def _kl_sentences(rollouts: Sequence[Mapping[str, float]], phase: PpoPhase) -> list[str]:
    """What the KL to the reference came to, and whether it was held, and was worth it."""
    first, last = ends(rollouts)
    kl, cost = mean("kl", last), mean("kl_coefficient", last) * mean("kl", last)
    if math.isnan(kl):
        return []
    sentences = [f"The KL to the reference was {kl:.2f} nats a completion at the end."]
    target = phase.ppo.get("target", 6.0)
    if phase.ppo.get("adap_kl_ctrl", True) and kl > RAN_AWAY * target:
        sentences.append(
            f"It ran away: {target:g} was its target; raise ppo.init_kl_coef, or lower ppo.horizon or "
            "ppo.learning_rate."
        )
    if kl < -1:
        sentences.append(
            "A negative KL is a wrong estimate: completions are not drawn as they are scored; take out of "
            "ppo.generation_kwargs what cuts off tokens."
        )
    if 0 < mean("reward", last) - mean("reward", first) < cost:
        sentences.append(f"It cost {cost:.2f}, more than the reward rose.")
    return sentences


def _exploration_sentences(steps: Sequence[Mapping[str, float]]) -> list[str]:
    """Whether the entropy is gone, or mostly gone."""
    before, after = (mean("entropy", part) for part in ends(steps))
    if after < before / 10 and not entropy_sentences(steps):
        return [f"The policy's entropy collapsed from {before:.2f} to {after:.2f}: it hardly explores."]
    return entropy_sentences(steps)
