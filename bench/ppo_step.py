"""A rollout of PPO with the steps that learn from it, through the pipeline's training and in TRL 0.11.4, alternating.

    python -m venv PEER && PEER/bin/pip install trl==0.11.4 transformers==4.46.3 "peft<0.14" "numpy<2.4" rich
    python bench/ppo_step.py PEER/bin/python [ROUNDS]

TRL's last trainer for texts needs libraries of its time, so it runs in an environment of its own, with the same torch.
Both train all weights of the embedded GPT-2 in float32 on the same prompts, with as many tokens a completion, and a
reward that counts a digit. A round is six rollouts of 64 completions, of which the first does not count.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from grpo_cot.models.generation import encode
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.problems.generators import problems
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import Recipe, load_recipe
from grpo_cot.rewards import registry
from grpo_cot.training.phases import train_phases
from grpo_cot.training.ppo.trainer import PpoTrainer

ROOT = Path(__file__).parent.parent
BASE = ROOT / "assets/tiny-gpt2/model"
ROLLOUTS, TOKENS = 6, 48
starts: list[float] = []
own_rollout = PpoTrainer._rollout


def timed_rollout(self: Any, *arguments: Any) -> Any:
    """The trainer's own rollout, noting when it starts."""
    starts.append(time.perf_counter())
    return own_rollout(self, *arguments)


def ones(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    """A tenth for each digit 1."""
    return [completion[-1]["content"].count("1") / 10 for completion in completions]


def ours(recipe: Recipe, prompts: list[Any]) -> list[float]:
    """Seconds of each rollout with its steps, but for the last, whose end nobody notes."""
    starts.clear()
    with tempfile.TemporaryDirectory() as folder, patch.object(PpoTrainer, "_rollout", timed_rollout):
        train_phases(recipe, prompts, [], BASE, 1, Path(folder), {})
    return [after - before for before, after in itertools.pairwise(starts)]


def theirs(python: str, recipe: Recipe, prompts: list[Any]) -> list[float]:
    """The same of TRL, in its own process."""
    encoded = encode(load_tokenizer(BASE), [row["messages"] for row in prompts], {})
    given = {
        "base": str(BASE), "prompts": encoded, "settings": recipe.phases[0].settings, "tokens": TOKENS,
        "threads": recipe.model.threads,
    }  # fmt: skip
    ended = subprocess.run(
        [python, ROOT / "bench/trl_ppo.py"], input=json.dumps(given), capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    if ended.returncode:
        sys.exit(ended.stderr[-2000:])
    seconds: list[float] = json.loads(ended.stdout.splitlines()[-1])
    return seconds


def main() -> None:
    """Alternate both, and print the median of each and the ratio of each pair."""
    python, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    recipe = load_recipe(ROOT / "experiments/tiny-ppo.yaml")
    recipe.quantization, recipe.rewards = None, {"ones": 1.0}
    registry.REWARDS["ones"] = ones
    phase = recipe.phases[0].model_copy(update={"lora": None})
    settings = phase.settings
    settings |= {
        "max_steps": ROLLOUTS * settings["ppo_epochs"], "max_completion_length": TOKENS, "optim": "adamw_torch",
        "generation_kwargs": {"min_new_tokens": TOKENS}, "lr_scheduler_type": "constant", "save_strategy": "no",
    }  # fmt: skip
    settings.pop("warmup_steps")
    recipe.phases = [phase]
    rows = [
        {"id": str(number), "question": problem.question, "gold": str(problem.value), "locale": "en", "solution": None}
        for number, problem in enumerate(itertools.islice(problems("train", 7), ROLLOUTS * settings["batch_size"]))
    ]
    prompts, _ = map_rows(rows, load_tokenizer(BASE), recipe.prompt)
    torch.set_num_threads(recipe.model.threads)
    medians: dict[str, list[float]] = {"ours": [], "TRL 0.11.4": []}
    for number in range(rounds):
        for name in ("ours", "TRL 0.11.4") if number % 2 == 0 else ("TRL 0.11.4", "ours"):
            seconds = ours(recipe, prompts) if name == "ours" else theirs(python, recipe, prompts)[:-1]
            medians[name].append(statistics.median(seconds[1:]))
    ratios = [one / other for one, other in zip(*medians.values(), strict=True)]
    for name, values in medians.items():
        print(f"{name:10}  {statistics.median(values):.2f} s a rollout; rounds: {' '.join(f'{v:.2f}' for v in values)}")
    print(f"ours / theirs: median {statistics.median(ratios):.2f} (rounds: {', '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    main()
