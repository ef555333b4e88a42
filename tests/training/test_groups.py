"""Groups that teach nothing, or something else than the answer: asked before a later GRPO phase, and logged."""

import doctest
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from group_recipes import BASE, recipe, trainer_of
from support import training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.rewards.ours import correctness

pytestmark = pytest.mark.slow


def train(given: Recipe, scratch: Path) -> Path:
    from grpo_cot.training.phases import train_phases

    return train_phases(given, training_rows(), [], BASE, 1, scratch, {})


def test_rewards_that_are_silent_after_the_first_phase_stop_the_second_before_its_first_step(tmp_path: Path) -> None:
    """Two tokens hold no answer, so that correctness never pays."""
    with pytest.raises(InputError) as refusal:
        train(recipe({"correctness": 1.0, "random": 0.0}, max_completion_length=2), tmp_path)
    assert str(refusal.value).startswith(
        "phases.2: the rewards are silent: in 16 groups of samples of the model that phases.1 left, their weighted sum "
        "varies in none"
    )
    assert [path.name for path in (tmp_path / "result").iterdir()] == ["01-sft"]
    assert not list(tmp_path.glob("checkpoints-02-grpo*"))


def test_a_second_phase_starts_when_a_reward_varies_and_its_samples_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpo_cot.training import phases

    given = recipe({"random": 1.0, "correctness": 0.0}, max_completion_length=8)
    result = train(given, tmp_path / "audited")
    audit = json.loads((result / "02-grpo/audit.json").read_text())
    assert (audit["groups"], audit["group_size"]) == (8, 8)  # the first few were enough
    assert audit["samples"]["weighted_sum"]["varies"] == 1
    assert audit["samples"]["weighted_sum"]["phantom"] == 1  # nothing is right in eight tokens
    assert audit["warnings"][-1].startswith(
        "the rewards vary in 100% of the groups of samples of the model that phases.1 left, and 100% of these have no"
    )
    assert not (result / "01-sft/audit.json").exists()

    monkeypatch.setattr(phases, "_starting_samples", lambda *arguments: None)
    without = train(given, tmp_path / "not audited")
    for file in ("log.json", "adapter_model.safetensors"):
        assert (result / "02-grpo" / file).read_bytes() == (without / "02-grpo" / file).read_bytes()
    assert all("phantom_advantage" in entry for entry in json.loads((result / "02-grpo/log.json").read_text())[:2])


def test_a_resumed_phase_keeps_what_was_found_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpo_cot.rewards.sampling import Sampler
    from grpo_cot.training.methods.registry import METHODS

    given = recipe({"random": 1.0}, max_completion_length=8)

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(METHODS["grpo"], "trainer", killed)
        with pytest.raises(KeyboardInterrupt):
            train(given, tmp_path)
    monkeypatch.setattr(Sampler, "statistics_until_varying", killed)
    assert (train(given, tmp_path) / "02-grpo/audit.json").is_file()


def test_a_first_phase_is_left_to_the_step_audit(tmp_path: Path) -> None:
    result = train(recipe({"correctness": 1.0}, first="grpo", max_completion_length=2), tmp_path)
    assert sorted(path.name for path in (result / "01-grpo").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "configuration.json", "log.json",
    ]  # fmt: skip


def test_samples_are_drawn_until_a_group_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.models.generation import Completion
    from grpo_cot.models.opening import Opening
    from grpo_cot.rewards import sampling

    given = recipe({"correctness": 1.0})
    rows = training_rows() * 5
    asked: list[list[Any]] = []

    def generate(model: Any, tokenizer: Any, prompts: list[Any], settings: Any, **more: Any) -> list[Completion]:
        asked.append([prompts, more["seed"]])
        texts = ["", f"<answer>{rows[11]['gold']}</answer>"] * (len(prompts) // 2)
        return [Completion(text if (len(asked) == 2) else "", 3, False) for text in texts]

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "encode", lambda tokenizer, conversations, settings: conversations)
    monkeypatch.setattr(sampling, "opening", lambda *arguments: Opening("", strips=False))
    sampler = sampling.Sampler(None, None, given, given.phases[1], 5, "samples")
    groups, figures = sampler.statistics_until_varying(rows)
    assert groups == 16
    assert figures["weighted_sum"]["varies"] > 0
    drawn_for = [prompt for prompts, _ in asked for prompt in prompts]
    assert drawn_for == [row["messages"] for row in rows[:16] for _ in range(8)]
    assert asked[0][1] != asked[1][1]
    asked[:] = [[[], 0]] * 2  # from now on nothing is right
    groups, figures = sampler.statistics_until_varying(rows)
    assert (groups, figures["weighted_sum"]["varies"]) == (sampling.MOST_GROUPS, 0)


