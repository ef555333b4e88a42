"""Step evaluate: have both models answer the evaluation sets. Nothing is judged here."""

from argparse import Namespace
from pathlib import Path

from step import run

from grpo_cot.evaluation import ask_both, reasoning_tokens, sampled
from grpo_cot.files import InputError, new_directory, read_jsonl, write_jsonl
from grpo_cot.library_settings import check_section
from grpo_cot.models import load
from grpo_cot.recipes import load_recipe


def main(args: Namespace) -> str:
    """completions.jsonl: id, set, and what each model wrote."""
    recipe = load_recipe(args.recipe)
    section = recipe.evaluate
    check_section("sampling", section.sampling, f"{args.recipe}: evaluate.sampling")
    chosen = []
    for name in section.sets:
        path = args.prompts / f"eval-{name}.jsonl"
        if not path.is_file():
            present = sorted(other.stem.removeprefix("eval-") for other in args.prompts.glob("eval-*.jsonl"))
            raise InputError(f"{args.recipe}: evaluate.sets names {name!r}; the data set has: {', '.join(present)}")
        chosen += [(name, row) for row in sampled(read_jsonl(path), section.sample, section.seed)]
    model, tokenizer, description = load(args.model)
    answers = ask_both(
        model, tokenizer, description, [row["messages"] for _, row in chosen], section.sampling,
        batch_size=section.batch_size, chat_template_kwargs=recipe.prompt.chat_template_kwargs, seed=section.seed,
    )  # fmt: skip
    rows = [
        {
            "id": prompt["id"],
            "set": name,
            **{
                model_name: {
                    "completion": completions[position].text,
                    "tokens": completions[position].tokens,
                    "reasoning_tokens": reasoning_tokens(completions[position].text, tokenizer),
                    "truncated": completions[position].truncated,
                }
                for model_name, completions in answers.items()
            },
        }
        for position, (name, prompt) in enumerate(chosen)
    ]
    with new_directory(args.output) as output:
        write_jsonl(output / "completions.jsonl", rows)
    return f"{len(rows)} problems answered by base and trained"


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, model=Path, output=Path)
