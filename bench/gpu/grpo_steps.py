"""One GRPO step of the reference recipe's shape: seconds, tokens a second by part, and peak memory.

    python bench/gpu/grpo_steps.py VARIANT --base FOLDER --completion 200 [--steps 8] [--attention sdpa]

VARIANT: `bare` (a TRL script without this project), `transformers`, `unsloth` (sampling through Unsloth's shared vLLM),
`vllm` (the backend transformers, sampling in vLLM with the adapter alone). The last line is a JSON object. All but
`bare` go through `grpo_cot.training.phases`, attested sync and all; the first two steps warm up and do not count.
`planned_memory_gib` is of what the trainer holds: the two with vLLM hold vLLM's share beside it, and the peak, too.
"""

import argparse
import json
from pathlib import Path

from grpo_cot.training import unsloth as unsloth_backend


def main() -> None:
    """Measure one variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=("bare", "transformers", "unsloth", "vllm"))
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--completion", type=int, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--attention", default="sdpa")
    args = parser.parse_args()
    if args.variant == "unsloth":
        unsloth_backend.enable()
    # Only now: Unsloth rewrites libraries that this imports.
    from step_parts import measure, variant_recipe

    recipe = variant_recipe(args.variant, args.completion, args.steps, args.attention)
    print(json.dumps(measure(recipe, args.variant, args.base)))


if __name__ == "__main__":
    main()
