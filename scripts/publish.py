"""Step publish: adapter and merged model with their cards, in a local folder and, if the recipe says so, on the Hub."""

import os
from argparse import Namespace
from pathlib import Path

from grpo_cot.files import InputError, new_directory, read_json, read_jsonl, write_json
from grpo_cot.models.description import read_description
from grpo_cot.publishing.publish import lay_out, push
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.step import run


def main(args: Namespace) -> str:
    """The published folder, and published.json: what went where, at which commit."""
    recipe = load_recipe(args.recipe)
    section = recipe.publish
    merge = read_json(args.merge)
    if merge["base"] == "original" and not section.accept_original_base:
        raise InputError(
            f"{args.recipe}: the merged model is on the original base, not on the one that was trained on (token "
            f"agreement {merge['token_agreement']:.2%}, logit difference {merge['logit_difference']:.2%}); set "
            "merge.base: dequantized, or publish.accept_original_base: true"
        )
    description = read_description(args.model)
    trained = args.model.parent / description.path
    configuration = read_json(trained / "configuration.json")
    base = read_json(args.base_source)
    facts = {
        "name": section.repository or args.name,
        "base": base["id"] or base["name"],
        "base_record": base,
        "licence": base["licence"].lower(),
        "dataset": args.source.name.removesuffix(".source.json"),
        "source": read_json(args.source),
        "metrics": read_json(args.metrics),
        "merge": merge,
        "prompt": read_jsonl(args.prompts / "eval-test.jsonl")[0]["messages"],
        "recipe": args.recipe.read_text(encoding="utf-8"),
        "methods": [phase.method for phase in recipe.phases],
        "seed": configuration["seed"],
        "trained_rows": configuration["rows"],
        "selected": configuration.get("selected"),
        "packages": configuration["packages"],
    }
    weights = {"merged": args.merged}
    if description.kind == "adapter":
        weights["adapter"] = trained
    with new_directory(args.output) as output:
        lay_out(output, weights, facts)
        files = {
            str(path.relative_to(output)): path.stat().st_size for path in sorted(output.rglob("*")) if path.is_file()
        }
        pushed = {}
        if section.repository and not section.dry_run:
            pushed = push(output, section.repository, section.private, os.environ.get("HF_TOKEN"))
    write_json(
        args.published,
        {
            "folder": str(args.output),
            "files": files,
            "repository": section.repository,
            "dry_run": section.dry_run,
            "pushed": pushed,
        },
    )
    where = ", ".join(f"{target['repository']} at {target['commit']}" for target in pushed.values())
    intended = (
        f"; a dry run: nothing was pushed to {section.repository}" if section.repository and section.dry_run else ""
    )
    return f"{len(files)} files in {args.output}" + (f"; pushed to {where}" if where else intended)


if __name__ == "__main__":
    run(
        main, __doc__, recipe=Path, prompts=Path, model=Path, merged=Path, merge=Path, metrics=Path, source=Path,
        base_source=Path, name=str, output=Path, published=Path,
    )  # fmt: skip
