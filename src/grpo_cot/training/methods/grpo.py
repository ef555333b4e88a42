"""GRPO (Shao et al., 2024): the recipe's rewards, compared within groups of completions to one prompt."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.models.opening import Opening
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.rewards.groups import COLUMNS, MOSTLY, has_golds
from grpo_cot.rewards.ours import correctness
from grpo_cot.rewards.promise import Reward
from grpo_cot.rewards.registry import Measure, check_columns, reward_functions
from grpo_cot.training.curves import cut_sentences, entropy_sentences, mean, reward_sentences, unpaid_sentences
from grpo_cot.training.groups import compare_groups, leave_out_silent
from grpo_cot.training.methods.setup import Examples, Setup, reference_settings
from grpo_cot.training.methods.watching import CompletionTables
from grpo_cot.training.rollouts import rollout_trainer
from grpo_cot.training.shared_prompts import keeps_groups, read_prompts_once
from grpo_cot.training.signal.dynamic_sampling import STILL_SILENT, dynamic_sampling_sentences, replace_silent
from grpo_cot.training.signal.movement import measure_movement, movement_sentences
from grpo_cot.training.validation.answers import validate, validation_problems
from grpo_cot.training.validation.stopping import validation_sentences


def configuration(recipe: Recipe, phase: GrpoPhase) -> dict[str, Any]:
    """The settings that the pipeline adds to the phase's own."""
    return {
        "reward_weights": reward_functions(recipe.rewards)[1],
        "chat_template_kwargs": recipe.prompt.chat_template_kwargs,
        **phase.implied,
        **reference_settings(recipe),
    }


def dataset(setup: Setup) -> Examples:
    """The prompts, with the columns that the rewards read.

    Raises:
        InputError: more prompts are asked at once than there are, or one has no final answer, which a reward reads.
    """
    check_columns(setup.recipe.rewards, setup.prompts)
    assert isinstance(setup.phase, GrpoPhase)
    groups = setup.phase.prompts_at_once(setup.recipe.processes)
    if len(setup.prompts) < groups:
        raise InputError(
            f"{len(setup.prompts)} training prompts are fewer than the {groups} that are asked at once; add rows"
        )
    rows = [{"prompt": row["messages"], **columns_of(row)} for row in setup.prompts]
    problems = validation_problems(setup)
    return Examples(Dataset.from_list(rows), Dataset.from_list(problems) if problems else None)


def columns_of(row: Row) -> Row:
    """The fields of a row that rewards get beside the prompt and the completion."""
    return {name: row[name] for name in COLUMNS if name in row}


