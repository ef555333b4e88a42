"""Step publish: adapter and merged model with their cards, in a local folder and, if the recipe says so, on the Hub."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any, Literal

from grpo_cot.common.files import new_directory, read_json, read_jsonl, read_text, write_json
from grpo_cot.common.step import run
from grpo_cot.models.description import read_description
from grpo_cot.publishing.publish import card_facts, check_base, check_repository, first_prompt, lay_out, programs
from grpo_cot.recipes.recipe import Recipe, load_recipe


def main(args: Namespace) -> str:
    """The published folder, and published.json: the files, and for each pushed part its repository and commit."""
    recipe = load_recipe(args.recipe)
    section = recipe.publish
    merge = read_json(args.merge)
    check_base(merge, recipe, args.recipe)
    known = card_facts(recipe, args.model, args.base_source)
    prompt = first_prompt(args.prompts)
    check_repository(recipe, known["licence"]["name_prefix"], args.recipe)
    facts = {
        "name": (section.repository or args.name).split("/")[-1],
        "dataset": args.source.name.removesuffix(".source.json"),
        "source": read_json(args.source),
        "metrics": read_json(args.metrics),
        "merge": merge,
        "prompt": prompt,
        "recipe": read_text(args.recipe),
        "questions_of": recipe.prompt.questions_of,
        **programs(recipe, args.model, prompt),
        **known,
    }
    weights = {"merged": args.merged}
    description = read_description(args.model)
    if description.kind == "adapter":
        weights["adapter"] = args.model.parent / description.path
    with new_directory(args.output) as output:
        lay_out(output, weights, facts)
        paths = [path for path in sorted(output.rglob("*")) if path.is_file()]
        files = {str(path.relative_to(output)): path.stat().st_size for path in paths}
        pushed = {}
        if section.repository and not section.dry_run:
            pushed = _pushed(output, args, recipe, description.architecture)
    where = {"folder": str(args.output), "files": files, "repository": section.repository}
    write_json(args.published, {**where, "dry_run": section.dry_run, "pushed": pushed})
    message = f"{len(files)} files in {args.output}"
    if pushed:
        return message + "; pushed to " + ", ".join(f"{t['repository']} at {t['commit']}" for t in pushed.values())
    dry = section.repository and section.dry_run
    return message + (f"; a dry run: nothing was pushed to {section.repository}" if dry else "")


def _pushed(
    output: Path, args: Namespace, recipe: Recipe, architecture: Literal["causal", "seq2seq"]
) -> dict[str, Any]:
    # Only now: most runs push nothing, and importing torch takes seconds.
    from grpo_cot.publishing.answers import PROBLEMS, greedy_answers
    from grpo_cot.publishing.pushing import push

    token = os.environ.get("HF_TOKEN", "").strip()
    asked = read_jsonl(args.prompts / f"eval-{recipe.evaluate.sets[0]}.jsonl")[:PROBLEMS]
    conversations = [row["messages"] for row in asked]

    def answers(folder: Path) -> list[str]:
        return greedy_answers(
            folder, architecture, conversations, recipe.prompt.chat_template_kwargs, recipe.model.threads
        )

    return push(output, args.name, recipe.publish, token, answers, Path(".cache/publish") / args.name)


if __name__ == "__main__":
    run(
        main, __doc__, recipe=Path, prompts=Path, model=Path, merged=Path, merge=Path, metrics=Path, source=Path,
        base_source=Path, name=str, output=Path, published=Path,
    )  # fmt: skip
