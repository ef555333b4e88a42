"""Step prepare: map rows to prompts, drop those that are too long, and check that no evaluation row is trained on."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from step import run

from grpo_cot.files import (
    InputError,
    new_directory,
    read_jsonl,
    write_json,
    write_jsonl,
)
from grpo_cot.prompts import map_rows, overlap
from grpo_cot.recipes import load_recipe
from grpo_cot.tokenization import load_tokenizer


def main(args: Namespace) -> str:
    """train.jsonl, eval-SET.jsonl for every other split, and summary.json."""
    section = load_recipe(args.recipe).prompt
    tokenizer = load_tokenizer(args.base)
    splits = {path.stem: read_jsonl(path) for path in sorted(args.data.glob("*.jsonl"))}
    evaluation = {name: rows for name, rows in splits.items() if name != "train"}
    shared = overlap(splits["train"], evaluation)
    if leaked := {name: ids for name, ids in shared.items() if ids}:
        name, ids = next(iter(leaked.items()))
        raise InputError(
            f"{args.data}: {len(ids)} questions of the evaluation set {name!r} are also in the training split "
            f"({ids[0]} first); list the training rows under 'drop' in the source file"
        )
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
            summary[name] = {
                "prompts": len(prompts),
                "tokens": {"mean": sum(lengths) / len(lengths), "max": max(lengths)},
                "too_long": too_long,
                "also_in_train": len(shared.get(name, [])),
            }
            write_jsonl(output / ("train.jsonl" if name == "train" else f"eval-{name}.jsonl"), prompts)
        write_json(output / "summary.json", summary)
    return "; ".join(
        f"{name}: {facts['prompts']} prompts, {len(facts['too_long'])} dropped as longer than "
        f"{section.max_prompt_length} tokens (longest kept: {facts['tokens']['max']})"
        for name, facts in summary.items()
    )


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, data=Path, base=Path, output=Path)