@pytest.mark.parametrize(
    "grpo",
    [
        {},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 20},
        {"min_p": 0.2},
        {"repetition_penalty": 1.3},
        {"generation_kwargs": {"typical_p": 0.8, "no_repeat_ngram_size": 3, "max_new_tokens": 5}},
        {"cache_implementation": "static"},
        {"temperature": 0.9, "generation_kwargs": {"temperature": 0.3, "do_sample": True, "eos_token_id": [7, 9]}},
    ],
    ids=str,
)
def test_samples_for_the_rewards_are_drawn_as_the_trainer_draws(tmp_path: Path, grpo: dict[str, Any]) -> None:
    """The oracle is the trainer's own GenerationConfig."""
    from grpo_cot.models.generation import generation_configuration
    from grpo_cot.rewards.sampling import sampling_parameters

    given = recipe({"correctness": 1.0}, first="grpo", **grpo)
    [phase] = given.phases
    assert isinstance(phase, GrpoPhase)
    trainer = trainer_of(given, tmp_path)
    ours = generation_configuration(trainer.model, trainer.processing_class, sampling_parameters(phase)).to_dict()
    theirs = trainer.generation_config.to_dict()
    ends = [config.pop("eos_token_id") for config in (ours, theirs)]
    assert set(ends[0]) == set(ends[1])
    # What the tokenizer says of its first token plays no part in going on from a prompt; compiling changes no draw.
    for name in ("bos_token_id", "disable_compile"):
        ours.pop(name, None)
        theirs.pop(name, None)
    off = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "temperature": 1.0}
    ours, theirs = (
        {name: off.get(name) if value is None else value for name, value in settings.items()}
        for settings in (ours, theirs)
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("keyword", "says"),
    [
        ({"typical": 0.8}, "phases.1.grpo.generation_kwargs: unknown key 'typical'; did you mean 'typical_p'"),
        ({"num_return_sequences": 2}, "generation_kwargs.num_return_sequences: this is set by the step"),
    ],
)
def test_a_misspelt_sampling_parameter_of_the_trainer_is_refused(keyword: dict[str, Any], says: str) -> None:
    from grpo_cot.checks.recipe import check_training

    check_training(recipe({"correctness": 1.0}, first="grpo", generation_kwargs={"typical_p": 0.8}), "recipe")
    with pytest.raises(InputError, match=says):
        check_training(recipe({"correctness": 1.0}, first="grpo", generation_kwargs=keyword), "recipe")


def test_doctests() -> None:
    from grpo_cot.rewards import sampling

    assert doctest.testmod(sampling) == (0, 2)


def test_the_audit_draws_the_bases_samples_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.checks.audit import base_samples
    from grpo_cot.rewards import sampling

    seen: list[Any] = []
    generate = sampling.generate

    def spying(model: Any, tokenizer: Any, prompts: Any, settings: Any, **more: Any) -> Any:
        seen.append(settings)
        return generate(model, tokenizer, prompts, settings, **more)

    monkeypatch.setattr(sampling, "generate", spying)
    given = recipe(
        {"random": 1.0}, first="grpo", max_completion_length=4, min_p=0.1, repetition_penalty=1.2,
        generation_kwargs={"typical_p": 0.9},
    )  # fmt: skip
    [phase] = given.phases
    assert isinstance(phase, GrpoPhase)
    figures = base_samples(given, phase, training_rows()[:3], BASE, 1)
    assert figures["weighted_sum"]["varies"] == 1
    assert seen == [
        {
            "do_sample": True, "max_new_tokens": 4, "temperature": 1.0, "min_p": 0.1, "repetition_penalty": 1.2,
            "typical_p": 0.9,
        }
    ]  # fmt: skip


def test_the_curve_of_phantoms_is_that_of_the_trainers_own_groups(tmp_path: Path) -> None:
    from grpo_cot.rewards import correctness

    weights = {"correctness": 1.0, "soft_format": 0.5}
    trainer = trainer_of(recipe(weights, first="grpo", per_device_train_batch_size=64, max_steps=1), tmp_path)
    trainer.train()
    [entry] = [entry for entry in trainer.state.log_history if "reward" in entry]
    rewards = trainer._logs["rewards"]
    sums = [sum(weights[name] * rewards[name][row] for name in weights) for row in range(64)]
    golds = {row["messages"][-1]["content"]: row["gold"] for row in training_rows()}
    phantoms = 0
    for start in range(0, 64, 8):
        rows = range(start, start + 8)
        [gold] = {gold for row in rows for question, gold in golds.items() if question in trainer._logs["prompt"][row]}
        right = correctness([""] * 8, [trainer._logs["completion"][row] for row in rows], gold=[gold] * 8)
        phantoms += len({sums[row] for row in rows}) > 1 and not any(right)
    assert 0 < phantoms < 8
    assert entry["phantom_advantage"] == phantoms / 8


