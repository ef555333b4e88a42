"""Recipes that Unsloth can train, for the tests of what it is asked and of what is refused."""

from typing import Any

from support import ROOT

from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.recipe import Recipe

SFT = {"max_steps": 2, "learning_rate": 1e-3, "max_length": 300, "loss_type": "nll"}


def recipe(**changes: Any) -> Recipe:
    """A recipe that Unsloth can train, with sections or (by their dotted path) single settings changed."""
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    content["backend"] = "unsloth"
    content["model"]["dtype"] = content["quantization"]["bnb_4bit_compute_dtype"] = "bfloat16"
    content["phases"][0]["grpo"] |= {"loss_type": "grpo", "bf16": True}
    for path, value in changes.items():
        *folders, name = path.split(".")
        place = content
        for folder in folders:
            place = place[int(folder) if folder.isdigit() else folder]
        place[name] = value
    return Recipe.model_validate(content)


def later(phase: dict[str, Any]) -> list[dict[str, Any]]:
    """The recipe's phase, with another one after it."""
    first = recipe().phases[0].model_dump()
    return [first, {"lora": None, **phase}]


def shared(**settings: Any) -> dict[str, Any]:
    """What makes the recipe sample with Unsloth's vLLM."""
    vllm = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.4} | settings
    return {
        "phases.0.rollouts": {"sync": "shared", "log_probability_gap": 0.1},
        "phases.0.grpo": {name: value for name, value in (GRPO | vllm).items() if value is not None},
    }


GRPO = recipe().phases[0].settings
