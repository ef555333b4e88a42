"""Recipes of GRPO with rollouts by vLLM, for the tests of what they ask and of what vLLM does."""

from typing import Any

from support import ROOT

from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.recipes.recipe import Recipe

BASE = ROOT / "assets/tiny/model"
VLLM = {"use_vllm": True, "vllm_mode": "colocate", "vllm_enable_sleep_mode": True, "vllm_max_model_length": 300}
NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}


def recipe(sync: str = "adapter", changes: dict[str, Any] | None = None, gap: float = 1e-4, **grpo: Any) -> Recipe:
    """Three steps of GRPO on a reward that always varies; `changes` are of the recipe's sections."""
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    [phase] = content["phases"]
    settings = {"max_steps": 3, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12}
    settings |= {"temperature": 0.7, "learning_rate": 1e-2, "save_strategy": "no"}
    phase["grpo"] = phase["grpo"] | settings | VLLM | grpo
    phase["rollouts"] = {"sync": sync, "log_probability_gap": gap}
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
