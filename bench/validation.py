"""The share of a training's wall time that validation takes: GRPO with it and without it, alternating in one process.

    python bench/validation.py [RECIPE] [ROUNDS]

RECIPE is one of experiments/ whose first phase is GRPO on the embedded base (tiny-grpo). Both train 20 steps; the one
with validation asks 100 problems every 10 steps, and before the first. The ratio of the trainings' own times does not
hold the libraries' imports and the model's loading, which are the same in both.
"""

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from trl import GRPOTrainer

from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.problems.generators import problems
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.phases import GrpoPhase, ValidationSection
from grpo_cot.recipes.recipe import Recipe, load_recipe
from grpo_cot.training.phases import train_phases

ROOT = Path(__file__).parent.parent
BASE = ROOT / "assets/tiny/model"
STEPS, EVERY, PROBLEMS = 20, 10, 100
seconds: list[float] = []
own_train = GRPOTrainer.train


def timed_train(self: Any, *arguments: Any, **settings: Any) -> Any:
    """The trainer's own training, noting how long it takes."""
    start = time.perf_counter()
    result = own_train(self, *arguments, **settings)
    seconds.append(time.perf_counter() - start)
    return result


def variant(recipe: Recipe, *, validates: bool) -> Recipe:
    """The recipe for a few steps, with validation or without."""
    phase = recipe.phases[0]
    assert isinstance(phase, GrpoPhase)
    settings = {**phase.grpo, "max_steps": STEPS, "save_strategy": "no"}
    if validates:
        settings |= {
            "eval_strategy": "steps", "eval_steps": EVERY, "eval_on_start": True, "per_device_eval_batch_size": PROBLEMS
        }  # fmt: skip
    section = ValidationSection(problems=PROBLEMS, patience=None) if validates else None
    phases = [phase.model_copy(update={"grpo": settings, "validation": section})]
    return recipe.model_copy(update={"phases": phases})


def main() -> None:
    """Alternate both, and print each pair and the median share."""
    name, rounds = sys.argv[1] if len(sys.argv) > 1 else "tiny-grpo", int(sys.argv[2]) if len(sys.argv) > 2 else 3
    recipe = load_recipe(ROOT / f"experiments/{name}.yaml")
    rows = [
        {
            "id": str(number), "question": problem.question, "gold": str(problem.value), "locale": "en",
            "solution": "\n".join(problem.steps),
        }
        for number, problem in enumerate(itertools.islice(problems("train", 7), 300))
    ]  # fmt: skip
    prompts = map_rows(rows, load_tokenizer(BASE), recipe.prompt)[0]
    shares = []
    for number in range(rounds):
        times = {}
        for validates in (False, True):
            with tempfile.TemporaryDirectory() as folder, patch.object(GRPOTrainer, "train", timed_train):
                wanted = variant(recipe, validates=validates)
                train_phases(wanted, prompts[:200], prompts[200:], BASE, number, Path(folder), {})
            times[validates] = seconds.pop()
        shares.append(1 - times[False] / times[True])
        print(f"without {times[False]:.1f} s, with {times[True]:.1f} s: {shares[-1]:.1%}", flush=True)
    print(f"validation takes {statistics.median(shares):.1%} of the training, median of {rounds}")


if __name__ == "__main__":
    main()
