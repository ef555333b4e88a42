"""Step report: one page that shows what came out, how it got there, and what ran on what."""

from argparse import Namespace
from pathlib import Path

from markupsafe import Markup
from step import run

from grpo_cot.files import read_json, read_jsonl, write_text
from grpo_cot.recipes import load_recipe
from grpo_cot.reporting import (
    accuracy_picture,
    changed_problems,
    curves_picture,
    environment,
    reward_picture,
)


def main(args: Namespace) -> str:
    """report.html."""
    folder = args.run
    metrics = read_json(folder / "grade/metrics.json")
    predictions = read_jsonl(folder / "grade/predictions.jsonl")
    recipe = load_recipe(args.recipe)
    questions = {
        (path.stem.removeprefix("eval-"), row["id"]): row["messages"][-1]["content"]
        for path in (folder / "prompts").glob("eval-*.jsonl")
        for row in read_jsonl(path)
    }
    phases = [
        {
            "name": path.parent.name,
            "verdict": read_json(folder / "train/summary.json")["verdict"][path.parent.name],
            "configuration": read_json(path.parent / "configuration.json"),
            "reward_picture": Markup(reward_picture(log := read_json(path), recipe.rewards)),
            "curves_picture": Markup(curves_picture(log)),
        }
        for path in sorted((folder / "train").glob("*/log.json"))
    ]
    page = environment().get_template("report.html.jinja").render(
        name=args.name,
        metrics=metrics,
        accuracy_picture=Markup(accuracy_picture(metrics)),
        phases=phases,
        check=read_json(folder / "check.json"),
        changed=changed_problems(predictions, limit=4),
        questions=questions,
        audit=read_json(folder / "audit.json"),
        prompts=read_json(folder / "prompts/summary.json"),
        merge=read_json(folder / "merge.json"),
        published=read_json(folder / "published.json"),
        source=read_json(args.source),
        recipe=args.recipe.read_text(encoding="utf-8"),
        records=sorted(map(read_json, (folder / "record").glob("*.json")), key=lambda record: record["started"]),
    )  # fmt: skip
    write_text(args.output, page)
    return f"file://{args.output.resolve()}"


if __name__ == "__main__":
    run(main, __doc__, run=Path, name=str, recipe=Path, source=Path, output=Path)
