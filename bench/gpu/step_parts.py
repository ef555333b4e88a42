"""What bench/gpu/grpo_steps.py measures; apart from it, because Unsloth must be imported before what this imports."""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset
from peft import LoraConfig
from shape import ROOT, longest_prompts
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import GRPOConfig, GRPOTrainer

from grpo_cot.common.errors import validated
from grpo_cot.memory.estimate import Blueprint, estimate
from grpo_cot.models.loading import DEVICE
from grpo_cot.recipes.recipe import Recipe, load_recipe
from grpo_cot.rewards.registry import Measure, reward_functions
from grpo_cot.training import phases as training
from grpo_cot.training.methods import grpo
from grpo_cot.training.methods.registry import workload

WARM = 2
SYNC = {"unsloth": "shared", "vllm": "adapter"}


def variant_recipe(variant: str, completion: int, steps: int, attention: str) -> Recipe:
    """The reference recipe, with what the variant changes and the shape that is measured."""
    recipe = load_recipe(ROOT / "experiments/grpo-cot-3b.yaml").model_dump()
    recipe["backend"] = "unsloth" if variant == "unsloth" else "transformers"
    recipe["model"]["attn_implementation"] = attention
    phase = recipe["phases"][0]
    settings = phase["grpo"]
    for name in [name for name in settings if "vllm" in name]:
        if variant not in SYNC:
            del settings[name]
    phase["rollouts"] = {"sync": SYNC[variant], "log_probability_gap": 1.0} if variant in SYNC else None
    settings |= {"max_steps": WARM + steps, "max_completion_length": completion, "save_strategy": "no"}
    settings.pop("save_steps", None)
    if variant in SYNC:
        settings["use_vllm"] = True
    if variant == "vllm":
        settings["vllm_max_model_length"] = recipe["prompt"]["max_prompt_length"] + completion
    return validated(Recipe, recipe, Path(f"bench, {variant}"))


class Clock:
    """Seconds by part of a trainer's steps; the device has finished whenever it is read."""

    def __init__(self) -> None:
        """Start with nothing measured."""
        self.steps: list[dict[str, float]] = []
        self.completion_tokens: list[int] = []

    def watch(self, trainer: Any) -> Any:
        """Have the trainer's own methods timed: a whole step, its rollouts, its scoring without gradients."""
        trainer.training_step = self.timed("step", trainer.training_step)
        trainer._generate_and_score_completions = self.timed("attested", trainer._generate_and_score_completions)
        trainer._generate_single_turn = self.timed("rollout", trainer._generate_single_turn)
        score = trainer._get_per_token_logps_and_entropies
        timed = self.timed("scoring", score)
        trainer._get_per_token_logps_and_entropies = lambda *given, **named: (
            score(*given, **named) if torch.is_grad_enabled() else timed(*given, **named)
        )
        return trainer

    def timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method that adds its seconds to a part of the step that it runs in."""

        def call(*given: Any, **named: Any) -> Any:
            if part == "step":
                self.steps.append(defaultdict(float))
            before = self._now()
            result = method(*given, **named)
            self.steps[-1][part] += self._now() - before
            if part == "rollout":
                self.completion_tokens.append(sum(len(ids) for ids in result[0]))
            return result

        return call

    @staticmethod
    def _now() -> float:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def report(self, batch_tokens: int) -> dict[str, float | None]:
        """Medians over the steps that count; `batch_tokens` is what a training pass reads at most."""
        counted = self.steps[WARM:]
        for step in counted:
            step["attestation"] = step["attested"] - step["unattested"] if step["unattested"] else 0.0
            step["training"] = step["step"] - step["rollout"] - step["scoring"] - step["attestation"]
        parts = ("step", "rollout", "scoring", "attestation", "training")
        middle = {part: statistics.median(step[part] for step in counted) for part in parts}
        return {
            **{f"{part}_seconds": seconds for part, seconds in middle.items()},
            "rollout_tokens_per_second": statistics.median(self.completion_tokens[WARM:]) / middle["rollout"],
            "training_tokens_per_second": batch_tokens / middle["training"],
            "scoring_tokens_per_second": batch_tokens / middle["scoring"] if middle["scoring"] else None,
        }


def bare(recipe: Recipe, prompts: list[dict[str, Any]], base: Path, folder: Path, clock: Clock) -> None:
    """What a user writes with TRL alone."""
    measure = Measure(AutoTokenizer.from_pretrained(base), recipe.phases[0].settings["max_completion_length"])
    functions, weights = reward_functions(recipe.rewards, measure=measure)
    columns = ("gold", "locale")
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.bfloat16, device_map={"": DEVICE}, attn_implementation=recipe.model.attn_implementation,
            quantization_config=BitsAndBytesConfig(**recipe.quantization or {}),
        ),
        reward_funcs=list(functions),
        args=GRPOConfig(
            output_dir=str(folder), seed=1, reward_weights=weights, use_cpu=DEVICE == "cpu", **recipe.phases[0].settings
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": row["messages"], **{name: row[name] for name in columns}} for row in prompts]
        ),
        processing_class=AutoTokenizer.from_pretrained(base, padding_side="left"),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **recipe.phases[0].lora or {}),
    )  # fmt: skip
    clock.watch(trainer).train()


def measure(recipe: Recipe, variant: str, base: Path) -> dict[str, Any]:
    """Train the recipe's steps, and say how long each part took."""
    settings = recipe.phases[0].settings
    groups = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    prompts = longest_prompts(base, recipe.prompt, groups // settings["num_generations"] * settings["max_steps"])
    clock = Clock()
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        if variant == "bare":
            bare(recipe, prompts, base, Path(folder), clock)
        else:
            # The attestation encloses the trainer's own method, which is timed apart from it.
            make_trainer = grpo.trainer
            own = clock.timed("unattested", GRPOTrainer._generate_and_score_completions)
            with (
                patch.object(GRPOTrainer, "_generate_and_score_completions", own),
                patch.object(grpo, "trainer", lambda *given: clock.watch(make_trainer(*given))),
            ):
                training.train_phases(recipe, prompts, [], base, 1, Path(folder), {})
    length = max(row["tokens"] for row in prompts) + settings["max_completion_length"]
    peak = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else None
    return {
        **clock.report(groups * length), "peak_memory_gib": peak, **planned(recipe, base), "sequence_tokens": length,
        "completions": groups, "steps": len(clock.steps) - WARM,
    }  # fmt: skip


def planned(recipe: Recipe, base: Path) -> dict[str, Any]:
    """What `make plan` estimates for the same phase, less what torch's allocator does not count (CUDA itself)."""
    blueprint = Blueprint(
        AutoConfig.from_pretrained(base), False, recipe.model, recipe.quantization, recipe.phases[0].lora
    )
    memory = estimate(blueprint, workload(recipe, 0, on_gpu=True))
    return {
        "planned_memory_gib": (memory.total - memory.kept["CUDA itself"]) / 2**30,
        "parameters": blueprint.parameters, "weight_bytes": memory.kept["weights"],
    }  # fmt: skip
