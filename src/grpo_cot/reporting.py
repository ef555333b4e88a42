"""The report: one self-contained page that opens from disk. Text from models is escaped; pictures are inline SVG."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined

matplotlib.use("svg")
from matplotlib import pyplot

BASE_COLOUR, TRAINED_COLOUR, GREY = "#9aa5b1", "#1f6feb", "#57606a"
STYLE = {
    "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": GREY, "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "svg.fonttype": "none",
}  # fmt: skip
CURVES = (
    ("completions/mean_length", "completion length (tokens)"),
    ("completions/clipped_ratio", "share cut off by the length cap"),
    ("frac_reward_zero_std", "share of groups without variance"),
    ("entropy", "entropy (nats a token)"),
    ("kl", "KL to the reference"),
    ("grad_norm", "gradient norm"),
)


def environment() -> Environment:
    """The templates' environment: everything is escaped unless it is our own picture."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f} %"
    made.filters["probability"] = lambda value: "< 0.001" if value < 0.001 else f"= {value:.3f}"
    return made


def accuracy_picture(metrics: Mapping[str, Any]) -> str:
    """Base beside trained, with 95 % intervals."""
    measures = (
        ("strict_accuracy", "strict accuracy"),
        ("lenient_accuracy", "lenient accuracy"),
        ("format_adherence", "format adherence"),
    )
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 2.6))
        for offset, (model, colour) in zip(
            (-0.19, 0.19), (("base", BASE_COLOUR), ("trained", TRAINED_COLOUR)), strict=True
        ):
            shares = [metrics[model][measure] for measure, _ in measures]
            values = [100 * share["value"] for share in shares]
            errors = [
                [100 * (share["value"] - share["low"]) for share in shares],
                [100 * (share["high"] - share["value"]) for share in shares],
            ]
            positions = [position + offset for position in range(len(measures))]
            axes.bar(positions, values, 0.36, color=colour, label=model, yerr=errors, capsize=3, ecolor="#24292f")
            for position, value in zip(positions, values, strict=True):
                axes.text(
                    position - 0.02,
                    3,
                    f"{value:.0f}",
                    ha="center",
                    color="white" if value > 12 else "#24292f",
                    fontweight="bold",
                )
        axes.set_xticks(range(len(measures)), [label for _, label in measures])
        axes.set_ylim(0, 105)
        axes.set_ylabel("% of problems")
        axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        return _svg(figure)


def reward_picture(log: Sequence[Mapping[str, float]], weights: Mapping[str, float]) -> str:
    """The weighted reward and each reward's own mean over the steps; what is not paid is dashed."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 2.8))
        axes.plot(*_series(log, "reward"), color="#24292f", linewidth=2, label="weighted sum")
        for name, weight in weights.items():
            axes.plot(
                *_series(log, f"rewards/{name}/mean"), linewidth=1.2, linestyle="-" if weight else ":",
                label=f"{name} × {weight:g}" if weight else f"{name} (logged only)",
            )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel("mean a completion")
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        return _svg(figure)


def curves_picture(log: Sequence[Mapping[str, float]]) -> str:
    """Small multiples of what tells whether a run is healthy."""
    present = [(name, label) for name, label in CURVES if any(name in entry for entry in log)]
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(
            (len(present) + 2) // 3, 3, figsize=(8.4, 1.9 * ((len(present) + 2) // 3)), squeeze=False
        )
        for axes, (name, label) in zip(grid.flat, present, strict=False):
            axes.plot(*_series(log, name), color=TRAINED_COLOUR, linewidth=1.4)
            axes.set_title(label, fontsize=9, color=GREY, loc="left")
            axes.set_ylim(bottom=0)
        for axes in list(grid.flat)[len(present) :]:
            axes.remove()
        figure.tight_layout()
        return _svg(figure)


def changed_problems(predictions: Sequence[Mapping[str, Any]], limit: int) -> dict[str, list[Mapping[str, Any]]]:
    """Problems by what the training did to them (strict reading): won, lost, and still wrong, the first few of each."""
    groups: dict[str, list[Mapping[str, Any]]] = {"won": [], "lost": [], "still wrong": []}
    for row in predictions:
        before, after = row["base"]["strict_correct"], row["trained"]["strict_correct"]
        name = (
            "won" if after and not before else "lost" if before and not after else "still wrong" if not after else None
        )
        if name:
            groups[name].append(row)
    return {name: rows[:limit] for name, rows in groups.items()}


def _series(log: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    points = [(entry["step"], entry[name]) for entry in log if name in entry]
    return [step for step, _ in points], [value for _, value in points]


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True)
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
