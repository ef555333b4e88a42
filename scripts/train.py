"""Step train: run the recipe's phases, resuming where an interrupted run stopped."""

import os
from argparse import Namespace
from pathlib import Path

from grpo_cot.common.step import run
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.training import unsloth


def main(args: Namespace) -> str:
    """The trained weights with model.json and summary.json, and the curves as DVC plots."""
    recipe = load_recipe(
        args.recipe, "prompt", "rewards", "reward_model", "backend", "model", "quantization", "phases", "accelerate"
    )
    if recipe.backend == "unsloth":
        unsloth.enable()
    # Dashboards (report_to) record times, so they live outside the step's outputs.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f".cache/tensorboard/{args.output.parent.name}")
    os.environ.setdefault("TRACKIO_DIR", ".cache/trackio")
    for elsewhere in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):  # the step has no token, and perhaps no network
        os.environ.pop(elsewhere, None)
    os.environ.setdefault("WANDB_DIR", ".cache")
    os.environ.setdefault("WANDB_PROJECT", "grpo-cot")
    # Only now: Unsloth rewrites libraries that this imports.
    from grpo_cot.training.launch import train

    verdicts = train(
        recipe, args.prompts, args.base, args.seed, scratch=args.scratch, output=args.output, curves=args.curves
    )
    return " ".join(sentence for sentences in verdicts.values() for sentence in sentences)


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, base=Path, seed=int, scratch=Path, curves=Path, output=Path)
