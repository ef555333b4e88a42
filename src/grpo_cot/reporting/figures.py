"""The content of a run's report: figures in rows, pictures as inline SVG, and the problems where the models differ."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from grpo_cot.reporting.headlines import ACCURACIES, compared, named

BASE_COLOUR, TRAINED_COLOUR, GREY = "#9aa5b1", "#1f6feb", "#57606a"
STYLE = {
    "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": GREY, "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "svg.fonttype": "none",
}  # fmt: skip
CURVES = (
    ("completions/mean_length", "completion length (tokens)"),
    ("completions/clipped_ratio", "share cut off by the length cap"),
    ("frac_reward_zero_std", "share of groups without variance"),
    ("phantom_advantage", "share that varies, none right"),
    ("entropy", "entropy (nats a token)"),
    ("kl", "KL to the reference"),
    ("mean_token_accuracy", "tokens of the target guessed right"),
    ("eval_accuracy", "validation texts classified right"),
    ("rewards/accuracies", "share of pairs ranked right"),
    ("rewards/margins", "chosen minus rejected (implicit reward)"),
    ("grad_norm", "gradient norm"),
)
# A figure's key in metrics.json, its label, decimals, factor and unit.
MEASURES = (
    ("strict_accuracy", ACCURACIES["strict_accuracy"], 1, 100, " %"),
    ("lenient_accuracy", ACCURACIES["lenient_accuracy"], 1, 100, " %"),
    ("format_adherence", "format adherence", 1, 100, " %"),
    ("unread", "unread by the lenient reader", 1, 100, " %"),
    ("pass_at", "pass@{}", 1, 100, " %"),
    ("majority_at", "majority@{}", 1, 100, " %"),
    ("harness", "lm-evaluation-harness, {}", 1, 100, " %"),
    ("pair_accuracy", ACCURACIES["pair_accuracy"], 1, 100, " %"),
    ("pair_margin", "chosen minus rejected answer (nats)", 2, 1, ""),
    ("wanted_share", ACCURACIES["wanted_share"], 1, 100, " %"),
    ("reward_model_share", ACCURACIES["reward_model_share"], 1, 100, " %"),
    ("weighted_reward", "weighted reward of a completion (mean)", 3, 1, ""),
    ("fluency", "perplexity of the completions, under the model on the left", 2, 1, ""),
    ("distinct_1", "distinct-1 of the completions", 3, 1, ""),
    ("distinct_2", "distinct-2 of the completions", 3, 1, ""),
    ("self_bleu", "self-BLEU of the completions", 1, 1, ""),
    ("perplexity", "perplexity of the given answers", 3, 1, ""),
    ("sacrebleu", "SacreBLEU", 2, 1, ""),
    ("rouge1", "ROUGE-1 F1", 3, 1, ""),
    ("rouge2", "ROUGE-2 F1", 3, 1, ""),
    ("rougeL", "ROUGE-L F1", 3, 1, ""),
    ("reasoning_tokens", "reasoning, tokens (mean of those in the schema)", 1, 1, ""),
    ("completion_tokens", "completion, tokens (mean)", 1, 1, ""),
    ("truncated", "cut off by the limit", 1, 100, " %"),
)
FAMILIES = ("pass_at", "majority_at", "harness")  # one figure for each k, or for each filter
# Of final answers, of pairs and of texts: no row of a table where rows are of another kind.
OF_A_KIND = (
    "strict_accuracy", "lenient_accuracy", "format_adherence", "unread", "pair_accuracy", "pair_margin",
    "wanted_share", "reward_model_share", "weighted_reward", "fluency", "distinct_1", "distinct_2", "self_bleu",
)  # fmt: skip
PICTURED = (
    "strict_accuracy", "lenient_accuracy", "format_adherence", "pair_accuracy", "wanted_share", "reward_model_share"
)  # fmt: skip


def figure_rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An evaluation set's figures as table rows: label, how to print them, `base` and `trained`, and the paired
    `difference` where there is one.

    A figure is {value} with low and high where it has an interval, and None where it could not be measured. A family
    (pass@k) has a row for each member, and none where it was not asked for; so have the figures of final answers, of
    pairs and of texts where the rows are of another kind, and on texts whatever was not measured.
    """
    rows = []
    for key, label, decimals, scale, unit in MEASURES:
        values = {model: figures[model].get(key) for model in ("base", "trained")}
        family = key in FAMILIES
        absent = all((value if family else _figure(value)) is None for value in values.values())
        if absent and (key in OF_A_KIND or "texts" in figures):
            continue
        entries = [(label if family else named(label, figures), figures["paired"].get(key), values)]
        if family:
            families = {model: members or {} for model, members in values.items()}
            entries = [
                (
                    label.format(member.replace("_", " ")),
                    None,
                    {model: families[model].get(member) for model in families},
                )
                for member in dict.fromkeys(member for members in families.values() for member in members)
            ]
        rows += [
            {
                "label": name, "difference": difference, "decimals": decimals, "scale": scale, "unit": unit,
                **{model: _figure(value) for model, value in pair.items()},
            }
            for name, difference, pair in entries
        ]  # fmt: skip
    return rows


def _figure(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, int | float):
        return {"value": value}
    if isinstance(value, Mapping) and "mean" in value:
        value = {**value, "value": value["mean"]}
    return None if value is None or value["value"] is None else dict(value)


