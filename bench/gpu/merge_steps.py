"""The pipeline's merge of a random adapter into a random base, on both bases.

    python bench/gpu/merge_steps.py --base FOLDER [--kinds dequantized original]

The last line is a JSON object: for each base the step's seconds, what its record measured (seconds of the merging
process, MiB above imports of it and of parity's), parity's figures, and whether vLLM loads the result. The gate is open
here: the weights are random, and rounding errors grow in such a model from layer to layer as they do in no trained one.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from evaluating import random_adapter
from shape import ROOT, environment, longest_prompts

from grpo_cot.common.files import read_json, write_json, write_jsonl
from grpo_cot.recipes.recipe import load_recipe

KINDS = ("dequantized", "original")


def merge(folder: Path, base: str) -> dict[str, Any]:
    """Run the step once; `folder` has prompts/ and train/."""
    recipe = load_recipe(ROOT / "experiments/grpo-cot-3b.yaml").model_dump()
    recipe["merge"] |= {"base": base}
    write_json(folder / "recipe.yaml", recipe)  # JSON is YAML
    started = time.perf_counter()
    subprocess.run(
        [
            sys.executable, "scripts/merge.py", "--recipe", folder / "recipe.yaml", "--prompts", folder / "prompts",
            "--model", folder / "train/model.json", "--output", folder / base, "--figures", folder / "merge.json",
            "--record", folder / "record.json",
        ],
        cwd=ROOT, env=environment(), check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    measured = {
        key: value for key, value in read_json(folder / "record.json").items() if key.startswith(("mer", "par"))
    }
    return {
        "seconds": seconds, **measured, **read_json(folder / "merge.json"), "vllm": reloaded(folder / base, folder)
    }  # fmt: skip


def reloaded(merged: Path, folder: Path) -> dict[str, Any]:
    """What bench/gpu/reload.py says of the merged model, or why it says nothing."""
    done = subprocess.run(
        [sys.executable, "bench/gpu/reload.py", merged, folder / "prompts/eval-test.jsonl"], cwd=ROOT,
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        return {"failed": done.stderr.strip()[-300:]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Merge on both bases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    args = parser.parse_args()
    section = load_recipe(ROOT / "experiments/grpo-cot-3b.yaml").prompt
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jsonl(folder / "prompts/eval-test.jsonl", longest_prompts(args.base, section, 32))
        random_adapter(args.base, folder / "train")
        gc.collect()
        torch.cuda.empty_cache()  # the step is another process, which needs the memory
        print(json.dumps({kind: merge(folder, kind) for kind in args.kinds}))


if __name__ == "__main__":
    main()
