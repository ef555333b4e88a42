"""The wall time that draws for pass@k add to a run's evaluation, so that a recipe can choose.

    python bench/evidence.py [RUN] [ROUNDS]

RUN is a finished one of params.yaml (tiny-grpo), with its prompts and its training. Each round asks base and
trained model as the step `evaluate` does, once greedily alone and once with 8 draws to each of 100 problems. The
libraries' imports and the grading are not in it.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from grpo_cot.evaluation.asking import answer_sets
from grpo_cot.params import load_params
from grpo_cot.recipes.phases import SamplesSection
from grpo_cot.recipes.recipe import Recipe, load_recipe

ROOT = Path(__file__).parent.parent
PROBLEMS, COUNT = 100, 8


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe without draws and with them, by what it asks for."""
    section = recipe.evaluate
    cap = section.sampling["max_new_tokens"]
    draws = SamplesSection(
        problems=PROBLEMS, count=COUNT, sampling={"do_sample": True, "temperature": 1.0, "max_new_tokens": cap}
    )
    return {
        name: recipe.model_copy(update={"evaluate": section.model_copy(update={"samples": samples})})
        for name, samples in (
            ("greedy answers and likelihoods of the worked solutions", None),
            (f"with {COUNT} draws to each of {PROBLEMS} problems", draws),
        )
    }


def main() -> None:
    """Alternate both, and print the median of each."""
    name, rounds = sys.argv[1] if len(sys.argv) > 1 else "tiny-grpo", int(sys.argv[2]) if len(sys.argv) > 2 else 3
    run = load_params(ROOT / "params.yaml", ROOT).runs[name]
    where = ROOT / f"experiments/{run.recipe}.yaml"
    prompts, model = ROOT / f"runs/{name}/prompts", ROOT / f"runs/{name}/train/model.json"
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for kind, recipe in variants(load_recipe(where)).items():
            start = time.perf_counter()
            with (
                tempfile.TemporaryDirectory() as folder,
                answer_sets(recipe, where, prompts, model, Path(folder) / "answers") as rows,
            ):
                count = len(rows)
            seconds.setdefault(kind, []).append(time.perf_counter() - start)
    print(f"{count} problems, base and trained, median of {rounds}:")
    for kind, times in seconds.items():
        print(f"  {kind}: {statistics.median(times):.1f} s")


if __name__ == "__main__":
    main()
