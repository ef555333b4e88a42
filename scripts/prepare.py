"""Step prepare: map rows to prompts, drop those that are too long, and check that no evaluation row is trained on."""

from argparse import Namespace
from pathlib import Path

from grpo_cot.common.errors import InputError, naming
from grpo_cot.common.files import new_directory, read_jsonl, write_json, write_jsonl
from grpo_cot.common.step import run
from grpo_cot.data.overlap import overlaps, refuse_leaks, refuse_shown
from grpo_cot.data.summary import sentence, summarise
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.prompts import map_rows, map_variants, variant_sets
from grpo_cot.recipes.recipe import load_recipe


def main(args: Namespace) -> str:
    """train.jsonl, eval-SET.jsonl for every other split and every set with fewer examples, and summary.json."""
    section = load_recipe(args.recipe, "prompt").prompt
    tokenizer = load_tokenizer(args.base)
    splits = {path.stem: read_jsonl(path) for path in sorted(args.data.glob("*.jsonl"))}
    shared = overlaps(splits)
    refuse_leaks(shared, args.data)
    with naming(args.recipe):
        variant_sets(section, splits.keys() - {"train"})
        refuse_shown([example.question for example in section.examples], splits)
    summary = {}
    with new_directory(args.output) as output:
        for name, rows in splits.items():
            prompts, _ = map_rows(rows, tokenizer, section)
            if not prompts:
                raise InputError(
                    f"{args.recipe}: prompt.max_prompt_length is {section.max_prompt_length}, and every prompt of the "
                    f"split {name!r} is longer; raise it"
                )
            variants = {} if name == "train" else map_variants(name, rows, prompts, tokenizer, section)
            summary[name] = summarise(prompts, rows, shared.get(name), variants)
            write_jsonl(output / ("train.jsonl" if name == "train" else f"eval-{name}.jsonl"), prompts)
            for variant, asked in variants.items():
                write_jsonl(output / f"eval-{variant}.jsonl", asked)
        write_json(output / "summary.json", summary)
    return "; ".join(sentence(name, facts, section.max_prompt_length) for name, facts in summary.items())


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, data=Path, base=Path, output=Path)
