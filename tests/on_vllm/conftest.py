"""vLLM's engines as TRL starts them in training, on a CPU."""

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest
from rollout_recipes import BASE

from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.recipes.recipe import Recipe
from on_vllm.rollout_trainers import LAUNCHED


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


@pytest.fixture
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
