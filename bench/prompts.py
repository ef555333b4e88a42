"""Mapping GSM8K's 7,473 training rows to prompts with the real Qwen2.5 tokenizer, against datasets.map over the same.

GSM8K_DIR=... TOKENIZERS_DIR=... python bench/prompts.py
"""

import os
import statistics
import sys
import time
from pathlib import Path

from datasets import Dataset, disable_caching

from grpo_cot.data.kinds import read_any
from grpo_cot.data.overlap import overlaps
from grpo_cot.data.rows import load
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import load_recipe

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Print both times, imports left out."""
    if not {"GSM8K_DIR", "TOKENIZERS_DIR"} <= os.environ.keys():
        sys.exit("set GSM8K_DIR (train.jsonl, test.jsonl) and TOKENIZERS_DIR (qwen2.5/)")
    section = load_recipe(ROOT / "experiments/tiny-grpo.yaml").prompt
    tokenizer = load_tokenizer(Path(os.environ["TOKENIZERS_DIR"]) / "qwen2.5")
    source = read_any(ROOT / "sources/datasets/gsm8k.yaml")[1]
    ours, theirs = [], []
    for _ in range(3):
        start = time.perf_counter()
        splits, _ = load(source, "gsm8k")
        prompts, too_long = map_rows(splits["train"], tokenizer, section)
        overlaps(splits)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        rows = Dataset.from_list(splits["train"])
        disable_caching()
        rows.map(
            lambda row: {
                "tokens": len(
                    tokenizer.apply_chat_template(
                        [{"role": "system", "content": section.system}, {"role": "user", "content": row["question"]}],
                        add_generation_prompt=True,
                        return_dict=True,
                    )["input_ids"]
                )
            }
        )
        theirs.append(time.perf_counter() - start)
    mean = sum(prompt["tokens"] for prompt in prompts) / len(prompts)
    print(f"{len(prompts)} prompts, {len(too_long)} too long, mean {mean:.0f} tokens")
    print(f"ours (read, check, map, overlap): median {statistics.median(ours):.2f} s")
    print(f"datasets.map of the template alone: median {statistics.median(theirs):.2f} s")


if __name__ == "__main__":
    main()
