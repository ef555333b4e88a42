"""Step check: ask the base and the trained model, as saved on disk, the same questions in the same way."""

from argparse import Namespace
from pathlib import Path

from grpo_cot.common.files import write_json
from grpo_cot.common.step import run
from grpo_cot.library.settings import check_sampling
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.transcripts import transcribe


def main(args: Namespace) -> str:
    """check.json: the transcripts, greedy and sampled, and whether any greedy answer changed."""
    recipe = load_recipe(args.recipe, "prompt", "check")
    sampling = recipe.check.sampling
    check_sampling(sampling, f"{args.recipe}: check.sampling")
    transcripts = transcribe(args.model, recipe.prompt, recipe.check, args.seed)
    changed = sum(transcript["greedy"]["base"] != transcript["greedy"]["trained"] for transcript in transcripts)
    write_json(
        args.output,
        {"sampling": sampling, "seed": args.seed, "greedy_answers_changed": changed, "transcripts": transcripts},
    )
    if not changed:
        return f"WARNING: every greedy answer to {len(transcripts)} questions is unchanged: the training moved nothing"
    return f"{changed} of {len(transcripts)} greedy answers changed"


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, model=Path, seed=int, output=Path)
