"""The longest batch before the first step, and what is said when memory runs out."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, training_rows

from grpo_cot.files import InputError, read_yaml
from grpo_cot.recipes.recipe import Recipe

BASE = ROOT / "assets/tiny/model"
MT5 = ROOT / "assets/tiny-mt5/model"
COMMON = {
    "max_steps": 2, "learning_rate": 1e-3, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no",
    "logging_steps": 1, "report_to": "none", "optim": "adamw_torch",
}  # fmt: skip
GRPO = COMMON | {
    "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12, "temperature": 1.0,
    "beta": 0.1, "loss_type": "dapo", "scale_rewards": "group", "gradient_accumulation_steps": 1,
}  # fmt: skip
SFT = COMMON | {"per_device_train_batch_size": 4, "max_length": 256, "loss_type": "nll"}

DPO = COMMON | {"per_device_train_batch_size": 4, "max_length": 256, "loss_type": ["sigmoid"], "beta": 0.1}
SEQ2SEQ = COMMON | {"per_device_train_batch_size": 4}
SAMPLES = {"problems": 8, "batch_size": 8, "count": 2, "sampling": {"do_sample": True, "max_new_tokens": 8}}


def recipe(method: str, *, quantized: bool = True, **settings: Any) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    content["rewards"] = {"random": 1.0}
    content["prompt"]["max_prompt_length"] = 200
    phase = {"method": method, "lora": content["phases"][0]["lora"] if quantized else None}
    defaults = {"grpo": GRPO, "sft": SFT, "dpo": DPO, "seq2seq": SEQ2SEQ}[method]
    phase |= {method: defaults | settings}
    phase |= {"grpo": {"rollouts": None}, "dpo": {"samples": SAMPLES}}.get(method, {})
    return Recipe.model_validate(
        content | {"phases": [phase], "quantization": content["quantization"] if quantized else None}
    )


def prepared(wanted: Recipe, folder: Path) -> Any:
    """A trainer as `grpo_cot.training.phases` makes it."""
    from transformers import set_seed

    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.training.trainers import make_trainer, trainer_configuration

    (phase,) = wanted.phases
    base = MT5 if phase.method == "seq2seq" else BASE
    model = load_base(base, wanted.model, wanted.quantization)
    set_seed(1)
    drawn = [{**row, "right": [row["solution"]], "wrong": ["0"]} for row in training_rows()]
    samples = drawn if phase.method == "dpo" else None
    return make_trainer(
        wanted,
        phase,
        trainer_configuration(wanted, phase, folder, 1),
        model,
        load_tokenizer(base),
        training_rows(),
        [],
        samples,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("grpo", {"gradient_checkpointing": True}),
        ("grpo", {"gradient_accumulation_steps": 2, "quantized": False}),
        ("sft", {"loss_type": "chunked_nll"}),
        ("sft", {"quantized": False}),
        ("dpo", {}),
        ("seq2seq", {"quantized": False}),
    ],
)
def test_the_longest_batch_is_run_and_training_is_to_the_byte_as_without(
    tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    import numpy
    import torch

    from grpo_cot.training.probe import LongestBatch

    wanted = recipe(method, **settings)
    seen: list[tuple[int, ...]] = []
    gradients: list[bool] = []

    def state(trainer: Any) -> list[Any]:
        return [
            *(parameter.detach().clone() for parameter in trainer.model.parameters()),
            *(parameter.grad for parameter in trainer.model.parameters()),
            torch.get_rng_state(), random.getstate(), numpy.random.get_state(), trainer.optimizer.state_dict(),
            trainer.model.training, {mode: dict(values) for mode, values in getattr(trainer, "_metrics", {}).items()},
        ]  # fmt: skip

    class Checked(LongestBatch):  # type: ignore[misc]
        def on_train_begin(self, args: Any, *others: Any, **keywords: Any) -> None:
            before = state(probed)
            reader = probed.model.get_encoder() if method == "seq2seq" else probed.model
            embedding = reader.get_input_embeddings()
            hook = embedding.register_forward_hook(lambda module, given, made: seen.append(tuple(given[0].shape)))
            trained = next(parameter for parameter in probed.model.parameters() if parameter.requires_grad)
            marked = trained.register_hook(lambda gradient: gradients.append(True))
            super().on_train_begin(args, *others, **keywords)
            hook.remove()
            marked.remove()
            for old, new in zip(before, state(probed), strict=True):
                assert torch.equal(old, new) if isinstance(old, torch.Tensor) else str(old) == str(new)

    plain = prepared(wanted, tmp_path / "plain")
    plain.train()
    probed = prepared(wanted, tmp_path / "probed")
    probed.add_callback(Checked(probed, wanted.phases[0], wanted))
    probed.train()
    if method == "grpo":
        drawn = 8 * wanted.phases[0].settings["gradient_accumulation_steps"]
        # The prompts and the last token of sampling, and every backward pass.
        assert seen[:2] == [(drawn, 200), (drawn, 1)]
        assert set(seen[2:]) == {(8, 200 + 12)}
        assert len(gradients) == drawn // 8
    else:
        columns = ("prompt_ids", "chosen_ids") if method == "dpo" else ("input_ids",)
        longest = max(sum(len(row[name]) for name in columns) for row in probed.train_dataset)
        assert (8 if method == "dpo" else 4, longest) in seen
        assert len(gradients) == 1
    for name, parameter in plain.model.named_parameters():
        assert torch.equal(parameter, probed.model.get_parameter(name)), name


@pytest.mark.slow
def test_memory_runs_out_before_the_first_step(tmp_path: Path) -> None:
    """The error is torch's own, raised where it is raised on a GPU: within the model, on the longest batch alone."""
    import torch

    from grpo_cot.training.probe import LongestBatch

    wanted = recipe("grpo")
    trainer = prepared(wanted, tmp_path)
    trainer.add_callback(LongestBatch(trainer, wanted.phases[0], wanted))

    def full(module: Any, given: Any) -> None:
        if given[0].shape == (8, 200 + 12):
            raise torch.OutOfMemoryError

    trainer.model.get_input_embeddings().register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    assert trainer.state.global_step == 0
    assert trainer.state.log_history == []


