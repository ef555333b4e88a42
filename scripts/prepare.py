"""Step prepare: map rows to prompts, drop those that are too long, and check that no evaluation row is trained on."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from grpo_cot.data.overlap import Overlap, overlaps, refuse_leaks
from grpo_cot.files import (
    InputError,
    new_directory,
    read_jsonl,
    write_json,
    write_jsonl,
)
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.step import run


def main(args: Namespace) -> str:
    """train.jsonl, eval-SET.jsonl for every other split, and summary.json."""
    section = load_recipe(args.recipe).prompt
    tokenizer = load_tokenizer(args.base)
    splits = {path.stem: read_jsonl(path) for path in sorted(args.data.glob("*.jsonl"))}
    shared = overlaps(splits)
    refuse_leaks(shared, args.data)
    nothing = Overlap([], [], {})
    summary: dict[str, dict[str, Any]] = {}
    with new_directory(args.output) as output:
        for name, rows in splits.items():
            prompts, too_long = map_rows(rows, tokenizer, section)
            if not prompts:
                raise InputError(
                    f"{args.recipe}: prompt.max_prompt_length is {section.max_prompt_length}, and every prompt of the "
                    f"split {name!r} is longer; raise it"
                )
            lengths = [prompt["tokens"] for prompt in prompts]
            overlap = shared.get(name, nothing)
            summary[name] = {
                "prompts": len(prompts),
                "tokens": {"mean": sum(lengths) / len(lengths), "max": max(lengths)},
                "too_long": too_long,
                "locale": rows[0]["locale"],
                "also_in_train": len(overlap.also_in_train),
                "near_train": len(overlap.near_train),
                "also_in": overlap.also_in,
            }
            write_jsonl(output / ("train.jsonl" if name == "train" else f"eval-{name}.jsonl"), prompts)
        write_json(output / "summary.json", summary)
    return "; ".join(
        f"{name}: {facts['prompts']} prompts, {len(facts['too_long'])} dropped as longer than "
        f"{section.max_prompt_length} tokens (longest kept: {facts['tokens']['max']})"
        + (f", {facts['near_train']} differ from a training question only in numbers" if facts["near_train"] else "")
        + "".join(f", {count} also in {other}" for other, count in facts["also_in"].items())
        for name, facts in summary.items()
    )


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, data=Path, base=Path, output=Path)
