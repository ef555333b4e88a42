"""Rollouts by vLLM: what is refused, and what vLLM is asked for. What it does is in tests/on_vllm/rollouts.py."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from rollout_recipes import NF4, grpo_phase, recipe

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.recipe import Recipe

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
    from grpo_cot.checks.backends.rollouts import check_rollouts

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
    from grpo_cot.vllm.arguments import rollout_arguments

    assert rollout_arguments(given(), grpo_phase(given()), "phases.1") == arguments


@pytest.mark.slow
def test_without_vllm_the_phase_says_so() -> None:
    from grpo_cot.training.rollouts import rollout_trainer

    with pytest.raises(InputError, match=r"phases.1.grpo.use_vllm is true: it takes vLLM, which is not installed here"):
        rollout_trainer(recipe("merge"), grpo_phase(recipe("merge")), {})
