"""A run's report: its results, its training, and its records, on one page."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from grpo_cot.common.files import read_json, read_jsonl, read_text
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.reporting import figures
from grpo_cot.reporting.headlines import compared, headlines
from grpo_cot.reporting.pages import environment


def report_page(run: Path, name: str, recipe_file: Path, source: Path) -> str:
    """The page of a run's folder; `source` is data/D.source.json."""
    metrics = read_json(run / "grade/metrics.json")
    classifiers = {name: entry.get("texts", {}).get("reward_model") for name, entry in metrics["sets"].items()}
    recipe = load_recipe(recipe_file)
    questions = {
        (path.stem.removeprefix("eval-"), row["id"]): row["messages"][-1]["content"]
        for path in (run / "prompts").glob("eval-*.jsonl")
        for row in read_jsonl(path)
    }
    return environment().get_template("report.html.jinja").render(
        name=name, metrics=metrics, compared=compared(metrics), headlines=headlines(metrics),
        evaluate=recipe.evaluate, questions=questions,
        rows={name: figures.figure_rows(entry) for name, entry in metrics["sets"].items()},
        accuracy_picture=Markup(figures.accuracy_picture(metrics)),
        reliability={
            name: {
                "picture": Markup(figures.reliability_picture(classifier["calibration"])),
                "words": figures.reliability_words(classifier["calibration"]),
            }
            for name, classifier in classifiers.items()
            if classifier
        },
        phases=_phases(run / "train", recipe.rewards),
        changed=figures.changed_problems(read_jsonl(run / "grade/predictions.jsonl"), limit=4),
        prompts=read_json(run / "prompts/summary.json"),
        **{part: read_json(run / f"{part}.json") for part in ("check", "audit", "merge", "published")},
        source=read_json(source), recipe=read_text(recipe_file), questions_of=recipe.prompt.questions_of,
        records=sorted(map(read_json, (run / "record").glob("*.json")), key=lambda record: record["started"]),
    )  # fmt: skip


def _phases(trained: Path, rewards: dict[str, float]) -> list[dict[str, Any]]:
    """Of the reward model, where there is one, and of each phase: configuration, verdict and pictures, and the audit of
    a later phase's start."""
    verdicts = read_json(trained / "summary.json")["verdict"]
    phases = []
    for name, verdict in verdicts.items():
        log, configuration = read_json(trained / name / "log.json"), read_json(trained / name / "configuration.json")
        audit = trained / name / "audit.json"
        rewarded = any("reward" in entry for entry in log)
        phases.append({
            "name": name, "verdict": verdict, "configuration": configuration,
            "audit": read_json(audit) if audit.is_file() else None,
            "picture": Markup(figures.reward_picture(log, rewards) if rewarded else figures.loss_picture(log)),
            "curves_picture": Markup(figures.curves_picture(log)),
        })  # fmt: skip
    return phases
