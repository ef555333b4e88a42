"""The longest batch before the first step, and the sentence when memory runs out."""

import random
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml
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
PPO = COMMON | {
    "per_device_train_batch_size": 4, "batch_size": 8, "ppo_epochs": 1, "max_completion_length": 12,
    "temperature": 1.0, "init_kl_coef": 0.1,
}  # fmt: skip
SEQ2SEQ = COMMON | {"per_device_train_batch_size": 4}
SAMPLES = {"problems": 8, "batch_size": 8, "count": 2, "sampling": {"do_sample": True, "max_new_tokens": 8}}


def recipe(method: str, *, quantized: bool = True, **settings: Any) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    content["rewards"] = {"random": 1.0}
    content["prompt"]["max_prompt_length"] = 200
    phase = {"method": method, "lora": content["phases"][0]["lora"] if quantized else None}
    defaults = {"grpo": GRPO, "sft": SFT, "dpo": DPO, "ppo": PPO, "seq2seq": SEQ2SEQ}[method]
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
    from grpo_cot.training.methods.registry import METHODS, trainer_configuration
    from grpo_cot.training.methods.setup import Setup

    (phase,) = wanted.phases
    base = MT5 if phase.method == "seq2seq" else BASE
    model = load_base(base, wanted.model, wanted.quantization)
    set_seed(1)
    drawn = [{**row, "right": [row["solution"]], "wrong": ["0"]} for row in training_rows()]
    setup = Setup(wanted, phase, load_tokenizer(base), training_rows(), samples=drawn)
    configuration = trainer_configuration(wanted, phase, folder, 1)
    return METHODS[phase.method].trainer(setup, configuration, model, METHODS[phase.method].dataset(setup))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("grpo", {"gradient_checkpointing": True}),
        ("grpo", {"gradient_accumulation_steps": 2, "quantized": False}),
        ("sft", {"loss_type": "chunked_nll"}),
        ("sft", {"quantized": False}),
        ("dpo", {}),
        ("ppo", {"gradient_checkpointing": True}),
        ("ppo", {"quantized": False}),
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
    probed.add_callback(Checked(probed, wanted, wanted.phases[0]))
    probed.train()
    if method == "grpo":
        batches = wanted.phases[0].settings["gradient_accumulation_steps"]
        prompts, row = 2 * batches, (2, 199 + 4 * 12)  # a batch holds two groups of four
        # The prompts and the last token of sampling, the comparison of both ways to score, and every backward pass.
        assert seen[:2] == [(prompts, 200), (8 * batches, 1)]
        assert seen[2:4] == [(8, 200 + 12), row] and set(seen[4:]) == {row}
        assert len(gradients) == batches
    elif method == "ppo":
        # The prompts and the last token of sampling, and the backward pass.
        assert seen == [(8, 200), (8, 1), (4, 200 + 12)]
        assert len(gradients) == 1
    else:
        columns = ("prompt_ids", "chosen_ids") if method == "dpo" else ("input_ids",)
        longest = max(sum(len(row[name]) for name in columns) for row in probed.train_dataset)
        assert (8 if method == "dpo" else 4, longest) in seen
        assert len(gradients) == 1
    for name, parameter in plain.model.named_parameters():
        assert torch.equal(parameter, probed.model.get_parameter(name)), name


@pytest.mark.slow
def test_the_probe_is_no_check_that_a_library_may_note_as_passed(tmp_path: Path) -> None:
    """Unsloth notes on the model up to which length it has compared packed rows with single ones."""
    import torch

    from grpo_cot.training.probe import probe

    wanted = recipe("grpo")
    trainer = prepared(wanted, tmp_path)
    trainer.create_optimizer_and_scheduler(2)
    trainer.model_wrapped = trainer.model
    model, table = trainer.model, next(module for module in trainer.model.modules() if "inv_freq" in module._buffers)
    model._unsloth_verified = {"before"}
    frequencies, seen = table.inv_freq, []
    content = frequencies.clone()

    def noting(module: Any, given: Any) -> None:
        seen.append(given[0])
        model._unsloth_seq_packing_grad_verified_T = given[0].numel()
        model._unsloth_verified.add(tuple(given[0].shape))
        table.max_seq_len_cached = given[0].shape[1]
        table.register_buffer("inv_freq", table.inv_freq * 2, persistent=False)

    longest = table.max_seq_len_cached
    hook = model.get_input_embeddings().register_forward_pre_hook(noting)
    probe(trainer, wanted, wanted.phases[0])
    hook.remove()
    batch = seen[-1]
    special = set(trainer.processing_class.all_special_ids)
    assert set(batch.flatten().tolist()) & special == {trainer.processing_class.pad_token_id}
    assert (batch == trainer.processing_class.pad_token_id).sum() == 4  # of one group's prompt
    assert len(set(map(tuple, batch.tolist()))) == len(batch) and len(batch.unique()) > 100
    assert not hasattr(model, "_unsloth_seq_packing_grad_verified_T") and model._unsloth_verified == {"before"}
    assert table.inv_freq is frequencies and torch.equal(frequencies, content)
    assert table.max_seq_len_cached == longest


@pytest.mark.slow
def test_memory_runs_out_before_the_first_step(tmp_path: Path) -> None:
    """The error is torch's own, raised where it is raised on a GPU: within the model, on the longest batch alone."""
    import torch

    from grpo_cot.training.probe import LongestBatch

    wanted = recipe("grpo")
    trainer = prepared(wanted, tmp_path)
    trainer.add_callback(LongestBatch(trainer, wanted, wanted.phases[0]))

    def full(module: Any, given: Any) -> None:
        if given[0].shape == (8, 200 + 12):
            raise torch.OutOfMemoryError

    trainer.model.get_input_embeddings().register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    assert trainer.state.global_step == 0
    assert trainer.state.log_history == []


@pytest.mark.slow
def test_memory_that_runs_out_in_training_says_where_to_look(tmp_path: Path) -> None:
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
    said = str(refusal.value)
    assert said.startswith("phases.1 (grpo) needs more memory than there is: `make plan EXPERIMENT=")
    assert "a smaller grpo.per_device_train_batch_size with more gradient_accumulation_steps" in said
