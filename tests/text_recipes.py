"""A base with a scorer of a few thousand weights, rows of texts, and recipes that train a reward model on them."""

import itertools
from pathlib import Path
from typing import Any

from support import ROOT

from grpo_cot.bases.making import make_base
from grpo_cot.bases.sources import Base
from grpo_cot.common.errors import validated
from grpo_cot.common.files import read_yaml, write_json
from grpo_cot.recipes.recipe import Recipe

SOURCE = ROOT / "sources/bases/tiny-feedback.yaml"
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
# Two classes that single words tell apart.
SUBJECTS = ("The lecturer", "The reading list", "The exam", "The homework", "The weekly discussion", "The course")
WORDS = {"negative": ("boring", "repetitive", "misleading"), "positive": ("lively", "helpful", "clear")}
TRAINING = {
    "max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "lr_scheduler_type": "constant",
    "optim": "adamw_torch", "logging_steps": 10, "save_strategy": "no",
}  # fmt: skip
SFT = {
    "max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "max_length": 64, "loss_type": "nll",
    "bf16": False, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
}  # fmt: skip


def source() -> dict[str, Any]:
    """The source file of tiny-feedback with fewer layers, whose tokenizers lie in this checkout."""
    content: dict[str, Any] = read_yaml(SOURCE)
    for part in (content, content["scorer"]):
        part["config"] |= SMALL
        part["tokenizer"] = {"path": str(ROOT / part["tokenizer"]["path"])}
    content["config"]["num_key_value_heads"] = 2
    content["scorer"]["config"] |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}  # by chance
    return content


def write_base(folder: Path) -> Path:
    """The base's folder, as the step base leaves it."""
    folder.mkdir(parents=True)
    make_base(validated(Base, source(), SOURCE), folder, SOURCE, folder)
    write_json(folder / "base.json", {"name": folder.name, "id": None, "revision": None})
    return folder


def text_rows(subjects: tuple[str, ...] = SUBJECTS) -> list[dict[str, Any]]:
    """Rows as the step prepare leaves them: each subject with each word."""
    rows = []
    for subject, (label, words) in itertools.product(subjects, WORDS.items()):
        for word in words:
            text = f"{subject} is {word}."
            rows.append({
                "id": f"{subject} {word}", "messages": [{"role": "user", "content": subject}], "gold": None,
                "locale": "en", "solution": None, "tokens": 9, "text": text, "label": label, "wanted": "negative",
            })  # fmt: skip
    return rows


def recipe(rewards: dict[str, float] | None = None, phases: tuple[str, ...] = ("sft",), **training: Any) -> Recipe:
    """A reward model, and a step of each of the phases."""
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    grpo = content["phases"][0]["grpo"] | {
        "max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8,
        "save_strategy": "no",
    }  # fmt: skip
    ppo = {
        "max_steps": 1, "batch_size": 4, "ppo_epochs": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-4,
        "max_completion_length": 8, "temperature": 1.0, "init_kl_coef": 0.0, "adap_kl_ctrl": False, "bf16": False,
        "save_strategy": "no", "logging_steps": 1, "report_to": "none",
    }  # fmt: skip
    sections = {
        "sft": {"method": "sft", "lora": None, "sft": SFT},
        "grpo": {"method": "grpo", "lora": None, "rollouts": None, "grpo": grpo},
        "ppo": {"method": "ppo", "lora": None, "ppo": ppo},
    }
    content["prompt"] |= {"system": None, "max_prompt_length": 32}
    content["model"]["threads"] = 1
    return Recipe.model_validate(
        content
        | {
            "rewards": {"reward_model": 1.0} if rewards is None else rewards, "quantization": None,
            "reward_model": {"max_length": 16, "training": TRAINING | training},
            "phases": [sections[name] for name in phases],
        }
    )  # fmt: skip
