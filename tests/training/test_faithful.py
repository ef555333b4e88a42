"""A trainer that would not train what the recipe asks is stopped before its first step, with the field, asked and got.

That trainers which do are let pass is what every other test of training shows.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import ROOT, training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.phases import RolloutsSection
from grpo_cot.recipes.recipe import Recipe

pytestmark = pytest.mark.slow


def recipe(**grpo: Any) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    content["phases"][0]["grpo"] |= {"max_steps": 2, "max_completion_length": 16} | grpo
    content["rewards"] = {"random": 1.0}
    return Recipe.model_validate(content)


def train(wanted: Recipe, scratch: Path) -> None:
    from grpo_cot.training.phases import train_phases

    train_phases(wanted, training_rows(), [], ROOT / "assets/tiny/model", 1, scratch, {})


@pytest.mark.parametrize(
    ("settings", "override", "says"),
    [
        (
            {"loss_type": "dapo"}, {"mask_truncated_completions": True, "epsilon_high": 0.28},
            r"grpo.epsilon_high asked None, got 0.28.*grpo.mask_truncated_completions asked False, got True",
        ),
        ({"loss_type": "dr_grpo"}, {"scale_rewards": False}, r"grpo.scale_rewards asked 'group', got False"),
        ({}, {"per_device_train_batch_size": 8}, r"grpo.per_device_train_batch_size asked 16, got 8"),
        ({}, {"bf16": True}, r"grpo.bf16 asked False, got True"),
        ({}, {"beta": 0.001}, r"grpo.beta asked 0.0, got 0.001"),
        # What the recipe does not state is asked at the library's default.
        ({}, {"weight_decay": 0.001}, r"grpo.weight_decay asked 0.0, got 0.001"),
        ({}, {"vllm_importance_sampling_correction": False}, r"grpo.vllm_importance_sampling_correction asked True"),
    ],
)  # fmt: skip
def test_a_configuration_that_was_changed_after_the_fact_is_refused(
    tmp_path: Path, settings: dict[str, Any], override: dict[str, Any], says: str
) -> None:
    """The changes are those that Unsloth's configuration and trainer classes are known to make."""
    from grpo_cot.training.faithful import compare_settings, snapshot
    from grpo_cot.training.methods.registry import trainer_configuration

    wanted = recipe(**settings)
    phase = wanted.phases[0]
    configuration = trainer_configuration(wanted, phase, tmp_path, 1)
    asked = snapshot(configuration)
    compare_settings(wanted, phase, asked, configuration)
    for name, value in override.items():
        setattr(configuration, name, value)
    with pytest.raises(InputError, match=r"^phases.1: the backend transformers does not train what.*: " + says):
        compare_settings(wanted, phase, asked, configuration)


class Ready(Exception):
    """The trainer was made, compared and let pass."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What training compares just before it starts: recipe, phase, what was asked, and the trainer."""
    from grpo_cot.training import phases as training

    found: list[Any] = []

    def compare(*compared: Any) -> None:
        original(*compared)
        found.extend(compared)
        raise Ready

    original = training.compare
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Ready):
        patch.setattr(training, "compare", compare)
        train(recipe(), tmp_path_factory.mktemp("made"))
    return tuple(found)


def first(trainer: Any, attribute: str) -> Any:
    """The first layer of the model that has such an attribute."""
    return next(module for module in trainer.model.modules() if hasattr(module, attribute))


def later_phase(wanted: Recipe, beta: float) -> tuple[Recipe, Any]:
    """The recipe with another phase of GRPO after the first, and that phase."""
    first = wanted.phases[0].model_copy(update={"grpo": wanted.phases[0].settings | {"beta": beta}})
    second = first.model_copy(update={"lora": None})
    return wanted.model_copy(update={"phases": [first, second]}), second


