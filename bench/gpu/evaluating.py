"""The pipeline's evaluation step on a random base and a random adapter on it, loading included.

    python bench/gpu/evaluating.py ENGINE --base FOLDER [--problems 256] [--tokens 200]

ENGINE: `transformers` or `vllm`. The last line is a JSON object: seconds of the step, and completion tokens a second,
of base and trained together.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from shape import ROOT, environment, longest_prompts

from grpo_cot.common.files import read_json, read_jsonl, write_json, write_jsonl
from grpo_cot.models.description import ModelDescription
from grpo_cot.models.loading import load_base
from grpo_cot.recipes.recipe import load_recipe


def random_adapter(base: Path, folder: Path) -> None:
    """The reference recipe's adapter with small noise where LoRA starts at zero, and model.json beside it."""
    recipe = load_recipe(ROOT / "experiments/grpo-cot-3b.yaml")
    adapted = get_peft_model(
        load_base(base, recipe.model, recipe.quantization),
        LoraConfig(task_type="CAUSAL_LM", **recipe.phases[0].lora or {}),
    )
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.002)
    adapted.save_pretrained(folder / "01-grpo")
    description = ModelDescription(
        kind="adapter", architecture="causal", path="01-grpo", base=str(base), model=recipe.model,
        quantization=recipe.quantization,
    )  # fmt: skip
    write_json(folder / "model.json", description.model_dump())


def prepare(base: Path, folder: Path, engine: str, problems: int, tokens: int) -> None:
    """What the step reads: recipe, prompts, model."""
    recipe = load_recipe(ROOT / "experiments/grpo-cot-3b.yaml")
    prompts = longest_prompts(base, recipe.prompt, problems)
    sampling = {"do_sample": False, "max_new_tokens": tokens}
    changed = recipe.model_dump()
    changed["evaluate"] |= {"engine": engine, "sample": None, "sampling": sampling, "samples": None, "batch_size": 64}
    write_json(folder / "recipe.yaml", changed)  # JSON is YAML
    write_jsonl(folder / "prompts/eval-test.jsonl", prompts)
    random_adapter(base, folder / "train")


def main() -> None:
    """Run the step once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=("transformers", "vllm"))
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(args.base, folder, args.engine, args.problems, args.tokens)
        gc.collect()
        torch.cuda.empty_cache()  # the step is another process, which needs the memory
        started = time.perf_counter()
        subprocess.run(
            [
                sys.executable, "scripts/evaluate.py", "--recipe", folder / "recipe.yaml", "--prompts",
                folder / "prompts", "--model", folder / "train/model.json", "--scratch", folder / "scratch",
                "--output", folder / "eval", "--record", folder / "record.json",
            ],
            cwd=ROOT, env=environment(), check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        rows = read_jsonl(folder / "eval/completions.jsonl")
        tokens = sum(row[model]["tokens"] for row in rows for model in ("base", "trained"))
        print(
            json.dumps(
                {
                    "seconds": seconds,
                    "completions": 2 * len(rows),
                    "tokens_per_second": tokens / seconds,
                    "peak_host_memory_gib": read_json(folder / "record.json")["peak_memory_mib"] / 2**10,
                }
            )
        )


if __name__ == "__main__":
    main()