def accuracy_picture(metrics: Mapping[str, Any]) -> str:
    """The model that is compared with beside the trained one: the shares of all problems that there are, with their
    intervals."""
    measures = [measure for measure in MEASURES if measure[0] in PICTURED and metrics["base"].get(measure[0])]
    names = {"base": compared(metrics), "trained": "trained"}
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 2.6))
        for offset, model, colour in ((-0.19, "base", BASE_COLOUR), (0.19, "trained", TRAINED_COLOUR)):
            figures = [metrics[model][key] for key, *_ in measures]
            values = [100 * share["value"] for share in figures]
            sides = (("value", "low"), ("high", "value"))
            errors = [[100 * (share[upper] - share[lower]) for share in figures] for upper, lower in sides]
            positions = [position + offset for position in range(len(measures))]
            bars = {"color": colour, "label": names[model], "yerr": errors, "capsize": 3, "ecolor": "#24292f"}
            axes.bar(positions, values, 0.36, **bars)
            for position, value in zip(positions, values, strict=True):
                ink = "white" if value > 12 else "#24292f"
                axes.text(position - 0.02, 3, f"{value:.0f}", ha="center", color=ink, fontweight="bold")
        labels = [textwrap.fill(named(label, metrics), 24) for _, label, *_ in measures]
        axes.set_xticks(range(len(measures)), labels)
        axes.set_ylim(0, 105)
        axes.set_ylabel("% of texts" if "texts" in metrics else "% of problems")
        axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        return _svg(figure)


def reward_picture(log: Sequence[Mapping[str, float]], weights: Mapping[str, float]) -> str:
    """The weighted reward and each reward's own mean over the steps; a reward of weight 0 is dashed."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 2.8))
        axes.plot(*_series(log, "reward"), color="#24292f", linewidth=2, label="weighted sum")
        for name, weight in weights.items():
            steps, means = _series(log, f"rewards/{name.rpartition('.')[2]}/mean")  # by the function's own name
            if not means:  # it judged no completion
                continue
            axes.plot(
                steps, means, linewidth=1.2, linestyle="-" if weight else ":",
                label=f"{name} × {weight:g}" if weight else f"{name} (logged only)",
            )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel("mean a completion")
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        return _svg(figure)


def loss_picture(log: Sequence[Mapping[str, float]]) -> str:
    """The training loss over the steps, and the loss on the validation split where it was taken."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 2.6))
        for name, label, colour, marker in (
            ("loss", "training", TRAINED_COLOUR, None), ("eval_loss", "validation split", "#bc4c00", "o")
        ):  # fmt: skip
            if any(name in entry for entry in log):
                axes.plot(*_series(log, name), color=colour, linewidth=1.6, marker=marker, markersize=4, label=label)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        return _svg(figure)


def curves_picture(log: Sequence[Mapping[str, float]]) -> str:
    """Small multiples of the signs of a healthy run, each of two points at least; nothing where there are none."""
    present = [(name, label) for name, label in CURVES if sum(name in entry for entry in log) > 1]
    if not present:
        return ""
    with pyplot.rc_context(STYLE):
        lines = (len(present) + 2) // 3
        figure, grid = pyplot.subplots(lines, 3, figsize=(8.4, 1.9 * lines), squeeze=False)
        for axes, (name, label) in zip(grid.flat, present, strict=False):
            axes.plot(*_series(log, name), color=TRAINED_COLOUR, linewidth=1.4)
            axes.set_title(label, fontsize=9, color=GREY, loc="left")
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        for axes in list(grid.flat)[len(present) :]:
            axes.remove()
        figure.tight_layout()
        return _svg(figure)


def changed_problems(predictions: Sequence[Mapping[str, Any]], limit: int) -> dict[str, list[Mapping[str, Any]]]:
    """Problems by the training's effect, the first few of each: won, lost, and still wrong by the strict reading, or of
    texts the same by the judge's verdict.

    Each prediction gets `right`, the verdict by model. Rows without a final answer that are no texts are in none.
    """
    wanted = predictions[0].get("wanted")
    names = ("won", "lost", "still wrong")
    if wanted:
        names = (f"became {wanted}", f"stopped being {wanted}", f"still not {wanted}")
    groups: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
    for row in predictions:
        if wanted:
            right = {model: row[model]["judged"] == wanted for model in ("base", "trained")}
        elif row["gold"] is not None:
            right = {model: row[model]["strict_correct"] for model in ("base", "trained")}
        else:
            continue
        if not all(right.values()):
            groups[names[0 if right["trained"] else 1 if right["base"] else 2]].append({**row, "right": right})
    return {name: rows[:limit] for name, rows in groups.items()}


def reliability_picture(calibration: Mapping[str, Any]) -> str:
    """A classifier's accuracy in each bin of its confidence, beside the line on which both are the same."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(3.6, 3.2))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="accuracy = confidence")
        for part in calibration["bins"]:
            axes.bar(
                part["low"], part["accuracy"], part["high"] - part["low"], align="edge", color=BASE_COLOUR,
                edgecolor="white",
            )  # fmt: skip
        points = [(part["confidence"], part["accuracy"]) for part in calibration["bins"]]
        axes.plot(*zip(*points, strict=True), color=TRAINED_COLOUR, marker="o", markersize=4, label="texts of a bin")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share that is right")
        axes.legend(frameon=False, loc="upper left")
        return _svg(figure)


def reliability_words(calibration: Mapping[str, Any]) -> str:
    """What `reliability_picture` shows, for those who do not see it."""
    return "Reliability: " + "; ".join(
        f"of {part['n']} texts with confidence {part['low']:.1f} to {part['high']:.1f} (mean "
        f"{part['confidence']:.2f}), {part['accuracy']:.0%} are right"
        for part in calibration["bins"]
    )


def _series(log: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    points = [(entry["step"], entry[name]) for entry in log if name in entry]
    return [step for step, _ in points], [value for _, value in points]


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True)
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
