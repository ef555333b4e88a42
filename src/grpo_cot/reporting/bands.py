"""The index's pictures: curves of one recipe's seeds together, the length study's published ones, and its claims."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from grpo_cot.common.files import read_json
from grpo_cot.reporting import claims as study
from grpo_cot.reporting.tables import Result, by_recipe

STUDY = Path(__file__).with_name("length_study_curves.csv")
WINDOWS = 50  # of a curve: a single step's mean is noise
# What is pictured, by its name in a phase's log.json.
MEASURES = {
    "reward": "weighted reward",
    "completions/mean_length": "completion length (tokens)",
    "eval_loss": "loss on the validation split",
    "eval_accuracy": "validation texts classified right",
}


def band(logs: Sequence[Sequence[Mapping[str, float]]], measure: str, windows: int = WINDOWS) -> list[dict[str, float]]:
    """A logged quantity over the steps, of several runs: `step`, and the `mean`, the lowest (`low`) and the highest
    (`high`) of the runs' means in the window of steps that ends there.

    The band holds every run: with few seeds a t interval at each step would mostly show how few they are. A window in
    which a run logged nothing is left out, or the mean would jump where that run stops.
    """
    last = max((entry["step"] for log in logs for entry in log if measure in entry), default=0)
    width = max(1, math.ceil(last / windows))
    runs: list[dict[int, list[float]]] = []
    for log in logs:
        values: dict[int, list[float]] = {}
        for entry in log:
            if measure in entry:
                values.setdefault(math.ceil(entry["step"] / width), []).append(entry[measure])
        runs.append(values)
    points = []
    for window in sorted(set.intersection(*(set(values) for values in runs))):
        means = [statistics.fmean(values[window]) for values in runs]
        step = min(window * width, last)
        points.append({"step": step, "mean": statistics.fmean(means), "low": min(means), "high": max(means)})
    return points


def bands(root: Path, results: Sequence[Result]) -> list[dict[str, Any]]:
    """The curves of every recipe that was run with several seeds, by phase and measure: `phase`, the measure's `label`,
    and `curves`, each with its `name`, `seeds` (how many) and `points` (`band`)."""
    groups = {key: list(runs.values()) for key, runs in by_recipe(results).items() if len(runs) > 1}
    alone = len({(dataset, base) for _, dataset, base in groups}) == 1
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, runs in groups.items():
        logs = [_logs(root / f"runs/{run.name}/train") for run in runs]
        for phase in logs[0]:
            for measure in MEASURES:
                points = band([log.get(phase, []) for log in logs], measure)
                if len(points) > 1:
                    curve = {"name": key[0] if alone else ", ".join(key), "seeds": len(runs), "points": points}
                    found.setdefault((phase, measure), []).append(curve)
    order = sorted(found, key=lambda entry: (entry[0], list(MEASURES).index(entry[1])))
    return [{"phase": phase, "label": MEASURES[name], "curves": found[phase, name]} for phase, name in order]


def _logs(trained: Path) -> dict[str, list[dict[str, float]]]:
    return {path.parent.name: read_json(path) for path in sorted(trained.glob("*/log.json"))}


def band_pictures(part: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """One of `bands` in pictures, a recipe each with its caption, all on the same scale."""
    # Here, because importing Matplotlib takes longer than a page without pictures.
    from grpo_cot.reporting.drawing import AFTER, as_svg, canvas

    ends = [[point[end] for curve in part["curves"] for point in curve["points"]] for end in ("low", "high")]
    low, high = min(ends[0]), max(ends[1])
    margin = 0.05 * (high - low) or 0.5
    pictures = []
    for curve in part["curves"]:
        points = curve["points"]
        steps, means, lows, highs = ([point[name] for point in points] for name in ("step", "mean", "low", "high"))
        with canvas(2.9, 1.7) as (picture, axes):
            axes.fill_between(steps, lows, highs, color=AFTER, alpha=0.25, linewidth=0)
            axes.plot(steps, means, color=AFTER, linewidth=1.6)
            axes.set_ylim(low - margin, high + margin)
            axes.set_xlabel("step")
            words = (
                f"{part['label']} of {curve['name']}, phase {part['phase']}, mean of {curve['seeds']} seeds and the "
                f"band of all: {_bound(points[0])} until step {steps[0]:.0f}, {_bound(points[-1])} until step "
                f"{steps[-1]:.0f}"
            )
            pictures.append((f"{curve['name']}, {curve['seeds']} seeds", as_svg(picture, words)))
    return pictures


def _bound(point: Mapping[str, float]) -> str:
    return f"{point['mean']:.3g} [{point['low']:.3g}, {point['high']:.3g}]"


def published_curves() -> dict[str, list[dict[str, float]]]:
    """The length study's four logged runs, in means of 50 steps: `step`, `length` (tokens of a completion), and
    `right`, the share of right completions where it was logged.

    The run `standard` logged its correctness reward, which pays 2; the two runs with the unpenalised cosine an accuracy
    reward, which pays 1; the penalised one neither.
    """
    curves: dict[str, list[dict[str, float]]] = {}
    with STUDY.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            point = {"step": float(row["steps_to"]), "length": float(row["completion_length"])}
            if row["correctness"]:
                point["right"] = float(row["correctness"]) / 2
            elif row["accuracy"]:
                point["right"] = float(row["accuracy"])
            curves.setdefault(row["run"], []).append(point)
    return curves


def published_pictures() -> list[tuple[str, Markup]]:
    """The published curves in pictures, with their captions."""
    from grpo_cot.reporting.drawing import DASHES, SERIES, as_svg, canvas

    pictures = []
    for name, label, factor in (
        ("length", "completion length as logged (tokens)", 1),
        ("right", "right completions of training batches (%)", 100),
    ):
        words = []
        with canvas(4.2, 2.3) as (picture, axes):
            for number, (run, points) in enumerate(published_curves().items()):
                known = [point for point in points if name in point]
                if not known:
                    continue
                steps, values = [point["step"] for point in known], [factor * point[name] for point in known]
                style = {"color": SERIES[number], "linestyle": DASHES[number % len(DASHES)]}
                axes.plot(steps, values, linewidth=1.5, label=run, **style)
                words.append(
                    f"{run}: {values[0]:.3g} until step {steps[0]:.0f}, {values[-1]:.3g} until {steps[-1]:.0f}"
                )
            axes.set_xlabel("step")
            axes.set_ylim(bottom=0)
            axes.legend(fontsize=9, ncols=2, loc="upper left", bbox_to_anchor=(-0.05, -0.22))
            pictures.append((label, as_svg(picture, f"Published: {label}. " + "; ".join(words) + ".")))
    return pictures


def claim_pictures(claims: Sequence[Mapping[str, Any]]) -> list[Markup | None]:
    """Of each claim its difference with its interval beside 0, those of one unit on one scale; None where no run
    decides it."""
    from grpo_cot.reporting.drawing import AFTER, GREY, as_svg, canvas

    measured = []
    reach: dict[str, float] = {}
    for claim in claims:
        _, factor, unit, *_ = study.MEASURES[claim["measure"]]
        figure = claim["figure"]
        ends = [factor * figure[end] for end in ("low", "value", "high") if figure[end] is not None] if figure else []
        measured.append((unit, ends))
        reach[unit] = max([reach.get(unit, 1.0), *map(abs, ends)])
    pictures: list[Markup | None] = []
    for unit, ends in measured:
        if not ends:
            pictures.append(None)
            continue
        middle = ends[len(ends) // 2]
        with canvas(2.3, 0.45) as (picture, axes):
            axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
            axes.plot([ends[0], ends[-1]], [0, 0], color=AFTER, linewidth=2)
            axes.plot(middle, 0, "o", color=AFTER, markersize=6)
            axes.set_xlim(-1.08 * reach[unit], 1.08 * reach[unit])
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.tick_params(labelsize=9)
            axes.set_xlabel(unit, fontsize=9, labelpad=1)
            interval = f" [{ends[0]:+.1f}, {ends[-1]:+.1f}]" if len(ends) > 1 else ", no interval"
            pictures.append(as_svg(picture, f"Difference: {middle:+.1f} {unit}{interval}"))
    return pictures
