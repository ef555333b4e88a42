"""A run's report: what came out, how it got there, and what ran on what, on one page."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from grpo_cot.common.files import read_json, read_jsonl
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


def report_page(run: Path, name: str, recipe_file: Path, source: Path) -> str:
    """The page of a run's folder; `source` is data/D.source.json."""
    metrics = read_json(run / "grade/metrics.json")
    recipe = load_recipe(recipe_file)
    questions = {
        (path.stem.removeprefix("eval-"), row["id"]): row["messages"][-1]["content"]
        for path in (run / "prompts").glob("eval-*.jsonl")
        for row in read_jsonl(path)
    }
    return environment().get_template("report.html.jinja").render(
        name=name,
        metrics=metrics,
        rows={name: figure_rows(figures) for name, figures in metrics["sets"].items()},
        evaluate=recipe.evaluate,
        accuracy_picture=Markup(accuracy_picture(metrics)),
        phases=_phases(run / "train", recipe.rewards),
        check=read_json(run / "check.json"),
        changed=changed_problems(read_jsonl(run / "grade/predictions.jsonl"), limit=4),
        questions=questions,
        audit=read_json(run / "audit.json"),
        prompts=read_json(run / "prompts/summary.json"),
        merge=read_json(run / "merge.json"),
        published=read_json(run / "published.json"),
        source=read_json(source),
        recipe=recipe_file.read_text(encoding="utf-8"),
        records=sorted(map(read_json, (run / "record").glob("*.json")), key=lambda record: record["started"]),
    )  # fmt: skip


def _phases(trained: Path, rewards: dict[str, float]) -> list[dict[str, Any]]:
    """Each phase's configuration, verdict and pictures."""
    verdicts = read_json(trained / "summary.json")["verdict"]
    phases = []
    for path in sorted(trained.glob("*/log.json")):
        log, configuration = read_json(path), read_json(path.parent / "configuration.json")
        rewarded = any("reward" in entry for entry in log)
        phases.append(
            {
                "name": path.parent.name,
                "verdict": verdicts[path.parent.name],
                "configuration": configuration,
                "picture": Markup(reward_picture(log, rewards) if rewarded else loss_picture(log)),
                "curves_picture": Markup(curves_picture(log)),
            }
        )
    return phases
