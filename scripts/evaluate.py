"""Step evaluate: have both models answer the evaluation sets. Nothing is compared here.

An interrupted run goes on where it stopped, and leaves the same file.
"""

from argparse import Namespace
from pathlib import Path

from grpo_cot.common.files import new_directory, write_jsonl
from grpo_cot.common.step import run
from grpo_cot.evaluation.asking import answer_sets
from grpo_cot.library.settings import check_evaluate
from grpo_cot.recipes.recipe import load_recipe


def main(args: Namespace) -> str:
    """completions.jsonl: id, set, and for each model its completion and how likely it found the gold solution, or of
    texts how likely both found it and what the reward model takes it for."""
    recipe = load_recipe(args.recipe, "prompt", "evaluate")
    section = recipe.evaluate
    check_evaluate(section, args.recipe)
    answered = answer_sets(recipe, args.recipe, args.prompts, args.model, args.scratch)
    with answered as rows, new_directory(args.output) as output:
        write_jsonl(output / "completions.jsonl", rows)
    sampled = sum(row["base"]["samples"] is not None for row in rows)
    more = f", {sampled} of them {section.samples.count} times more" if section.samples else ""
    other = f"the model after {rows[0]['before']}" if rows[0]["before"] else "base"
    what = "texts continued" if "label_probabilities" in rows[0] else "problems answered"
    return f"{len(rows)} {what} by {other} and trained{more}"


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, model=Path, scratch=Path, output=Path)
