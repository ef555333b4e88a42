"""One GRPO step through the pipeline's training against a bare TRL script with the same configuration, alternating.

    python bench/grpo_step.py [ROUNDS] [--recipe NAME --base FOLDER] [--steps N]

The last phase of the recipe is timed, started from the base. Both run in this process on the same prompts with the
same seed, so they sample completions of the same lengths. A step's time is from the start of one step of the optimiser
to the start of the next: all of its batches, sampling, logging, callbacks and saving included.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PrinterCallback,
    ProgressCallback,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from trl import GRPOConfig, GRPOTrainer

from grpo_cot.common.files import Row
from grpo_cot.models.attention import attention
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.problems.generators import problems
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import Recipe, load_recipe
from grpo_cot.rewards.registry import Measure, reward_functions
from grpo_cot.training.phases import train_phases

ROOT = Path(__file__).parent.parent
TINY = ROOT / "assets/tiny/model"
starts: list[float] = []
original_step = GRPOTrainer.training_step


def timed_step(self: Any, *arguments: Any, **keywords: Any) -> Any:
    """The trainer's own step, noting when it starts."""
    starts.append(time.perf_counter())
    return original_step(self, *arguments, **keywords)


def bare(recipe: Recipe, base: Path, prompts: list[Row], folder: Path) -> None:
    """What a user writes with TRL alone."""
    (phase,) = recipe.phases
    measure = Measure(AutoTokenizer.from_pretrained(base), recipe.phases[0].settings["max_completion_length"])
    functions, weights = reward_functions(recipe.rewards, measure=measure)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            base,
            dtype=getattr(torch, recipe.model.dtype),
            device_map={"": "cpu"},
            quantization_config=BitsAndBytesConfig(**recipe.quantization) if recipe.quantization else None,
        ),
        reward_funcs=list(functions),
        args=GRPOConfig(output_dir=str(folder), seed=1, reward_weights=weights, use_cpu=True, **phase.settings),
        train_dataset=Dataset.from_list(
            [{"prompt": row["messages"], "gold": row["gold"], "locale": row["locale"]} for row in prompts]
        ),
        processing_class=AutoTokenizer.from_pretrained(base, padding_side="left"),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **phase.lora or {}),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train()


def main() -> None:
    """Alternate both, and print the median step of each and the ratio of each pair."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    parser.add_argument("--recipe", default="tiny-grpo")
    parser.add_argument("--base", type=Path, default=TINY)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    rounds, base, recipe = arguments.rounds, arguments.base, load_recipe(ROOT / f"experiments/{arguments.recipe}.yaml")
    lora = recipe.phases[0].lora
    recipe.phases = [recipe.phases[-1].model_copy(update={"lora": lora})]
    recipe.phases[0].settings["max_steps"] = arguments.steps
    rows = [
        {"id": str(number), "question": problem.question, "gold": str(problem.value), "locale": "en", "solution": None}
        for number, problem in enumerate(itertools.islice(problems("train", 7), 500))
    ]
    prompts, _ = map_rows(rows, load_tokenizer(base), recipe.prompt)
    GRPOTrainer.training_step = timed_step
    torch.set_num_threads(recipe.model.threads)
    medians: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(-1, rounds):  # the first pair warms up and does not count
        for name in ("ours", "bare") if number % 2 == 0 else ("bare", "ours"):
            starts.clear()
            # Ours is in Transformers' place for the whole process.
            AttentionInterface.register("sdpa", attention if name == "ours" else sdpa_attention_forward)
            with tempfile.TemporaryDirectory() as folder:
                if name == "ours":
                    train_phases(recipe, prompts, [], base, 1, Path(folder), {})
                else:
                    bare(recipe, base, prompts, Path(folder))
            batches = recipe.phases[0].settings["gradient_accumulation_steps"]
            steps = [after - before for before, after in itertools.pairwise(starts[::batches])][1:]
            if number >= 0:
                medians[name].append(statistics.median(steps))
    ratios = [ours / other for ours, other in zip(medians["ours"], medians["bare"], strict=True)]
    batch = batches * recipe.phases[0].settings["per_device_train_batch_size"]
    print(f"{arguments.recipe}: {rounds} rounds of {arguments.steps} steps, {batch} completions a step")
    for name, values in medians.items():
        print(
            f"{name:5}  median step {statistics.median(values):.3f} s, rounds: {' '.join(f'{v:.3f}' for v in values)}"
        )
    print(f"ours / bare: median {statistics.median(ratios):.3f}  (rounds: {', '.join(f'{r:.3f}' for r in ratios)})")


if __name__ == "__main__":
    main()