def test_the_kl_of_a_later_phase_is_measured_to_what_the_phase_before_left(
    made: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpo_cot.training.faithful import compare

    wanted, phase = later_phase(made[0], beta=0.1)
    says = "^phases.2: .* grpo.beta's reference asked 'what the phase before left', got 'the base model'"
    with pytest.raises(InputError, match=says):
        compare(wanted, phase, *made[2:])
    compare(*later_phase(made[0], beta=0.0), *made[2:])  # without a KL there is no reference
    compare(wanted, wanted.phases[0], *made[2:])  # the first phase's is the base
    monkeypatch.setitem(made[-1].model.peft_config, "ref", made[-1].model.peft_config["default"])
    compare(wanted, phase, *made[2:])


def test_shared_rollouts_sample_with_the_models_own_engine(
    made: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpo_cot.training.faithful import compare

    wanted, phase, asked, trainer = made
    section = RolloutsSection(sync="shared", log_probability_gap=0.1)
    phase = phase.model_copy(update={"rollouts": section})
    wanted = wanted.model_copy(update={"phases": [phase]})
    engine = object()
    monkeypatch.setattr(trainer, "vllm_generation", SimpleNamespace(llm=engine, temperature=1.0), raising=False)
    says = "rollouts.sync asked 'shared', got 'an engine with weights of its own'"
    with pytest.raises(InputError, match=says):
        compare(wanted, phase, asked, trainer)
    monkeypatch.setattr(trainer.model, "vllm_engine", engine, raising=False)
    compare(wanted, phase, asked, trainer)
    monkeypatch.setattr(trainer.vllm_generation, "llm", object())
    with pytest.raises(InputError, match=says):
        compare(wanted, phase, asked, trainer)
    apart = phase.model_copy(update={"rollouts": section.model_copy(update={"sync": "merge"})})
    compare(wanted.model_copy(update={"phases": [apart]}), apart, asked, trainer)  # where its own weights are meant
    # What that engine samples with is the recipe's as well.
    monkeypatch.setattr(trainer.vllm_generation, "temperature", 0.5)
    with pytest.raises(InputError, match=r"grpo.temperature asked 1.0, got 0.5"):
        compare(wanted.model_copy(update={"phases": [apart]}), apart, asked, trainer)
    monkeypatch.setattr(trainer.vllm_generation, "temperature", 1.0)
    monkeypatch.setattr(trainer.vllm_generation, "max_completion_length", 9, raising=False)
    with pytest.raises(InputError, match=r"grpo.max_completion_length asked 16, got 9"):
        compare(wanted.model_copy(update={"phases": [apart]}), apart, asked, trainer)


def to_full_precision(patch: pytest.MonkeyPatch, trainer: Any) -> None:
    """Cannot be undone: the tests of the same trainer stand before."""
    import torch

    for module in list(trainer.model.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "compute_dtype") and not hasattr(child, "lora_A"):
                patch.setattr(module, name, torch.nn.Linear(child.in_features, child.out_features, bias=False))


def without_adapter(patch: pytest.MonkeyPatch, trainer: Any) -> None:
    attention = trainer.model.base_model.model.model.layers[0].self_attn
    patch.setattr(attention, "q_proj", attention.q_proj.base_layer)


def in_half(patch: pytest.MonkeyPatch, parameter: Any) -> None:
    patch.setattr(parameter, "data", parameter.data.bfloat16())


OVERRIDES: dict[str, Callable[[pytest.MonkeyPatch, Any], None]] = {
    "grpo.epsilon_high asked 0.2, got 0.28": lambda patch, trainer: patch.setattr(trainer, "epsilon_high", 0.28),
    "grpo.beta asked 0.0, got 0.04": lambda patch, trainer: patch.setattr(trainer, "beta", 0.04),
    "grpo.loss_type asked 'dapo', got 'grpo'": lambda patch, trainer: patch.setattr(trainer, "loss_type", "grpo"),
    "grpo.temperature asked 1.0, got 0.9": lambda patch, trainer: patch.setattr(trainer, "temperature", 0.9),
    "grpo.scale_rewards asked 'group', got 'none'": lambda patch, trainer: patch.setattr(
        trainer, "scale_rewards", "none"
    ),
    r"grpo.reward_weights asked \[1.0\], got \[0.5\]": lambda patch, trainer: patch.setattr(
        trainer, "reward_weights", trainer.reward_weights / 2
    ),
    "grpo.top_p asked 1.0, got 0.95": lambda patch, trainer: patch.setattr(trainer.generation_config, "top_p", 0.95),
    "grpo.max_new_tokens asked 16, got 9": lambda patch, trainer: patch.setattr(
        trainer.generation_config, "max_new_tokens", 9
    ),
    "grpo.learning_rate asked 0.001, got 5e-05": lambda patch, trainer: patch.setattr(
        trainer.args, "learning_rate", 5e-5
    ),
    "grpo.per_device_train_batch_size asked 16, got .32 over 2 GPUs": lambda patch, trainer: patch.setattr(
        trainer.args, "_n_gpu", 2
    ),
    "grpo.mixed_precision asked 'no', got 'bf16'": lambda patch, trainer: patch.setitem(
        trainer.accelerator.state._shared_state, "_mixed_precision", "bf16"
    ),
    "model.attn_implementation asked 'sdpa', got 'eager'": lambda patch, trainer: patch.setattr(
        trainer.model.config, "_attn_implementation", "eager"
    ),
    "model.dtype asked 'float32', got 'bfloat16'": lambda patch, trainer: in_half(
        patch, trainer.model.get_input_embeddings().weight
    ),
    "the type of what is trained asked 'float32', got 'bfloat16, float32'": lambda patch, trainer: in_half(
        patch, first(trainer, "lora_A").lora_A["default"].weight
    ),
    r"lora.r and scale asked \(4, 2.0\), got .*1.0": lambda patch, trainer: patch.setitem(
        first(trainer, "lora_A").scaling, "default", 1.0
    ),
    "lora.lora_alpha asked 8, got 16": lambda patch, trainer: patch.setattr(
        trainer.model.peft_config["default"], "lora_alpha", 16
    ),
    r"lora.target_modules asked \['down_proj', .*, got .1 layers otherwise": without_adapter,
    "quantization.bnb_4bit_use_double_quant asked True, got False": lambda patch, trainer: patch.setattr(
        first(trainer, "compute_dtype").weight.quant_state, "nested", False
    ),
    "quantization asked '4 bits', got nothing": to_full_precision,
}


@pytest.mark.parametrize(("says", "override"), OVERRIDES.items(), ids=OVERRIDES.keys())
def test_a_trainer_that_would_train_otherwise_is_refused(
    made: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, says: str, override: Callable[..., None]
) -> None:
    from grpo_cot.training.faithful import compare

    override(monkeypatch, made[-1])
    with pytest.raises(InputError, match=f"^phases.1: the backend transformers does not train what .*: {says}"):
        compare(*made)


@pytest.mark.parametrize(
    ("name", "override", "says"),
    [
        ("create_optimizer", "SGD", "grpo.optim asked 'AdamW', got 'SGD'"),
        ("create_scheduler", "linear", "grpo.lr_scheduler_type's rate at step 1 asked 0.001, got 0.0005"),
        ("gradient_checkpointing", True, "grpo.gradient_checkpointing asked False, got True"),
    ],
)
def test_an_optimizer_a_schedule_or_checkpointing_of_the_trainers_own_is_found_when_training_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, override: Any, says: str
) -> None:
    import torch
    import transformers

    from grpo_cot.training import phases as training

    original = training.compare

    def change(wanted: Recipe, phase: Any, asked: Any, trainer: Any) -> None:
        original(wanted, phase, asked, trainer)
        if name == "create_optimizer":
            trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1e-3)
        elif name == "create_scheduler":
            trainer.create_optimizer()
            trainer.lr_scheduler = transformers.get_scheduler(override, trainer.optimizer, 0, 2)
        else:
            trainer.model.gradient_checkpointing_enable()

    monkeypatch.setattr(training, "compare", change)
    with pytest.raises(InputError, match=says):
        train(recipe(), tmp_path)


def test_supervised_training_that_would_learn_the_prompts_too_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpo_cot.training import phases as training

    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    settings = {"max_steps": 1, "learning_rate": 1e-3, "max_length": 300, "loss_type": "nll", "bf16": False}
    content["phases"] = [{"method": "sft", "lora": content["phases"][0]["lora"], "sft": settings}]
    original = training.compare

    def judged(*compared: Any) -> None:
        trainer = compared[-1]
        original(*compared)  # as TRL made it, it passes
        whole = trainer.train_dataset.map(lambda row: {"labels": row["input_ids"]})
        for rows in (whole, whole.remove_columns("labels")):
            monkeypatch.setattr(trainer, "train_dataset", rows)
            with pytest.raises(InputError, match=r"sft.completion_only_loss asked True, got False"):
                original(*compared)
        raise Ready

    monkeypatch.setattr(training, "compare", judged)
    with pytest.raises(Ready):
        train(Recipe.model_validate(content), tmp_path)
