"""Step report: one page that shows what came out, how it got there, and what ran on what."""

from argparse import Namespace
from pathlib import Path

from markupsafe import Markup

from grpo_cot.files import read_json, read_jsonl, write_text
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.reporting.figures import (
    accuracy_picture,
    changed_problems,
    curves_picture,
    figure_rows,
    loss_picture,
    reward_picture,
)
from grpo_cot.reporting.pages import environment
from grpo_cot.step import run


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
    verdicts = read_json(folder / "train/summary.json")["verdict"]
    phases = []
    for path in sorted((folder / "train").glob("*/log.json")):
        log, configuration = read_json(path), read_json(path.parent / "configuration.json")
        rewarded = configuration["method"] == "grpo"
        phases.append(
            {
                "name": path.parent.name,
                "verdict": verdicts[path.parent.name],
                "configuration": configuration,
                "picture": Markup(reward_picture(log, recipe.rewards) if rewarded else loss_picture(log)),
                "curves_picture": Markup(curves_picture(log)),
            }
        )
    page = environment().get_template("report.html.jinja").render(
        name=args.name,
        metrics=metrics,
        rows={name: figure_rows(figures) for name, figures in metrics["sets"].items()},
        evaluate=recipe.evaluate,
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
