"""Rollouts by vLLM itself: it samples from what is trained, and a broken sync stops the training.

On the embedded model, in float32 and in 4 bits. Through TRL's code for vLLM in the trainer's process.
"""

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rollout_recipes import BASE, NF4, recipe
from support import training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.recipe import Recipe
from on_vllm.rollout_trainers import LAUNCHED, curve, exact, trainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


@pytest.mark.usefixtures("in_float32")
def test_every_step_samples_with_the_adapter_of_that_step(tmp_path: Path, engines: list[Any]) -> None:
    launched = {name: os.environ.get(name) for name in LAUNCHED}
    trained = exact(tmp_path, "adapter")
    trained.train()
    gaps = curve(trained, "sync/log_probability_gap")
    assert len(gaps) == 3
    assert max(gaps) < 1e-5
    assert curve(trained, "sync/adapter_delivered") == curve(trained, "sync/base_unchanged") == [1.0] * 3
    [engine] = engines
    assert engine.events == [
        "sleep 1", "wake weights", "forget prefixes", "wake kv_cache", "sample with sync-1", "sleep 1",
        "wake weights", "remove 1", "forget prefixes", "wake kv_cache", "sample with sync-2", "sleep 1",
        "wake weights", "remove 2", "forget prefixes", "wake kv_cache", "sample with sync-3", "sleep 1",
    ]  # fmt: skip
    asked = engine.arguments
    assert asked["logprobs_mode"] == "processed_logprobs"
    assert (asked["model"], asked["dtype"], asked["seed"], asked["max_model_len"]) == (str(BASE), "float32", 7, 300)
    assert (asked["enable_lora"], asked["max_lora_rank"], asked["enable_sleep_mode"]) == (True, 8, True)
    assert engine.launched == {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"} != launched
    assert {name: os.environ.get(name) for name in LAUNCHED} == launched


def test_a_base_in_4_bits_is_sampled_as_it_is_trained(tmp_path: Path, engines: list[Any]) -> None:
    trained = trainer(tmp_path, recipe(changes={"quantization": NF4}, gap=0.05))
    trained.train()
    assert engines[0].arguments["quantization"] == "bitsandbytes"
    gaps = curve(trained, "sync/log_probability_gap")
    assert len(gaps) == 3
    assert max(gaps) < 0.02  # bfloat16 rounds in two ways: on a base in 16 bits they are as far apart


def test_the_next_phase_finds_no_engine_of_the_last(
    tmp_path: Path, engines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM, when it starts, hides all that is there from garbage collection: the trainer, and the GPU's memory."""
    from trl.generation import vllm_generation

    from grpo_cot.training import phases as training

    start = vllm_generation.LLM
    known: list[weakref.ref[Any]] = []
    alive = []

    def started(**arguments: Any) -> Any:
        alive.append(sum(reference() is not None for reference in known))
        engine = start(**arguments)
        engines.clear()
        known.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr(vllm_generation, "LLM", started)
    content = recipe(gap=0.05, max_steps=1, vllm_enable_sleep_mode=False).model_dump()
    content["phases"] *= 2
    content["phases"][1] = content["phases"][1] | {"lora": None}
    training.train_phases(Recipe.model_validate(content), training_rows(), [], BASE, 7, tmp_path, {})
    assert alive == [0, 0]


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_merging_leaves_the_base_as_it_is_bit_for_bit(tmp_path: Path, engines: list[Any], mode: str) -> None:
    import torch

    from grpo_cot.training.attestation import checksum, frozen_tensors

    trained = exact(tmp_path, "merge", vllm_mode=mode, vllm_enable_sleep_mode=False)
    before = checksum(frozen_tensors(trained.model))
    trained.train()
    gaps = curve(trained, "sync/log_probability_gap")
    assert len(gaps) == 3
    assert max(gaps) < 1e-5
    assert curve(trained, "sync/base_unchanged") == [1.0] * 3
    assert not curve(trained, "sync/adapter_delivered")
    trained.vllm_generation.sync_weights()
    assert checksum(frozen_tensors(trained.model)) == before
    merged = engines[0].model().state_dict()
    trained.model.merge_adapter()  # TRL's way
    output = trained.model.get_base_model().model.layers[0].self_attn.o_proj.base_layer.weight
    assert torch.equal(output, merged["model.layers.0.self_attn.o_proj.weight"])
    trained.model.unmerge_adapter()
    assert checksum(frozen_tensors(trained.model)) != before


def skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.training.rollouts import AdapterGeneration

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

    monkeypatch.setattr("grpo_cot.training.rollouts.save_file", spoilt)


def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(self: Any, *positional: Any, **settings: Any) -> Any:
        return self.llm.generate(*positional, **settings)

    monkeypatch.setattr("grpo_cot.training.rollouts.AdapterEngine.generate", plain)


def cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request of every step under the number of the first, and nobody tells vLLM to forget that."""
    from vllm.lora.request import LoRARequest

    from grpo_cot.training.rollouts import AdapterGeneration

    deliver = AdapterGeneration._deliver

    def numbered(self: Any) -> Any:
        self.llm.llm_engine.remove_lora = lambda number: None
        request = deliver(self)
        return LoRARequest(request.lora_name, 1, request.lora_path)

    monkeypatch.setattr(AdapterGeneration, "_deliver", numbered)


def on_another_base(monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.training.rollouts import Generation

    start = Generation._init_vllm

    def moved(self: Any) -> None:
        start(self)
        self.llm.model().get_parameter("model.norm.weight").data.mul_(1.01)

    monkeypatch.setattr(Generation, "_init_vllm", moved)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize(
    ("breaking", "said"),
    [
        (skipped, "step 2: vLLM sampled with the adapter of an earlier step"),
        (flipped, r"step 1: the adapter that vLLM was given is not the trainer's: 1 of 56 tensors differ"),
        (unasked, "step 1: vLLM was asked without the adapter"),
        (cached, "step 2: vLLM sampled with the adapter of an earlier step"),
        (on_another_base, "step 1: vLLM's and the trainer's log-probabilities .* at most 0.0001 was expected"),
    ],
)
def test_a_broken_sync_stops_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaking: Callable[[pytest.MonkeyPatch], None], said: str
) -> None:
    breaking(monkeypatch)
    trained = exact(tmp_path, "adapter", vllm_enable_sleep_mode=False)
    with pytest.raises(InputError, match=said):
        trained.train()


def test_a_base_in_16_bits_in_place_of_one_in_4_stops_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.generation import vllm_generation

    start = vllm_generation.LLM

    def unquantized(**arguments: Any) -> Any:
        del arguments["quantization"]
        return start(**arguments)

    monkeypatch.setattr(vllm_generation, "LLM", unquantized)
    trained = trainer(tmp_path, recipe(changes={"quantization": NF4}, gap=0.02, vllm_enable_sleep_mode=False))
    with pytest.raises(InputError, match=r"step 1: vLLM's and the trainer's log-probabilities .* at most 0.02 was"):
        trained.train()


def test_merging_on_a_quantized_base_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's sync: an adapter merged into 4 bits and taken out again leaves another base."""
    from grpo_cot.training.rollouts import AdapterGeneration

    sync = AdapterGeneration.sync_weights

    def merging(self: Any) -> None:
        sync(self)
        if trained.state.global_step == 2:
            self.model.merge_adapter()
            self.model.unmerge_adapter()

    monkeypatch.setattr(AdapterGeneration, "sync_weights", merging)
    trained = trainer(tmp_path, recipe(changes={"quantization": NF4}, gap=0.05, vllm_enable_sleep_mode=False))
    with pytest.raises(InputError, match="step 3: the base's weights are not those that the training began with"):
        trained.train()
    assert curve(trained, "sync/base_unchanged") == [1.0] * 2