@pytest.mark.slow
def test_memory_that_runs_out_in_training_says_which_settings_to_change(tmp_path: Path) -> None:
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook

    from grpo_cot.training.phases import train_phases

    def full(module: Any, given: Any) -> None:
        if isinstance(module, torch.nn.Embedding) and torch.is_grad_enabled():
            raise torch.OutOfMemoryError

    hook = register_module_forward_pre_hook(full)
    try:
        with pytest.raises(InputError) as refusal:
            train_phases(recipe("grpo"), training_rows(), [], BASE, 1, tmp_path, {})
    finally:
        hook.remove()
    assert "per_device_train_batch_size to 4 (it is 8) and gradient_accumulation_steps to 2" in str(refusal.value)


def needed(wanted: Recipe) -> int:
    from grpo_cot.memory.estimate import Blueprint, estimate
    from grpo_cot.memory.plan import architecture
    from grpo_cot.training.workload import workload

    blueprint = Blueprint(*architecture(ROOT, "tiny"), wanted.model, wanted.quantization, wanted.phases[0].lora)
    memory = estimate(blueprint, workload(wanted, 0, on_gpu=True))
    return memory.total - memory.kept["CUDA itself"]


def followed(wanted: Recipe, said: str) -> Recipe:
    """The recipe with what the sentence says to set."""
    content = wanted.model_dump()
    section = content["phases"][0][wanted.phases[0].section]
    for name, value, old in re.findall(r"(\w+) to (\w+) \(it is (\w+)\)", said):
        assert str(section[name]).lower() == old
        section[name] = {"true": True}.get(value) or int(value)
    return Recipe.model_validate(content)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_what_is_advised_is_a_valid_recipe_of_the_same_step_that_is_estimated_to_fit(share: float) -> None:
    from grpo_cot.training.probe import advice

    wanted = recipe("grpo", per_device_train_batch_size=16)
    available = int(share * needed(wanted))
    said = advice(wanted, 1, BASE, available)
    changed = followed(wanted, said)
    assert needed(changed) <= 0.9 * available
    old, new = (one.phases[0].settings for one in (wanted, changed))
    step = "per_device_train_batch_size", "gradient_accumulation_steps"
    assert old[step[0]] * old[step[1]] == new[step[0]] * new[step[1]]
    assert old["max_completion_length"] == new["max_completion_length"]
    assert re.search(r"estimated to need \d+\.\d GiB then$", said)


@pytest.mark.slow
def test_an_estimate_that_was_too_low_is_raised_by_as_much() -> None:
    from grpo_cot.training.probe import advice

    wanted = recipe("grpo", per_device_train_batch_size=16)
    available = 3 * needed(wanted)  # and yet memory ran out
    changed = followed(wanted, advice(wanted, 1, BASE, available))
    assert 3 * needed(changed) <= 0.9 * available


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({},
         "set phases.1.grpo.per_device_train_batch_size to 4 (it is 8) and gradient_accumulation_steps to 2 (it is 1)"),
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4},
         "set phases.1.grpo.per_device_train_batch_size to 2 (it is 4), gradient_accumulation_steps to 4 (it is 2) and "
         "steps_per_generation to 8 (it is 4)"),
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
         "set phases.1.grpo.gradient_checkpointing to true (it is false)"),
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "gradient_checkpointing": True},
         "set phases.1.grpo.max_completion_length to 6 (it is 12)"),
    ],
)  # fmt: skip
def test_where_the_memory_is_not_known_the_mildest_change_is_advised(settings: dict[str, Any], says: str) -> None:
    from grpo_cot.training.probe import advice

    wanted = recipe("grpo", **settings)
    assert advice(wanted, 1, BASE, None) == f"phases.1 (grpo) needs more GPU memory than there is: {says}"
    assert followed(wanted, says)


@pytest.mark.slow
def test_what_cannot_fit_says_so() -> None:
    from grpo_cot.training.probe import advice

    said = advice(recipe("sft", quantized=False), 1, BASE, 2**20)
    assert "max_length to 128 (it is 256)" in said
    assert said.endswith("use a larger GPU, or a smaller base")
