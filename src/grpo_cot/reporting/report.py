"""A run's report: its results, its training, and its records, on one page."""

import hashlib
from pathlib import Path
from typing import Any

from markupsafe import Markup

from grpo_cot.common.files import read_json, read_jsonl, read_text
from grpo_cot.recipes.recipe import Recipe, load_recipe
from grpo_cot.reporting import figures, sentences
from grpo_cot.reporting.headlines import compared, headlines
from grpo_cot.reporting.pages import environment
from grpo_cot.reporting.transcripts import transcripts


def report_page(run: Path, name: str, recipe_file: Path, source: Path, commit: str | None) -> str:
    """The page of a run's folder; `source` is data/D.source.json, `commit` the code's, where it is known."""
    metrics = read_json(run / "grade/metrics.json")
    recipe = load_recipe(recipe_file)
    questions = {
        (path.stem.removeprefix("eval-"), row["id"]): row["messages"][-1]["content"]
        for path in (run / "prompts").glob("eval-*.jsonl")
        for row in read_jsonl(path)
    }
    return environment().get_template("report.html.jinja").render(
        name=name, metrics=metrics, compared=compared(metrics), headlines=headlines(metrics),
        verdict=sentences.verdict(metrics), reading=sentences.reading(metrics),
        best_prompt=sentences.against_best_prompt(metrics),
        noise=sentences.sampling_noise(metrics), evaluate=recipe.evaluate,
        rows={name: figures.figure_rows(entry) for name, entry in metrics["sets"].items()},
        accuracy_picture=figures.accuracy_picture(metrics), pass_picture=figures.pass_picture(metrics),
        lengths=[_lengths(set_name, entry, compared(metrics)) for set_name, entry in metrics["sets"].items()],
        reliability={
            set_name: figures.reliability_picture(entry["texts"]["reward_model"]["calibration"])
            for set_name, entry in metrics["sets"].items()
            if entry.get("texts", {}).get("reward_model")
        },
        phases=_phases(run / "train", recipe, metrics["validation"]),
        transcripts=transcripts(read_jsonl(run / "grade/predictions.jsonl"), questions),
        prompts=read_json(run / "prompts/summary.json"),
        **{part: read_json(run / f"{part}.json") for part in ("check", "audit", "merge", "published")},
        source=read_json(source), recipe=read_text(recipe_file), recipe_file=recipe_file,
        questions_of=recipe.prompt.questions_of, commit=commit,
        hashes={part: _md5(run / part) for part in ("grade/predictions.jsonl", "grade/metrics.json")},
        records=sorted(map(read_json, (run / "record").glob("*.json")), key=lambda record: record["started"]),
    )  # fmt: skip


def _md5(path: Path) -> str:
    """A file's hash as dvc.lock has it."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _lengths(name: str, entry: dict[str, Any], before: str) -> dict[str, Any]:
    """A set's name, and its sentences and pictures on length, correctness and difficulty: none where no row has a
    difficulty, or none has a final answer."""
    said, pictures = [], []
    if related := entry.get("length_and_accuracy"):
        first = "Before training" if before == "base" else before.capitalize()
        for when, model in ((first, "base"), ("After training", "trained")):
            said.append(sentences.length_verdict(when, related[model]))
        pictures.append(("the right completion is the longer one", figures.length_picture(related, before)))
    if levels := entry.get("by_difficulty"):
        pictures += figures.difficulty_pictures(levels, before)
    return {"set": name, "sentences": said, "pictures": pictures}


def _phases(trained: Path, recipe: Recipe, validation: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the reward model, where there is one, and of each phase: configuration, verdict, pictures and rewards, and the
    audit of a later phase's start."""
    verdicts = read_json(trained / "summary.json")["verdict"]
    phases = []
    for name, verdict in verdicts.items():
        log, configuration = read_json(trained / name / "log.json"), read_json(trained / name / "configuration.json")
        audit = trained / name / "audit.json"
        rewarded = any("reward" in entry for entry in log)
        picture: Markup = figures.reward_picture(log, recipe.rewards) if rewarded else figures.loss_picture(log)
        curves = figures.curve_pictures(log)
        if judged := validation.get(name):
            chosen = configuration.get("selected", {}).get("step")
            curves.insert(0, ("on the validation split", figures.validation_picture(judged, chosen)))
            if levels := figures.validation_by_difficulty(judged):
                curves.insert(1, ("on the validation split, by calculations in the solution", levels))
        rates = trained / name / "pass-rates.json"
        if rates.is_file():
            band = recipe.phases[int(name[:2]) - 1].model_dump()["pass_rates"]
            picture_of_rates = figures.pass_rate_picture(read_json(rates), (band["low"], band["high"]))
            curves.append(("prompts by pass rate", picture_of_rates))
        phases.append({
            "name": name, "verdict": verdict, "configuration": configuration,
            "audit": read_json(audit) if audit.is_file() else None,
            "picture": picture, "what": "rewards over the steps" if rewarded else "loss over the steps",
            "curves": curves, "rewards": figures.reward_rows(log, recipe.rewards),
        })  # fmt: skip
    return phases
