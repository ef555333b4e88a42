"""Tests on vLLM itself, built for CPUs: tests/test_vllm.py runs them where `make` has put it (.venv/vllm)."""

import gc
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

collect_ignore_glob = [] if find_spec("vllm") else ["*"]
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
    monkeypatch.setattr("grpo_cot.rollouts.check_available", lambda *_: None)  # which wants a GPU
    yield started
    started.clear()
    gc.collect()
