"""One GRPO step of the reference recipe's shape: seconds, tokens a second by part, and peak memory.

    python bench/gpu/grpo_steps.py VARIANT --base FOLDER --completion 200 [--steps 8] [--attention sdpa]

VARIANT: `bare` (a TRL script without this project), `transformers`, `unsloth` (sampling through Unsloth's shared vLLM),
`vllm` (the backend transformers, sampling in vLLM with the adapter alone). The last line is a JSON object. All but
`bare` go through `grpo_cot.training`, attested sync and all; the first two steps warm up and do not count.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from shape import ROOT, longest_prompts

from grpo_cot import training
from grpo_cot.attestation import SyncAttestation
from grpo_cot.models import DEVICE
from grpo_cot.recipes import Recipe, load_recipe
from grpo_cot.trainers import make_trainer
from grpo_cot.validation import validated

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
        parts = ("step", "rollout", "scoring", "attestation")
        middle = {part: statistics.median(step[part] for step in counted) for part in parts}
        middle["training"] = 2 * middle["step"] - sum(middle.values())
        return {
            **{f"{part}_seconds": seconds for part, seconds in middle.items()},
            "rollout_tokens_per_second": statistics.median(self.completion_tokens[WARM:]) / middle["rollout"],
            "training_tokens_per_second": batch_tokens / middle["training"],
            "scoring_tokens_per_second": batch_tokens / middle["scoring"] if middle["scoring"] else None,
        }


def bare(recipe: Recipe, prompts: list[dict[str, Any]], base: Path, folder: Path, clock: Clock) -> None:
    """What a user writes with TRL alone."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import GRPOConfig, GRPOTrainer

    from grpo_cot.rewards import reward_functions

    functions, weights = reward_functions(recipe.rewards)
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
            attested = clock.timed("attestation", SyncAttestation.weights)
            with (
                patch.object(SyncAttestation, "weights", attested),
                patch.object(training, "make_trainer", lambda *given: clock.watch(make_trainer(*given))),
            ):
                training.train_phases(recipe, prompts, [], base, 1, Path(folder), {})
    length = max(row["tokens"] for row in prompts) + settings["max_completion_length"]
    peak = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else None
    return {
        **clock.report(groups * length), "peak_memory_gib": peak, "sequence_tokens": length, "completions": groups,
    }  # fmt: skip


def main() -> None:
    """Measure one variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=("bare", "transformers", "unsloth", "vllm"))
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--completion", type=int, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--attention", default="sdpa")
    args = parser.parse_args()
    recipe = variant_recipe(args.variant, args.completion, args.steps, args.attention)
    print(json.dumps(measure(recipe, args.variant, args.base)))


if __name__ == "__main__":
    main()
