"""Rollouts by vLLM: what is refused, what vLLM is asked for, and that a broken sync stops the training.

vLLM needs a GPU. In its place stands a second real copy of the base (tests/vllm_standin.py). All else is real: TRL's
code for vLLM included.
"""

import itertools
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import ROOT
from vllm_standin import BASE, NF4, Client, Engine, LoRARequest, SamplingParams

from grpo_cot.files import InputError, read_yaml
from grpo_cot.recipes import GrpoPhase, Recipe

VLLM = {"use_vllm": True, "vllm_mode": "colocate", "vllm_enable_sleep_mode": True, "vllm_max_model_length": 300}


def recipe(sync: str = "adapter", changes: dict[str, Any] | None = None, **grpo: Any) -> Recipe:
    """Three steps of GRPO on a reward that always varies; `changes` are of the recipe's sections."""
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    [phase] = content["phases"]
    settings = {"max_steps": 3, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12}
    settings |= {"temperature": 0.7, "learning_rate": 1e-2, "save_strategy": "no"}
    phase["grpo"] = phase["grpo"] | settings | VLLM | grpo
    phase["rollouts"] = {"sync": sync, "log_probability_gap": 1e-4}
    content |= {"quantization": None, "rewards": {"random": 1.0}}
    content["model"] = content["model"] | {"dtype": "bfloat16"}
    for section, values in (changes or {}).items():
        if section == "lora":
            phase["lora"] = values and phase["lora"] | values
        else:
            content[section] = content[section] | values if isinstance(content[section], dict) else values
    return Recipe.model_validate(content)


def grpo_phase(given: Recipe) -> GrpoPhase:
    phase = given.phases[-1]
    assert isinstance(phase, GrpoPhase)
    return phase


