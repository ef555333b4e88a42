"""PPO as a phase of a recipe: resuming, references, the files that it leaves, the verdict, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, kill_at, tell_at, training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.phases import PpoPhase
from grpo_cot.recipes.recipe import Recipe

BASE = ROOT / "assets/tiny/model"
PPO = {
    "max_steps": 12, "batch_size": 8, "ppo_epochs": 2, "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1, "learning_rate": 1e-3, "max_completion_length": 8, "temperature": 1.0,
    "init_kl_coef": 0.1, "target": 0.01, "horizon": 50.0, "lr_scheduler_type": "linear", "optim": "adamw_torch",
    "bf16": False, "save_steps": 4, "save_total_limit": 2, "logging_steps": 2, "report_to": "none",
}  # fmt: skip
SFT = {
    "max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "max_length": 256, "loss_type": "nll",
    "bf16": False, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
}  # fmt: skip
ADAPTER = "02-ppo/adapter_model.safetensors"


def recipe(*, lora: bool = True, after: bool = False, sections: dict[str, Any] | None = None, **ppo: Any) -> Recipe:
    """One phase of PPO; `lora`: an adapter on a base in NF4, `after`: a step of SFT before."""
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    adapter = content["phases"][0]["lora"] if lora else None
    phase = {"method": "ppo", "lora": None if after else adapter, "ppo": PPO | ppo}
    content["phases"] = [*([{"method": "sft", "lora": adapter, "sft": SFT}] if after else []), phase]
    content["rewards"] = {"random": 1.0, "soft_format": 0.0, "published_length_cosine": 0.0}  # the first always varies
    content["quantization"] = content["quantization"] if lora else None
    return Recipe.model_validate(content | (sections or {}))


def train(wanted: Recipe, scratch: Path) -> Path:
    from grpo_cot.training.phases import train_phases

    return train_phases(wanted, training_rows(), [], BASE, 1, scratch, {})


def files(result: Path) -> dict[str, bytes]:
    return {str(path.relative_to(result)): path.read_bytes() for path in sorted(result.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({"after": True}, 7),  # in a rollout after the first checkpoint
        ({"after": True, "max_steps": 16}, 14),  # in the second epoch of prompts, whose order is another one
        ({"lora": False, "gradient_accumulation_steps": 2, "save_steps": 2}, 19),  # between two epochs
    ],
)
def test_killed_and_resumed_it_ends_the_same_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], call: int
) -> None:
    """The coefficient of the KL moves throughout: its target is next to nothing, and its horizon a few rollouts."""
    from grpo_cot.training.ppo.trainer import PpoTrainer

    wanted = recipe(**settings)
    whole = files(train(wanted, tmp_path / "whole"))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        kill_at(patched, PpoTrainer, call)
        train(wanted, tmp_path / "killed")
    resumed = files(train(wanted, tmp_path / "killed"))
    assert [name for name in whole if whole[name] != resumed.get(name)] == []
    log = json.loads(whole[next(name for name in whole if name.endswith("ppo/log.json"))])
    coefficients = [entry["kl_coefficient"] for entry in log if "kl_coefficient" in entry]
    assert len(coefficients) == len(set(coefficients)) > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "call", "end"),
    [
        ({"save_steps": 8, "max_steps": 12}, 6, 8),  # in a rollout's second step of four: at the end of the fourth
        ({"save_steps": 12, "logging_steps": 3, "max_steps": 16}, 1, 12),  # where rollouts and entries of the log end
    ],
)
def test_told_to_end_it_leaves_a_checkpoint_where_it_can_go_on_and_ends_the_same_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], call: int, end: int
) -> None:
    from grpo_cot.training.ppo.trainer import PpoTrainer

    wanted, last = recipe(after=True, **settings), settings["max_steps"]
    whole = files(train(wanted, tmp_path / "whole"))
    with monkeypatch.context() as patched:
        tell_at(patched, PpoTrainer, call)
        with pytest.raises(InputError, match=rf"to end \(SIGTERM\): it did so after step {end} of {last} and left a"):
            train(wanted, tmp_path / "told")
    assert whole == files(train(wanted, tmp_path / "told"))


@pytest.mark.slow
def test_the_reference_is_what_the_phase_before_left_and_the_critic_lies_beside_the_adapter(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    result = train(recipe(after=True), tmp_path)
    kl = [entry["kl"] for entry in json.loads((result / "02-ppo/log.json").read_text()) if "kl" in entry]
    assert kl[0] == pytest.approx(0, abs=1e-5)
    assert abs(kl[-1]) > 1e-4
    assert (result / ADAPTER).read_bytes() != (result / "01-sft/adapter_model.safetensors").read_bytes()
    assert sorted(path.name for path in (result / "02-ppo").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "audit.json", "configuration.json", "critic.safetensors",
        "log.json",
    ]  # fmt: skip
    critic = load_file(result / "02-ppo/critic.safetensors")
    assert critic["weight"].abs().max() > 0 and critic["kl_coefficient"] != 0.1
    assert not any("value_head" in name for name in load_file(result / ADAPTER))


@pytest.mark.slow
def test_full_weights_load_again_without_the_value_head(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from grpo_cot.models.loading import load

    result = train(recipe(lora=False, max_steps=4), tmp_path)
    model, _, description = load(result / "model.json")
    assert description.kind == "full" and not hasattr(model, "value_head")
    assert not any("value_head" in name for name in load_file(result / "01-ppo/model.safetensors"))


@pytest.mark.slow
def test_every_curve_is_logged_and_kept(tmp_path: Path) -> None:
    result = train(recipe(max_steps=4, logging_steps=4), tmp_path)
    (entry,) = json.loads((result / "01-ppo/log.json").read_text())[:1]
    assert {
        "reward", "reward_std", "rewards/random/mean", "rewards/soft_format/mean",
        "rewards/published_length_cosine/mean", "kl", "kl_coefficient",
        "policy_loss", "value_loss", "clip_fraction", "value_clip_fraction", "entropy", "explained_variance",
        "advantage_std", "completions/mean_length", "completions/clipped_ratio", "loss", "grad_norm",
    } <= entry.keys()  # fmt: skip
    configuration = json.loads((result / "01-ppo/configuration.json").read_text())
    assert configuration["rewards"] == {"random": 1.0, "soft_format": 0.0, "published_length_cosine": 0.0}
    assert (configuration["ppo"]["batch_size"], configuration["ppo"]["lam"]) == (8, 0.95)


def test_rewards_are_called_as_grpos_trainer_calls_them_and_may_say_nothing() -> None:
    from grpo_cot.training.methods.ppo import judge

    seen: dict[str, Any] = {}

    def length(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        seen.update(columns, prompts=prompts, completions=completions)
        return [1.0, None, math.nan]

    def constant(**columns: Any) -> list[float]:
        return [3.0, 3.0, 3.0]

    def silent(**columns: Any) -> list[None]:
        return [None, None, None]

    rows = [{"prompt": [{"role": "user", "content": name}], "gold": name, "locale": "en", "id": name} for name in "abc"]
    scores, figures = judge([length, constant, silent], [0.5, 2.0, 1.0])(rows, ["x", "y", "z"], [[1], [2, 3], [4]])
    assert scores == [6.5, 6.0, 6.0]
    assert figures == {"rewards/length/mean": 1.0, "rewards/constant/mean": 3.0}
    assert seen["completions"] == [[{"role": "assistant", "content": text}] for text in "xyz"]
    assert seen["prompts"] == [row["prompt"] for row in rows]
    assert seen["completion_ids"] == [[1], [2, 3], [4]] and seen["gold"] == ["a", "b", "c"]


def phase(**settings: Any) -> PpoPhase:
    return PpoPhase(method="ppo", lora=None, ppo={"max_completion_length": 64, **settings})


def entry(reward: float, **more: float) -> dict[str, float]:
    usual = {"entropy": 2.0, "clip_fraction": 0.1, "policy_loss": -0.1, "explained_variance": 0.5, "skipped": 0.0}
    lengths = {"completions/mean_length": 20.0, "completions/clipped_ratio": 0.0}
    return {"reward": reward, "kl": 1.0, "kl_coefficient": 0.1, **usual, **lengths, **more}


@pytest.mark.parametrize(
    ("last", "settings", "says"),
    [
        ({}, {}, "from 0.20 to 1.80 in 2 logged steps"),
        ({"reward": 0.2}, {}, "did not rise"),
        ({"kl": 3.5}, {}, "The KL to the reference was 3.50 nats a completion at the end."),
        ({"kl": 13.0}, {"target": 6.0}, "It ran away: 6 was its target"),
        ({"kl": 13.0}, {}, "It ran away: 6 was its target"),  # the default
        ({"kl": 20.0}, {"adap_kl_ctrl": False}, "It cost 2.00, more than the reward rose."),
        ({"kl": -2.0}, {}, "A negative KL is a wrong estimate"),
        ({"completions/clipped_ratio": 0.97}, {}, "97% of completions hit the length cap of 64 tokens"),
        ({"completions/mean_length": 1.0}, {}, "Completions end at once: the policy writes nothing."),
        ({"clip_fraction": 0.9}, {}, "The clip decided 50% of the tokens"),
        ({"skipped": 0.5}, {}, "25.0% of the batches taught nothing"),
        ({"explained_variance": -0.4}, {}, "explained -0.40 of the returns' variance"),
        ({"entropy": 0.1}, {}, "entropy collapsed from 2.00 to 0.10"),
        ({"entropy": 0.001}, {}, "entropy fell below 0.01: it no longer explores"),
    ],
)
def test_the_verdict_says_what_happened(last: dict[str, float], settings: dict[str, Any], says: str) -> None:
    from grpo_cot.training.methods.ppo import verdict

    assert says in " ".join(verdict([entry(0.2), entry(**{"reward": 1.8, **last})], phase(**settings)))


def test_a_reward_that_never_paid_is_named() -> None:
    from grpo_cot.training.methods.ppo import verdict

    log = [entry(0.2, **{"rewards/correctness/mean": 0.0}), entry(1.8)]
    assert "The reward correctness never paid." in verdict(log, phase())


def test_a_healthy_run_gets_its_figures_and_no_warning() -> None:
    from grpo_cot.training.methods.ppo import verdict

    assert verdict([entry(0.2), entry(1.8)], phase()) == [
        "The mean reward went from 0.20 to 1.80 in 2 logged steps.",
        "The KL to the reference was 1.00 nats a completion at the end.",
    ]
    # A fixed coefficient has no target that the KL could run away from.
    assert len(verdict([entry(0.2), entry(1.8, kl=13.0)], phase(adap_kl_ctrl=False))) == 2
    # Values that know nothing yet are no reason for a sentence.
    assert len(verdict([entry(0.2), entry(1.8, explained_variance=-0.05)], phase())) == 2


def test_nothing_is_said_of_what_was_not_logged() -> None:
    from grpo_cot.training.methods.ppo import verdict

    (sentence,) = verdict([{"reward": 0.2}, {"policy_loss": 0.1}, {"reward": 1.5}], phase())
    assert sentence == "The mean reward went from 0.20 to 1.50 in 2 logged steps."
    assert verdict([], phase()) == verdict([{"policy_loss": 0.1}], phase()) == ["The trainer logged no step."]


def test_the_kl_of_a_phase_without_beta_is_kept() -> None:
    from grpo_cot.training.curves import repeatable

    assert repeatable({"kl": 0.5}, phase()) == {"kl": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cliprang": 0.2}, "phases.1.ppo: unknown key 'cliprang'; did you mean 'cliprange'?"),
        ({"kl_penalty": "full"}, "phases.1.ppo.kl_penalty: expected one of 'kl', 'abs' or 'mse', found 'full'"),
        ({"lam": 1.5}, "phases.1.ppo.lam: expected less than or equal to 1, found 1.5"),
        ({"batch_size": 6}, "batch_size is 6, no multiple of the 4 completions of a step"),
        ({"save_steps": 6}, "save_steps is 6, no multiple of the 4 steps that share one rollout"),
        ({"logging_steps": 3}, "save_steps is 4, no multiple of the 3 logging_steps"),
        ({"save_strategy": "epoch"}, "phases.1.ppo.save_strategy"),
        ({"horizon": 39.0}, "horizon is 39, less than five times the batch_size 8"),
        ({"generation_kwargs": {"stop_strings": ["</answer>"]}}, "generation_kwargs.stop_strings: the trainer gives"),
        ({"generation_kwargs": {"top_k": 5}}, "phases.1.ppo.generation_kwargs.top_k: completions are sampled as"),
        ({"sections": {"rewards": {"random": 0.0}}}, "'rewards' pays nothing"),
        ({"sections": {"accelerate": {"num_processes": 2}}}, "phases.1 trains in one process"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(change: dict[str, Any], says: str) -> None:
    from grpo_cot.checks.recipe import check_training

    with pytest.raises(InputError) as refusal:
        check_training(recipe(**change), "recipe")
    assert says in str(refusal.value)


@pytest.mark.slow
def test_what_fits_is_taken_and_dropout_of_its_own_adapter_is_not() -> None:
    from grpo_cot.checks.recipe import check_training
    from grpo_cot.library.rehearsal import rehearse

    for wanted in (recipe(), recipe(lora=False), recipe(after=True, generation_kwargs={"min_new_tokens": 2})):
        check_training(wanted, "recipe")
        rehearse(wanted.phases[-1], wanted.phases[0].lora, "recipe: phases.1.ppo")
    content = recipe()
    assert content.phases[0].lora is not None
    content.phases[0].lora["lora_dropout"] = 0.1
    with pytest.raises(InputError, match=r"phases.1.lora.lora_dropout is 0.1, but PPO trains without dropout"):
        check_training(content, "recipe")


@pytest.mark.slow
def test_too_few_prompts_for_a_rollout_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="16 training prompts are fewer than the 32 that one rollout asks"):
        train(recipe(batch_size=32, save_strategy="no", horizon=500.0), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("temperature", "ppo.temperature asked 1.0, got 0.5"),
        ("learning_rate", "ppo.learning_rate asked 0.001, got 0.5"),
    ],
)
def test_a_trainer_that_would_do_something_else_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, says: str
) -> None:
    from grpo_cot.training.ppo.trainer import PpoTrainer

    original = PpoTrainer.__init__

    def changed(self: Any, *arguments: Any, **settings: Any) -> None:
        original(self, *arguments, **settings)
        setattr(self.generation_config if change == "temperature" else self.args, change, 0.5)

    monkeypatch.setattr(PpoTrainer, "__init__", changed)
    with pytest.raises(InputError, match=says):
        train(recipe(), tmp_path)


@pytest.mark.slow
def test_its_memory_and_its_steps_are_planned_as_the_trainer_has_them(tmp_path: Path) -> None:
    """Bytes alive at the fullest moment of a forward and a backward pass, with padding."""
    from dataclasses import replace

    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from grpo_cot.memory.architecture import architecture
    from grpo_cot.memory.estimate import Blueprint
    from grpo_cot.memory.live_bytes import LiveBytes
    from grpo_cot.memory.plan import Rows, _phase
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.training.methods.ppo import judge
    from grpo_cot.training.methods.registry import trainer_configuration, workload
    from grpo_cot.training.ppo.trainer import PpoTrainer

    wanted = recipe()
    lora, quantization = wanted.phases[0].lora, wanted.quantization
    assert lora is not None and quantization is not None
    blueprint = Blueprint(*architecture(ROOT, "tiny"), wanted.model, quantization, lora)
    work = replace(workload(wanted, 0, on_gpu=False), rows=4, length=128, targets=64)
    model = AutoModelForCausalLM.from_pretrained(
        BASE, quantization_config=BitsAndBytesConfig(**quantization), dtype=torch.float32
    )
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora)).train()
    trainer = PpoTrainer(
        model, trainer_configuration(wanted, wanted.phases[0], tmp_path, 1), Dataset.from_list([{"prompt_ids": [5]}]),
        load_tokenizer(BASE), judge([], []), fresh=True,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    ids = torch.arange(1, 4 * 128 + 1).reshape(4, 128)
    mask, zeros = torch.ones(4, 64, dtype=torch.long), torch.zeros(4, 64)
    padded = mask.clone()
    padded[0, 0] = 0
    figures = dict.fromkeys(("old_log_probabilities", "old_values", "advantages", "returns"), zeros)
    live = LiveBytes(blueprint.part)
    live.ignore([*model.parameters(), *model.buffers(), ids, mask, padded, zeros])
    with live:
        trainer.compute_loss(
            model,
            {"prompt_ids": ids[:, :64], "prompt_mask": padded, "completion_ids": ids[:, 64:], "completion_mask": mask,
             "tokens": torch.tensor(256), **figures},
        ).backward()  # fmt: skip
    assert sum(blueprint.step(work).values()) == pytest.approx(sum(live.peaks[""].values()), rel=0.03)

    # Two rollouts of eight prompts are an epoch of twenty, and each is learnt from in four steps.
    planned = _phase(recipe(), 0, Rows(20, "counted"), 1, blueprint)
    assert (planned.steps, planned.examples, planned.epochs) == (12, 4, 12 / 8)
    assert "4 steps share one rollout of 8 completions" in planned.notes
    assert "reference" not in planned.memory.kept  # the model without its new adapter
    assert "reference" in _phase(recipe(after=True), 1, Rows(20, "counted"), 1, blueprint).memory.kept
