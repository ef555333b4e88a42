"""Do prompts with signal teach faster where seven in ten prompts carry none?

    python bench/filtering.py FOLDER MODEL SEED...

MODEL is the merged model of a run that learnt the basic problems: runs/correctness-3407/merged of suites/placebo.yaml,
or the same run with eight steps (max_steps: 8 in experiments/tiny-correctness.yaml), which has learnt some of them. It
goes on with 1,000 problems of generated-mixed, seven in ten of which are harder. Each seed trains twice:
tiny-all-prompts on all of them, and tiny-signal on a band of pass rates. Both are asked the same 500 validation
problems every ten steps. The pass rates are kept in FOLDER, so that a second seed, or a second run, pays nothing for
them.
"""

import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from trl import GRPOTrainer

from grpo_cot.common.files import Row
from grpo_cot.models.loading import load_base
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.problems.generators import GENERATORS
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.recipes.recipe import Recipe, load_recipe
from grpo_cot.training.phases import package_versions, train_phases
from grpo_cot.training.signal.pass_rates import prompts_with_signal
from grpo_cot.training.validation.answers import Validation

ROOT = Path(__file__).resolve().parent.parent
PROMPTS, VALIDATION = 1_000, 500
evaluations: list[tuple[float, int, float]] = []  # seconds since the training began, step, strict accuracy
own_train, own_evaluate = GRPOTrainer.train, Validation.evaluate
began = 0.0


def timed_train(self: Any, *arguments: Any, **settings: Any) -> Any:
    """The trainer's own training, from whose start on evaluations are timed."""
    global began
    began = time.perf_counter()
    return own_train(self, *arguments, **settings)


def timed_evaluate(self: Validation, *arguments: Any, **settings: Any) -> dict[str, float]:
    """The pipeline's own evaluation, noting its accuracy and when it was known."""
    figures = own_evaluate(self, *arguments, **settings)
    evaluations.append(
        (time.perf_counter() - began, int(self._trainer.state.global_step), figures["eval_strict_accuracy"])
    )
    return figures


def silent_share(recipe: Recipe, prompts: list[Row], base: Path) -> float:
    """The share of the prompts that the base answers always or never, of a draw that is made now or was before."""
    phase = recipe.phases[0]
    assert isinstance(phase, GrpoPhase)
    _, rates = prompts_with_signal(
        recipe, phase, prompts, base, package_versions(recipe), load_tokenizer(base),
        lambda: load_base(base, recipe.model, recipe.quantization),
    )  # fmt: skip
    assert rates is not None
    return sum(rate in (0, 1) for rate in rates.values()) / len(rates)


def train(
    recipe: Recipe, prompts: list[Row], validation: list[Row], base: Path, seed: int
) -> list[tuple[float, int, float]]:
    """One training's evaluations."""
    evaluations.clear()
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(GRPOTrainer, "train", timed_train),
        patch.object(Validation, "evaluate", timed_evaluate),
    ):
        train_phases(recipe, prompts, validation, base, seed, Path(folder), {})
    return list(evaluations)


def main() -> None:
    """Print the set, both courses of each seed, and when the filtered training is as good as the other ends."""
    folder, base, seeds = Path(sys.argv[1]), Path(sys.argv[2]).resolve(), [int(seed) for seed in sys.argv[3:]]
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    every, filtered = (load_recipe(ROOT / f"experiments/tiny-{name}.yaml") for name in ("all-prompts", "signal"))
    rows = [
        {
            "id": f"train-{number}", "question": problem.question, "gold": str(problem.value), "locale": "en",
            "solution": "\n".join(problem.steps),
        }
        for number, problem in enumerate(itertools.islice(GENERATORS["mixed"]("train", 7), PROMPTS + VALIDATION))
    ]  # fmt: skip
    prompts = map_rows(rows, load_tokenizer(base), every.prompt)[0]
    start = time.perf_counter()
    silent = silent_share(filtered, prompts[:PROMPTS], base)
    print(
        f"{silent:.0%} of {PROMPTS} prompts carry no signal; the draw took {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    for seed in seeds:
        whole, band = (train(recipe, prompts[:PROMPTS], prompts[PROMPTS:], base, seed) for recipe in (every, filtered))
        for name, course in (("all prompts", whole), ("with signal", band)):
            told = ", ".join(f"{accuracy:.1%} at step {step}, {seconds:.0f} s" for seconds, step, accuracy in course)
            print(f"seed {seed}, {name}: {told}", flush=True)
        seconds, _, goal = whole[-1]
        first = next((after for after, _, accuracy in band if accuracy >= goal), None)
        reached = f"after {first:.0f} s, {first / seconds:.0%} of its time" if first is not None else "never"
        print(f"seed {seed}: with signal is as good {reached}", flush=True)


if __name__ == "__main__":
    main()