def test_groups_are_counted_over_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a group of four, two completions are here, both wrong, and two there, one of them right."""
    import torch

    from grpo_cot.training import groups

    there = {"right": torch.tensor([True, False]), "paid": torch.tensor([[2.0, 0.0], [0.0, 0.0]])}
    monkeypatch.setattr(groups, "gather", lambda here: torch.cat([here, there["right"]]))
    calculated = torch.cat([torch.tensor([[0.0, 0.5], [0.0, 0.0]]), there["paid"]])
    trainer = SimpleNamespace(
        _calculate_rewards=lambda *arguments: calculated, model=SimpleNamespace(training=True), num_generations=4,
        reward_weights=torch.tensor([1.0, 1.0]), _metrics={"train": {"phantom_advantage": []}},
        _generate_and_score_completions=lambda inputs: {"advantages": torch.tensor([0.1, 0.2])},
        multi_objective_aggregation="sum_then_normalize", scale_rewards="group",
        accelerator=SimpleNamespace(process_index=1),
    )  # fmt: skip
    groups.compare_groups(trainer, correctness)
    inputs = [{"gold": "5", "locale": "en"}] * 2
    messages = [[{"role": "assistant", "content": "<answer>6</answer>"}]] * 2
    assert trainer._calculate_rewards(inputs, ["", ""], messages, [[0], [0]]) is calculated
    there["right"] = torch.tensor([False, False])
    trainer._calculate_rewards(inputs, ["", ""], messages, [[0], [0]])
    assert trainer._metrics["train"]["phantom_advantage"] == [0.0, 1.0]
    # Of two groups of two the second one is this process's, and its rewards are equal.
    trainer.num_generations, trainer._metrics["train"]["frac_reward_zero_std"] = 2, [0.0]
    for there["paid"], expected in ((torch.ones(2, 2), [0, 0]), (torch.tensor([[2.0, 0.0], [0.0, 0.0]]), [0.1, 0.2])):
        calculated[2:] = there["paid"]
        trainer._calculate_rewards(inputs, ["", ""], messages, [[0], [0]])
        batch = trainer._generate_and_score_completions(inputs)
        assert batch["advantages"].tolist() == pytest.approx(expected)
        assert trainer._metrics["train"]["frac_reward_zero_std"] == [0.5 if expected == [0, 0] else 0.0]


def test_a_completion_that_no_reward_judges_is_not_compared() -> None:
    import torch

    from grpo_cot.training.groups import varying

    nothing = torch.nan
    paid = torch.tensor([[0.5, nothing], [nothing, nothing], [0.5, nothing], [0.5, 0.0]])
    assert varying(paid, torch.ones(2), 4).tolist() == [False]
    assert varying(paid, torch.ones(2), 2).tolist() == [False, False]
    paid[3, 1] = 1.0
    assert varying(paid, torch.ones(2), 2).tolist() == [False, True]
    assert varying(paid, torch.tensor([1.0, 0.0]), 2).tolist() == [False, False]


def test_sums_that_only_their_order_tells_apart_are_equal() -> None:
    import torch

    from grpo_cot.training.groups import varying

    paid = torch.tensor([[0.1, 0.6, 0.0], [0.0, 0.0, 0.7], [0.7, 0.0, 0.0], [0.7, 1e-5, 0.0]])
    assert paid[0].sum() != paid[1].sum()
    assert varying(paid, torch.ones(3), 2).tolist() == [False, True]


@pytest.mark.slow
def test_a_group_of_equal_rewards_moves_nothing_whatever_their_mean_rounds_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of eight float32 rewards of 1.2 is another number than 1.2."""
    import torch
    from trl import GRPOTrainer

    assert torch.full((8,), 1.2).mean() != torch.tensor(1.2)
    monkeypatch.setattr(
        GRPOTrainer, "_calculate_rewards", lambda self, inputs, *others: torch.full((len(inputs), 1), 1.2)
    )
    trainer = trainer_of(recipe({"correctness": 1.0}, first="grpo", max_steps=2), tmp_path)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert [(entry["frac_reward_zero_std"], entry["grad_norm"]) for entry in steps] == [(1, 0)] * 2


def test_a_model_is_loaded_whole_where_the_processes_share_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import deepspeed, is_deepspeed_zero3_enabled

    from grpo_cot.models.loading import placement, unsharded

    class Stage3:
        def is_zero3(self) -> bool:
            return True

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with unsharded():
        assert placement() is not None
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    stage = Stage3()
    deepspeed.set_hf_deepspeed_config(stage)
    try:
        assert placement() is None
        with unsharded():
            assert placement() is not None
        assert is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()
