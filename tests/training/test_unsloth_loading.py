"""What Unsloth is asked to load, and that no sequence is longer than what it, the model or its vLLM can take."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import ROOT
from unsloth_recipes import GRPO, SFT, recipe, shared

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.recipe import Recipe


class Loaded(Exception):
    """Unsloth was asked for the model; its arguments."""


def ask_unsloth(monkeypatch: pytest.MonkeyPatch, wanted: Recipe, tokens: int | None = None) -> dict[str, Any]:
    """What Unsloth is asked to load for the first phase; its vLLM, if any, has room for so many tokens."""
    from grpo_cot.training import unsloth

    asked: dict[str, Any] = {}

    class FastLanguageModel:
        @staticmethod
        def from_pretrained(**arguments: Any) -> tuple[Any, None]:
            asked.update(arguments)
            model = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=[2, 5]))
            if tokens is not None:
                limit = SimpleNamespace(model_config=SimpleNamespace(max_model_len=tokens))
                model.vllm_engine = SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=limit))
            return model, None

        @staticmethod
        def get_peft_model(model: Any, **arguments: Any) -> Any:
            raise Loaded

    from transformers import GenerationConfig

    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastLanguageModel=FastLanguageModel))
    with pytest.raises(Loaded):
        unsloth.load(wanted, wanted.phases[0], ROOT / "assets/tiny/model", None, 1)
    return asked


@pytest.mark.slow
def test_unsloth_is_given_room_for_the_longest_sequence_and_no_more_than_the_model_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It cuts what is longer without a word, and stretches a model's positions beyond what it was trained on."""
    config = json.loads((ROOT / "assets/tiny/model/config.json").read_text())
    positions = config["max_position_embeddings"]
    fits = recipe(**{"phases.0.grpo.max_completion_length": positions - 256})  # max_prompt_length is 256
    assert ask_unsloth(monkeypatch, fits)["max_seq_length"] == positions
    longer = recipe(**{"phases.0.grpo.max_completion_length": positions - 255})
    with pytest.raises(InputError, match=f"grpo: the longest sequence is {positions + 1} tokens, but .* {positions} "):
        ask_unsloth(monkeypatch, longer)
    sft = {"method": "sft", "lora": recipe().phases[0].lora, "sft": SFT | {"bf16": True, "max_length": 77}}
    assert ask_unsloth(monkeypatch, recipe(phases=[sft]))["max_seq_length"] == 77


@pytest.mark.slow
def test_unsloths_vllm_must_have_room_for_the_longest_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipe(**shared())
    length = 256 + GRPO["max_completion_length"]
    asked = ask_unsloth(monkeypatch, wanted, tokens=length)
    assert asked["fast_inference"] and asked["gpu_memory_utilization"] == 0.4 and asked["max_lora_rank"] == 4
    with pytest.raises(InputError, match=f"room for {length - 1} tokens of the {length} that a sequence may have"):
        ask_unsloth(monkeypatch, wanted, tokens=length - 1)


def test_unsloth_is_asked_for_what_the_recipe_says() -> None:
    from grpo_cot.training.unsloth import adapter_arguments, base_arguments

    plain = recipe(**{"phases.0.grpo.gradient_checkpointing": True})
    other = recipe(**{"phases.0.grpo.gradient_checkpointing": False, "quantization": None})
    for wanted, checkpointing, quantized in ((plain, "unsloth", True), (other, False, False)):
        asked = base_arguments(wanted, wanted.phases[0], Path("base"), seed=3)
        adapter = adapter_arguments(wanted, wanted.phases[0], seed=3)
        assert (asked["load_in_4bit"], asked["fast_inference"], asked["local_files_only"]) == (quantized, False, True)
        assert asked["use_gradient_checkpointing"] == adapter["use_gradient_checkpointing"] == checkpointing
        assert asked["random_state"] == adapter["random_state"] == 3
        assert (adapter["r"], adapter["lora_alpha"]) == (4, 8)
