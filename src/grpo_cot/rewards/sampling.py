"""Samples of a model for the rewards of a phase, drawn as the phase's trainer will draw them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.models.generation import Completion, encode, generate
from grpo_cot.models.opening import opening, refuse_thoughts
from grpo_cot.recipes.phases import GrpoPhase, PpoPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.rewards.groups import group_statistics, is_silent
from grpo_cot.rewards.promise import Reward
from grpo_cot.rewards.registry import Measure

# The settings of GRPOConfig that its trainer hands to generation under the same names.
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "cache_implementation")
# How many groups are drawn of a model on which rewards seem silent, and how many at once. Rewards that vary in one
# group of ten are taken for silent once in 800 times.
MOST_GROUPS = 64
GROUPS_AT_ONCE = 8


def sampling_parameters(phase: GrpoPhase | PpoPhase) -> dict[str, Any]:
    """GenerationConfig's parameters as the phase's trainer sets them; what it leaves alone is off.

    >>> grpo = {"max_completion_length": 64, "temperature": 0.9, "min_p": 0.1, "generation_kwargs": {"typical_p": 0.8}}
    >>> sampling_parameters(GrpoPhase(method="grpo", lora=None, rollouts=None, grpo=grpo))
    {'do_sample': True, 'max_new_tokens': 64, 'temperature': 0.9, 'min_p': 0.1, 'typical_p': 0.8}
    """
    settings = phase.settings
    return {
        "do_sample": True,
        "max_new_tokens": settings["max_completion_length"],
        **{name: settings[name] for name in SAMPLING if settings.get(name) is not None},
        **(settings.get("generation_kwargs") or {}),
    }


@dataclass(frozen=True)
class Sampler:
    """A model with what decides its samples for a phase's rewards. `progress` labels the bar.

    `reward_model` is the reward of that name, where the recipe has it.
    """

    model: Any
    tokenizer: Any
    recipe: Recipe
    phase: GrpoPhase | PpoPhase
    seed: int
    progress: str
    reward_model: Reward | None = None

    def statistics(self, prompts: Sequence[Row]) -> dict[str, Any]:
        """`group_statistics` of the recipe's rewards on one group of completions to each prompt."""
        return self._judged(prompts, self._drawn(prompts, self.seed))

    def statistics_until_varying(self, prompts: Sequence[Row]) -> tuple[int, dict[str, Any]]:
        """How many groups were drawn before the weighted sum varied in one, or all that are tried, and the statistics.

        They come GROUPS_AT_ONCE at a time: where the rewards do vary, the first are enough.
        """
        completions: list[Completion] = []
        prompts = prompts[:MOST_GROUPS]
        for start in range(0, len(prompts), GROUPS_AT_ONCE):
            end = min(start + GROUPS_AT_ONCE, len(prompts))
            completions += self._drawn(prompts[start:end], self.seed + start)
            figures = self._judged(prompts[:end], completions)
            if not is_silent(figures):
                break
        return end, figures

    def _drawn(self, prompts: Sequence[Row], seed: int) -> list[Completion]:
        encoded = encode(
            self.tokenizer, [row["messages"] for row in self._repeated(prompts)],
            self.recipe.prompt.chat_template_kwargs,
        )  # fmt: skip
        return generate(
            self.model, self.tokenizer, encoded, sampling_parameters(self.phase),
            batch_size=self.phase.settings["per_device_train_batch_size"], seed=seed, progress=self.progress,
        )  # fmt: skip

    def _judged(self, prompts: Sequence[Row], completions: Sequence[Completion]) -> dict[str, Any]:
        refuse_thoughts([completion.text for completion in completions], self.recipe.prompt)
        begun = opening(self.tokenizer, prompts[0]["messages"], self.recipe.prompt)
        texts = [begun.judged(completion.text) for completion in completions]
        lengths = [completion.tokens for completion in completions]
        rows, group = self._repeated(prompts), self.phase.group_size
        measure = Measure(self.tokenizer, self.phase.settings["max_completion_length"])
        return group_statistics(self.recipe.rewards, rows, texts, lengths, group, self.reward_model, measure)

    def _repeated(self, prompts: Sequence[Row]) -> list[Row]:
        return [row for row in prompts for _ in range(self.phase.group_size)]