def judging(reward: Reward, begun: Opening) -> Reward:
    """A reward that is given what completions are judged on, where the trainer gives what the model wrote."""
    if begun.keeps:
        return reward

    @functools.wraps(reward)
    def judged(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Sequence[float | None]:
        whole = [_judged(completion, begun) for completion in completions]
        return reward(prompts=prompts, completions=whole, **columns)

    return judged


def _judged(completion: Any, begun: Opening) -> Any:
    """A completion in either of TRL's forms, a text or a list of messages of which the last is the model's."""
    if isinstance(completion, str):
        return begun.judged(completion)
    *before, last = completion
    return [*before, {**last, "content": begun.judged(last["content"])}]


class OrderOfEpoch(RepeatSampler):  # type: ignore[misc]  # TRL is not followed by mypy here
    """A sampler's order of prompts, also in an epoch that a resumed training begins with.

    TRL's draws the order of each epoch from one generator, which a resumed training begins anew, with the first order.
    """

    def __init__(self, sampler: RepeatSampler, state: Callable[[], Any]) -> None:
        """Do as `sampler` does; `state` gives the trainer's state."""
        super().__init__(
            sampler.data_source, sampler.mini_repeat_count, sampler.batch_size, sampler.repeat_count, sampler.shuffle,
            sampler.seed,
        )  # fmt: skip
        self._state = state

    def __iter__(self) -> Iterator[int]:
        """The indices of the epoch that the training is in."""
        if self.shuffle:
            self.generator.manual_seed(self.seed)
            for _ in range(int(self._state().epoch or 0)):
                torch.randperm(self.num_samples, generator=self.generator)
        indices: Iterator[int] = super().__iter__()
        return indices


def _keep_order(trainer: Any) -> None:
    """Have a trainer ask its prompts in an order that a resumed training goes on with."""
    make = trainer._get_train_sampler
    trainer._get_train_sampler = lambda dataset=None: OrderOfEpoch(make(dataset), lambda: trainer.state)


def trainer(setup: Setup, configuration: Any, model: Any, examples: Examples) -> Any:
    """TRL's trainer, with attested rollouts where vLLM samples."""
    assert isinstance(setup.phase, GrpoPhase)
    for parser in ("response_template", "response_schema"):
        # With one of these TRL gives the rewards a part of the completion, a thinking model's without its thought.
        if getattr(setup.tokenizer, parser, None) is not None:
            setattr(setup.tokenizer, parser, None)
    measure = Measure(setup.tokenizer, configuration.max_completion_length)
    rewards, _ = reward_functions(setup.recipe.rewards, setup.reward_model, measure)
    arguments = {
        "model": model,
        "reward_funcs": [judging(reward, setup.opening) for reward in rewards],
        "args": configuration,
        "train_dataset": examples.train,
        "eval_dataset": examples.validation,
        "processing_class": setup.tokenizer,
        "peft_config": setup.adapter,
    }
    rollouts = setup.phase.rollouts is not None
    made = rollout_trainer(setup.recipe, setup.phase, arguments) if rollouts else GRPOTrainer(**arguments)
    if setup.recipe.backend == "transformers":
        read_prompts_once(made)
        leave_out_silent(made)
        measure_movement(made)
    _keep_order(made)
    compare_groups(made, judging(correctness, setup.opening) if has_golds(setup.prompts) else None)
    if setup.phase.dynamic_sampling is not None:
        replace_silent(made, setup.phase.dynamic_sampling.rounds)
    if setup.phase.show_completions is not None:
        made.add_callback(CompletionTables(made, setup.phase.show_completions))
    if setup.phase.validation is not None:
        validate(made, setup, list(examples.validation or ()))
    return made


def workload(recipe: Recipe, phase: GrpoPhase, settings: Mapping[str, Any], *, fresh: bool) -> dict[str, Any]:
    """The largest batch: prompts and completions at full length."""
    prompt, targets = recipe.prompt.max_prompt_length, settings["max_completion_length"]
    generations = settings["steps_per_generation"] or settings["gradient_accumulation_steps"]
    rows, group = settings["per_device_train_batch_size"], settings["num_generations"]
    whole = recipe.backend == "transformers" and keeps_groups(settings, group)
    return {
        "length": prompt + targets, "targets": targets, "loss": "selected", "temperature": settings["temperature"],
        "drawn": 0 if settings["use_vllm"] else rows * generations, "group": group if whole else 1,
        "drawn_length": prompt + targets, "reference": settings["beta"] != 0 and not fresh,
    }  # fmt: skip


def verdict(log: Sequence[Mapping[str, float]], phase: GrpoPhase) -> list[str]:
    """Sentences on the reward, the completions' length, the groups and the entropy, each where it was logged."""
    steps = [entry for entry in log if "reward" in entry]
    if not steps:
        return ["The trainer logged no step."]
    sentences = [*reward_sentences(steps), *cut_sentences(steps, phase.grpo["max_completion_length"])]
    sentences += [*dynamic_sampling_sentences(steps), *movement_sentences(steps)]
    replaced = any(STILL_SILENT in entry for entry in steps)
    silent = mean(STILL_SILENT if replaced else "frac_reward_zero_std", steps)
    if silent > 0.5:
        sentences.append(f"The reward never varied in {silent:.0%} of the groups, which teach nothing: see audit.json.")
    later = steps[len(steps) // 2 :]  # at first the format may well come before the answer
    varied, phantom = 1 - mean("frac_reward_zero_std", later), mean("phantom_advantage", later)
    if phantom > MOSTLY * varied:
        sentences.append(
            f"In {phantom:.0%} of the groups of the second half rewards differed though no completion was right: these "
            "groups taught the format, or something else than the answer."
        )
    return [*validation_sentences(log, phase), *sentences, *unpaid_sentences(steps), *entropy_sentences(steps)]