FSDP = {"num_processes": 2, "distributed_type": "FSDP"}
ZERO3 = {"num_processes": 2, "distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (partial(recipe, top_p=0.9), "phases.1.grpo.top_p is 0.9, with which the log-probabilities"),
        (partial(recipe, top_k=50), "grpo.top_k is 50"),
        (partial(recipe, min_p=0.1), "grpo.min_p is 0.1"),
        (partial(recipe, repetition_penalty=1.1), "grpo.repetition_penalty is 1.1"),
        (partial(recipe, generation_kwargs={"seed": 1}), "grpo.generation_kwargs is {'seed': 1}"),
        (
            partial(recipe, vllm_importance_sampling_correction=False),
            "grpo.vllm_importance_sampling_correction is False",
        ),
        (partial(recipe, vllm_max_model_length=267), "vllm_max_model_length is 267, but .* are 268 tokens"),
        (partial(recipe, "merge", {"lora": {"lora_dropout": 0.1}}), "phases.1.lora.lora_dropout is 0.1"),
        (partial(recipe, "merge", {"accelerate": FSDP}), "phases.1.rollouts is given, but accelerate shards the base"),
        (partial(recipe, changes={"accelerate": ZERO3}), "accelerate shards the base"),
        (
            partial(recipe, changes={"lora": {"use_dora": True}}),
            "phases.1.lora.use_dora is True, which vLLM cannot apply",
        ),
        (partial(recipe, changes={"lora": {"bias": "all"}}), "lora.bias is 'all'"),
        (partial(recipe, changes={"lora": {"modules_to_save": ["lm_head"]}}), "lora.modules_to_save"),
        (partial(recipe, changes={"lora": {"alpha_pattern": {"q_proj": 1}}}), "lora.alpha_pattern"),
        (partial(recipe, changes={"lora": {"init_lora_weights": "pissa"}}), "lora.init_lora_weights is 'pissa'"),
        (partial(recipe, changes={"lora": {"r": 513}}), "the adapter's rank is 513 and vLLM's largest 512"),
        (partial(recipe, changes={"model": {"dtype": "float32"}}), "applies adapters in 16 bits only"),
        (
            partial(recipe, changes={"quantization": NF4 | {"bnb_4bit_quant_type": "fp4"}}),
            "bnb_4bit_quant_type: nf4 only",
        ),
        (partial(recipe, changes={"quantization": {"load_in_8bit": True}}), "load_in_4bit: true only"),
    ],
)
def test_what_vllm_would_sample_otherwise_is_refused(given: Callable[[], Recipe], said: str) -> None:
    from grpo_cot.rollouts import check_rollouts

    with pytest.raises(InputError, match=said):
        check_rollouts(given(), grpo_phase(given()), "phases.1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (
            partial(recipe, changes={"quantization": NF4, "lora": {"bias": "none", "use_rslora": True}}),
            {"dtype": "bfloat16", "quantization": "bitsandbytes", "enable_lora": True, "max_lora_rank": 8},
        ),
        (partial(recipe, changes={"lora": {"r": 64, "lora_dropout": 0.1}}, disable_dropout=True),
         {"dtype": "bfloat16", "enable_lora": True, "max_lora_rank": 64}),
        (partial(recipe, "merge", {"lora": {"use_dora": True}, "model": {"dtype": "float32"}}), {"dtype": "float32"}),
        (partial(recipe, "merge", {"lora": None, "accelerate": ZERO3}), {"dtype": "bfloat16"}),
        (partial(recipe, "shared", {"backend": "unsloth", "quantization": NF4}), {}),
    ],
)  # fmt: skip
def test_the_base_is_loaded_as_training_loads_it(given: Callable[[], Recipe], arguments: dict[str, Any]) -> None:
    from grpo_cot.rollouts import check_rollouts

    assert check_rollouts(given(), grpo_phase(given()), "phases.1") == arguments


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins in vLLM's place."""
    from trl.generation import vllm_generation

    for name, value in {
        "LLM": Engine, "SamplingParams": SamplingParams, "VLLMClient": Client, "is_vllm_available": lambda: True,
    }.items():  # fmt: skip
        monkeypatch.setattr(vllm_generation, name, value, raising=False)
    modules = {name: ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request")}
    vars(modules["vllm.lora.request"]).update(LoRARequest=LoRARequest)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("grpo_cot.rollouts.check_available", lambda *_: None)


def trainer(folder: Path, sync: str, quantization: dict[str, Any] | None = None, **grpo: Any) -> Any:
    """A trainer in float32, which the recipe's checks would refuse for an adapter: only so can the gap be near 0."""
    from transformers import set_seed

    from grpo_cot.models import load_base
    from grpo_cot.problems import problems
    from grpo_cot.tokenization import load_tokenizer
    from grpo_cot.trainers import make_trainer, trainer_configuration

    given = recipe(sync, {"model": {"dtype": "float32"}, "quantization": quantization}, **grpo)
    phase = grpo_phase(given)
    rows = [
        {"id": str(number), "messages": [{"role": "user", "content": problem.question}], "gold": "1", "locale": "en"}
        for number, problem in enumerate(itertools.islice(problems("train", 3), 16))
    ]
    model = load_base(BASE, given.model, given.quantization)
    set_seed(7)
    configuration = trainer_configuration(given, phase, folder, 7)
    made = make_trainer(given, phase, configuration, model, load_tokenizer(BASE), rows, [], None)
    for parameter in made.model.parameters():
        if parameter.requires_grad:  # as grpo_cot.training does it
            parameter.data = parameter.data.float()
    return made


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM applies adapters in 16 bits only; the stand-in can do it in 32."""
    from grpo_cot.rollouts import check_rollouts

    def checked(given: Recipe, phase: GrpoPhase, where: str) -> dict[str, Any]:
        if phase.rollouts is None or phase.rollouts.sync == "merge":
            return check_rollouts(given, phase, where)
        quantized = {"quantization": "bitsandbytes"} if given.quantization else {}
        return {"dtype": "float32", "enable_lora": True, "max_lora_rank": 8, **quantized}

    monkeypatch.setattr("grpo_cot.rollouts.check_rollouts", checked)


def curve(trained: Any, name: str) -> list[float]:
    return [entry[name] for entry in trained.state.log_history if "reward" in entry and name in entry]


@pytest.mark.slow
def test_without_vllm_the_phase_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"phases.1.grpo.use_vllm is true: it takes vLLM, which is not installed here"):
        trainer(tmp_path, "merge")


@pytest.mark.slow
@pytest.mark.usefixtures("vllm", "in_float32")
def test_every_step_samples_with_the_adapter_of_that_step(tmp_path: Path) -> None:
    trained = trainer(tmp_path, "adapter")
    environment = dict(os.environ)
    trained.train()
    gaps = curve(trained, "sync/log_probability_gap")
    assert len(gaps) == 3
    assert max(gaps) < 1e-5
    assert curve(trained, "sync/adapter_delivered") == curve(trained, "sync/base_unchanged") == [1.0] * 3
    engine = Engine.latest
    assert engine.events == [
        "sleep 1", "forget prefixes", "sample with sync-1", "sleep 1",
        "remove 1", "forget prefixes", "sample with sync-2", "sleep 1",
        "remove 2", "forget prefixes", "sample with sync-3", "sleep 1",
    ]  # fmt: skip
    asked = engine.arguments
    assert asked["logprobs_mode"] == "processed_logprobs"
    assert (asked["model"], asked["dtype"], asked["seed"], asked["max_model_len"]) == (str(BASE), "float32", 7, 300)
    assert (asked["enable_lora"], asked["max_lora_rank"], asked["enable_sleep_mode"]) == (True, 8, True)
    assert engine.launched == {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    assert dict(os.environ) == environment
    assert not environment.keys() & {"RANK", "LOCAL_RANK", "WORLD_SIZE"}


@pytest.mark.slow
@pytest.mark.usefixtures("vllm", "in_float32")
@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_merging_leaves_the_base_as_it_is_bit_for_bit(tmp_path: Path, mode: str) -> None:
    import torch

    from grpo_cot.attestation import checksum, frozen_tensors

    trained = trainer(tmp_path, "merge", vllm_mode=mode, vllm_enable_sleep_mode=False)
    before = checksum(frozen_tensors(trained.model))
    trained.train()
    gaps = curve(trained, "sync/log_probability_gap")
    assert len(gaps) == 3
    assert max(gaps) < 1e-5
    assert curve(trained, "sync/base_unchanged") == [1.0] * 3
    assert not curve(trained, "sync/adapter_delivered")
    trained.vllm_generation.sync_weights()
    assert checksum(frozen_tensors(trained.model)) == before
    merged = Engine.latest.model.state_dict()
    trained.model.merge_adapter()  # TRL's way
    for name, tensor in trained.model.get_base_model().state_dict().items():
        if "lora_" not in name:
            assert torch.equal(tensor, merged[name.replace(".base_layer", "")])
    trained.model.unmerge_adapter()
    assert checksum(frozen_tensors(trained.model)) != before


def skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.rollouts import AdapterGeneration

    sync = AdapterGeneration.sync_weights

    def once(self: Any) -> None:
        if self.llm.adapter is None:
            sync(self)

    monkeypatch.setattr(AdapterGeneration, "sync_weights", once)


def flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    def spoilt(tensors: Any, path: Path) -> None:
        save_file(tensors, path)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr("grpo_cot.rollouts.save_file", spoilt)


def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(self: Any, *positional: Any, **settings: Any) -> Any:
        return self.llm.generate(*positional, **settings)

    monkeypatch.setattr("grpo_cot.rollouts.AdapterEngine.generate", plain)


def cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "remove_lora", lambda self, lora_id: None)
    load = Engine.load_adapter
    monkeypatch.setattr(Engine, "load_adapter", lambda self, request: load(self, request._replace(lora_int_id=1)))


def on_another_base(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    load = Engine.load_adapter

    def moved(self: Engine, request: LoRARequest) -> None:
        load(self, request)
        with torch.no_grad():
            self.model.get_input_embeddings().weight.mul_(1.01)

    monkeypatch.setattr(Engine, "load_adapter", moved)


@pytest.mark.slow
@pytest.mark.usefixtures("vllm", "in_float32")
@pytest.mark.parametrize(
    ("breaking", "said"),
    [
        (skipped, "step 2: vLLM sampled with the adapter of an earlier step"),
        (flipped, r"step 1: the adapter that vLLM was given is not the trainer's: 1 of 56 tensors differ"),
        (unasked, "step 1: vLLM was asked without the adapter"),
        (cached, "step 2: vLLM's and the trainer's log-probabilities of the sampled tokens differ by"),
        (on_another_base, "step 1: vLLM's and the trainer's log-probabilities .* at most 0.0001 was expected"),
    ],
)
def test_a_broken_sync_stops_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaking: Callable[[pytest.MonkeyPatch], None], said: str
) -> None:
    breaking(monkeypatch)
    trained = trainer(tmp_path, "adapter", vllm_enable_sleep_mode=False)
    with pytest.raises(InputError, match=said):
        trained.train()


@pytest.mark.slow
@pytest.mark.usefixtures("vllm", "in_float32")
def test_merging_on_a_quantized_base_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's sync: an adapter merged into 4 bits and taken out again leaves another base."""
    from grpo_cot.rollouts import AdapterGeneration

    trained = trainer(tmp_path, "adapter", NF4 | {"bnb_4bit_compute_dtype": "float32"}, vllm_enable_sleep_mode=False)
    sync = AdapterGeneration.sync_weights

    def merging(self: Any) -> None:
        sync(self)
        if trained.state.global_step == 2:
            self.model.merge_adapter()
            self.model.unmerge_adapter()

    monkeypatch.setattr(AdapterGeneration, "sync_weights", merging)
    with pytest.raises(InputError, match="step 3: the base's weights are not those that the training began with"):
        trained.train()
    assert curve(trained, "sync/base_unchanged") == [1.0] * 2
