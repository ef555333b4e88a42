"""Rollouts by vLLM itself: it samples from what is trained, and a broken sync stops the training.

On the embedded model, in float32 and in 4 bits. Through TRL's code for vLLM in the trainer's process.
"""

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rollout_recipes import BASE, NF4, grpo_phase, recipe
from support import training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.recipes.recipe import Recipe

pytestmark = pytest.mark.slow
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every engine that TRL starts, with what it was asked for and what was done with it; ended after the test."""
    import torch
    import vllm
    from trl.generation import vllm_generation
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    started: list[Any] = []

    class Engine(vllm.LLM):
        def __init__(self, **arguments: Any) -> None:
            self.arguments = arguments
            self.launched = {name: os.environ.get(name) for name in LAUNCHED}
            self.events: list[str] = []
            # Sleeping is refused on a CPU; asked to sleep all the same, vLLM forgets its cache, and keeps the weights.
            super().__init__(**arguments | {"enable_sleep_mode": False, "kv_cache_memory_bytes": 2**26})
            remove = self.llm_engine.remove_lora
            self.llm_engine.remove_lora = lambda number: self.events.append(f"remove {number}") or remove(number)
            started.append(self)

        def sleep(self, level: int = 1, **settings: Any) -> None:
            self.events.append(f"sleep {level}")
            super().sleep(level, **settings)

        def wake_up(self, tags: list[str] | None = None) -> None:
            self.events.append(f"wake {' '.join(tags or [])}")
            super().wake_up(tags)

        def reset_prefix_cache(self, *positional: Any, **settings: Any) -> bool:
            self.events.append("forget prefixes")
            return super().reset_prefix_cache(*positional, **settings)

        def generate(self, *positional: Any, lora_request: Any = None, **settings: Any) -> Any:
            self.events.append(f"sample with {lora_request.lora_name if lora_request else 'the base'}")
            return super().generate(*positional, lora_request=lora_request, **settings)

        def model(self) -> torch.nn.Module:
            return self.llm_engine.model_executor.driver_worker.model_runner.model

    def as_loaded(self: Any, layer: torch.nn.Module) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]

    # On a CPU vLLM packs weights for good after loading; on a GPU they stay as they were, and can be pushed again.
    for method in (UnquantizedLinearMethod, UnquantizedEmbeddingMethod):
        monkeypatch.setattr(method, "process_weights_after_loading", as_loaded)
    monkeypatch.setattr(vllm_generation, "LLM", Engine)
    yield started
    started.clear()
    gc.collect()


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU vLLM applies adapters in 16 bits only, which recipes are held to; on a CPU in 32 as well."""
    from grpo_cot.vllm.arguments import rollout_arguments

    def checked(given: Recipe, phase: GrpoPhase, where: str) -> dict[str, Any]:
        if phase.rollouts is None or phase.rollouts.sync == "merge":
            return rollout_arguments(given, phase, where)
        return {"dtype": "float32", "enable_lora": True, "max_lora_rank": 8}

    monkeypatch.setattr("grpo_cot.training.rollouts.rollout_arguments", checked)


def trainer(folder: Path, given: Recipe) -> Any:
    from transformers import set_seed

    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.training.methods.registry import METHODS, trainer_configuration
    from grpo_cot.training.methods.setup import Setup

    phase = grpo_phase(given)
    model = load_base(BASE, given.model, given.quantization)
    set_seed(7)
    configuration = trainer_configuration(given, phase, folder, 7)
    setup = Setup(given, phase, load_tokenizer(BASE), training_rows())
    made = METHODS[phase.method].trainer(setup, configuration, model, METHODS[phase.method].dataset(setup))
    for parameter in made.model.parameters():
        if parameter.requires_grad:  # as grpo_cot.training.phases does it
            parameter.data = parameter.data.float()
    return made


def exact(folder: Path, sync: str, **grpo: Any) -> Any:
    """A trainer in float32: only so can the gap be near 0."""
    return trainer(folder, recipe(sync, {"model": {"dtype": "float32"}}, **grpo))


def curve(trained: Any, name: str) -> list[float]:
    return [entry[name] for entry in trained.state.log_history if "reward" in entry and name in entry]


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


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch, engines: list[Any]) -> None:
    """In place of TRL's client an engine in this process: a server takes its weights over NCCL, that is, on GPUs."""
    from trl.generation import vllm_generation

    class Client:
        def __init__(self, **_: Any) -> None:
            self.engine = vllm_generation.LLM(
                model=str(BASE), dtype="float32", max_model_len=300, seed=7, logprobs_mode="processed_logprobs",
            )  # fmt: skip

        def init_communicator(self, device: Any) -> None: ...

        def update_named_params(self, metadata: list[Any], parameters: Iterator[tuple[str, Any]]) -> None:
            pairs = list(parameters)
            for (name, kind, shape), (sent, value) in zip(metadata, pairs, strict=True):
                assert (name, kind, shape) == (sent, str(value.dtype).removeprefix("torch."), list(value.shape))
            self.engine.model().load_weights(pairs)

        def reset_prefix_cache(self) -> None:
            self.engine.reset_prefix_cache()

        def generate(self, prompts: list[list[int]], features: None, n: int, **sampling: Any) -> dict[str, Any]:
            names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "logprobs")
            parameters = vllm_generation.SamplingParams(n=n, **{name: sampling[name] for name in names})
            asked = [{"prompt_token_ids": prompt} for prompt in prompts]
            outputs = self.engine.generate(asked, parameters, use_tqdm=False)
            values, _ = vllm_generation.extract_logprobs(outputs)
            ids = [list(part.token_ids) for output in outputs for part in output.outputs]
            return {"prompt_ids": prompts, "completion_ids": ids, "logprobs": values}

    monkeypatch.setattr(vllm_generation, "VLLMClient", Client)


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
