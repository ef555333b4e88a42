"""The figures of a run's report, in rows and in pictures."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from grpo_cot.reporting.drawing import (
    AFTER,
    BEFORE,
    DASHES,
    GREY,
    INK,
    LINE,
    PAGE,
    SERIES,
    as_svg,
    canvas,
    course,
    series,
)  # fmt: skip
from grpo_cot.reporting.headlines import ACCURACIES, compared, named
from grpo_cot.reporting.sentences import with_interval

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
    ("sound_accuracy", "strict accuracy, every line of reasoning true", 1, 100, " %"),
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
    "strict_accuracy", "lenient_accuracy", "sound_accuracy", "format_adherence", "unread", "pair_accuracy",
    "pair_margin", "wanted_share", "reward_model_share", "weighted_reward", "fluency", "distinct_1", "distinct_2",
    "self_bleu",
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
        absent = all((value if family else figure(value)) is None for value in values.values())
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
                **{model: figure(value) for model, value in pair.items()},
            }
            for name, difference, pair in entries
        ]  # fmt: skip
    return rows


def figure(value: Any) -> dict[str, Any] | None:
    """A figure as the pages print it: {value} with low and high where it has an interval; None: it was not measured."""
    if isinstance(value, int | float):
        return {"value": value}
    if isinstance(value, Mapping) and "mean" in value:
        value = {**value, "value": value["mean"]}
    return None if value is None or value["value"] is None else dict(value)


def accuracy_picture(metrics: Mapping[str, Any]) -> Markup:
    """The model that is compared with above the trained one: the shares of all problems that there are, with their
    intervals."""
    measures = [(key, named(label, metrics)) for key, label, *_ in MEASURES if key in PICTURED]
    measures = [(key, label) for key, label in measures if metrics["base"].get(key)]
    bars = (("base", 0.13, BEFORE), ("trained", -0.17, AFTER))
    names = {"base": compared(metrics), "trained": "trained"}
    words = []
    with canvas(4.6, 0.5 + 0.75 * len(measures)) as (picture, axes):
        for row, (key, label) in enumerate(measures):
            axes.text(1, -row + 0.42, label, color=INK, va="center")
            words.append(f"{label}: " + ", ".join(f"{names[m]} {with_interval(metrics[m][key])}" for m, *_ in bars))
            for model, offset, colour in bars:
                value, low, high = (100 * metrics[model][key][end] for end in ("value", "low", "high"))
                axes.barh(offset - row, value, 0.27, color=colour, label=names[model] if row == 0 else None)
                axes.plot([low, high], [offset - row] * 2, color=INK, linewidth=1.4)
                axes.text(max(high, value) + 2, offset - row, f"{value:.1f} %", va="center", color=INK)
        axes.set_xlim(0, 100)
        axes.set_ylim(0.6 - len(measures), 0.6)
        axes.set_yticks([])
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_xlabel("% of texts" if "texts" in metrics else "% of problems")
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1), borderaxespad=0)
        return as_svg(picture, "Bars with 95 % intervals. " + "; ".join(words) + ".")


def reward_picture(log: Sequence[Mapping[str, float]], weights: Mapping[str, float]) -> Markup:
    """The weighted reward and each reward's own mean over the steps."""
    with canvas(4.6, 2.5) as (picture, axes):
        steps, means = series(log, "reward")
        axes.plot(steps, means, color=INK, linewidth=2.2, label="weighted sum")
        words = [course("weighted sum", steps, means)]
        for number, (name, weight) in enumerate(weights.items()):
            steps, means = _own_mean(log, name)
            if not means:  # it judged no completion
                continue
            label = f"{name} × {weight:g}" if weight else f"{name} (logged only)"
            dash = DASHES[number % len(DASHES)] if weight else ":"
            axes.plot(steps, means, linewidth=1.4, linestyle=dash, color=SERIES[number % len(SERIES)], label=label)
            words.append(course(label, steps, means))
        axes.set_xlabel("step")
        axes.set_ylabel("mean a completion")
        axes.legend(fontsize=9, ncols=2, loc="upper left", bbox_to_anchor=(-0.1, -0.22), columnspacing=1)
        return as_svg(picture, "Rewards over the steps. " + "; ".join(words) + ".")


def reward_rows(log: Sequence[Mapping[str, float]], weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Each reward that judged completions: `name`, `weight`, its mean in the first tenth of the steps (`start`) and in
    the last (`end`), and its `curve`."""
    rows = []
    for name, weight in weights.items():
        steps, means = _own_mean(log, name)
        if means:
            tenth = max(1, len(means) // 10)
            start, end = statistics.fmean(means[:tenth]), statistics.fmean(means[-tenth:])
            with canvas(1.5, 0.32) as (picture, axes):
                axes.plot(steps, means, color=AFTER if weight else GREY, linewidth=1.3)
                axes.set_axis_off()
                curve = as_svg(picture, course(name, steps, means))
            rows.append({"name": name, "weight": weight, "start": start, "end": end, "curve": curve})
    return rows


def _own_mean(log: Sequence[Mapping[str, float]], reward: str) -> tuple[list[float], list[float]]:
    return series(log, f"rewards/{reward.rpartition('.')[2]}/mean")  # by the function's own name


def loss_picture(log: Sequence[Mapping[str, float]]) -> Markup:
    """The training loss over the steps, and the loss on the validation split where it was taken."""
    words = []
    with canvas(4.6, 2.4) as (picture, axes):
        for name, label, colour, marker in (
            ("loss", "training", AFTER, None), ("eval_loss", "validation split", SERIES[1], "o")
        ):  # fmt: skip
            steps, values = series(log, name)
            if values:
                axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=4, label=label)
                words.append(course(label, steps, values))
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        return as_svg(picture, "Loss over the steps. " + "; ".join(words) + ".")


def validation_picture(evaluations: Sequence[Mapping[str, Any]], selected: int | None) -> Markup:
    """Strict and lenient accuracy and format adherence on the validation split over the steps, with intervals;
    `selected` is the step whose checkpoint was kept for it."""
    steps, words = [evaluation["step"] for evaluation in evaluations], []
    with canvas(4.6, 2.4) as (picture, axes):
        for key, label, colour, marker in (
            ("strict_accuracy", "strict accuracy", AFTER, "o"), ("lenient_accuracy", "lenient accuracy", BEFORE, "s"),
            ("format_adherence", "format", SERIES[1], "^"),
        ):  # fmt: skip
            shares = [evaluation[key] for evaluation in evaluations]
            values = [100 * share["value"] for share in shares]
            axes.plot(steps, values, color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
            ends = [[100 * share[end] for share in shares] for end in ("low", "high")]
            axes.fill_between(steps, *ends, color=colour, alpha=0.15, linewidth=0)
            words += [
                f"{label}, step {step}: {with_interval(share)}" for step, share in zip(steps, shares, strict=True)
            ]
        if selected is not None:
            axes.axvline(selected, color=GREY, linewidth=1, linestyle=":")
            words.append(f"the checkpoint of step {selected} was kept")
        axes.set_ylim(0, 102)
        axes.set_xlabel("step")
        axes.set_ylabel(f"% of {evaluations[0]['n']} problems")
        axes.legend(fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), columnspacing=1)
        return as_svg(picture, "On the validation split: " + "; ".join(words) + ".")


def validation_by_difficulty(evaluations: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Strict accuracy on the validation split over the steps, a line for each difficulty; None where there is one."""
    levels = evaluations[0]["by_difficulty"]
    if len(levels) < 2:
        return None
    steps, words = [evaluation["step"] for evaluation in evaluations], []
    with canvas(4.6, 2.4) as (picture, axes):
        for place, level in enumerate(levels):
            shares = [evaluation["by_difficulty"][place]["strict_accuracy"] for evaluation in evaluations]
            label = f"{level['difficulty']} ({level['n']} problems)"
            tone = 0.25 + 0.75 * (place + 1) / len(levels)  # the harder, the darker
            axes.plot(steps, [100 * share["value"] for share in shares], color=AFTER, alpha=tone, label=label)
            words.append(f"{label}: {with_interval(shares[0])} at step {steps[0]}, {with_interval(shares[-1])} at last")
        axes.set_ylim(0, 102)
        axes.set_xlabel("step")
        axes.set_ylabel("strict accuracy (%)")
        axes.legend(fontsize=9, ncols=2, loc="upper left", bbox_to_anchor=(-0.1, -0.22), columnspacing=1)
        return as_svg(picture, "Strict accuracy by calculations in the solution. " + "; ".join(words) + ".")


def pass_rate_picture(rates: Mapping[str, float], band: tuple[float, float]) -> Markup:
    """How many prompts have each pass rate under the model that a phase started from; those in the band were kept."""
    counts = Counter(rates.values())
    kept = [band[0] <= rate <= band[1] for rate in counts]
    width = 0.8 * min((abs(a - b) for a, b in pairwise(sorted(counts))), default=0.1)
    with canvas(3.4, 2.2) as (picture, axes):
        axes.bar(list(counts), list(counts.values()), width, color=[AFTER if inside else LINE for inside in kept])
        axes.set_xlim(-0.1, 1.1)
        axes.set_xlabel(f"pass rate; kept from {band[0]:g} to {band[1]:g}")
        axes.set_ylabel("prompts")
        words = "; ".join(f"{rate:.3g}: {count}" for rate, count in sorted(counts.items()))
        return as_svg(picture, f"Prompts by pass rate, kept from {band[0]:g} to {band[1]:g}. {words}.")


def curve_pictures(log: Sequence[Mapping[str, float]]) -> list[tuple[str, Markup]]:
    """The signs of a healthy run, each with its label: of two points at least, or it is no curve."""
    pictures = []
    for name, label in CURVES:
        steps, values = series(log, name)
        if len(values) > 1:
            with canvas(2.9, 1.6) as (picture, axes):
                axes.plot(steps, values, color=AFTER, linewidth=1.5)
                axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
                axes.set_xlabel("step")
                pictures.append((label, as_svg(picture, course(label, steps, values))))
    return pictures


def pass_picture(metrics: Mapping[str, Any]) -> Markup | None:
    """pass@k and majority@k of both models over k; None where no samples were drawn."""
    if not metrics["trained"].get("pass_at"):
        return None
    words = []
    with canvas(4.6, 2.4) as (picture, axes):
        for model, colour, name in (("base", BEFORE, compared(metrics)), ("trained", AFTER, "trained")):
            for key, label, dash in (("pass_at", "pass@k", "-"), ("majority_at", "majority@k", "--")):
                shares = metrics[model][key] or {}
                ks, values = [int(k) for k in shares], [100 * share["value"] for share in shares.values()]
                axes.plot(ks, values, dash, color=colour, marker="o", markersize=4, label=f"{label}, {name}")
                if dash == "-":
                    ends = [[100 * share[end] for share in shares.values()] for end in ("low", "high")]
                    axes.fill_between(ks, *ends, color=colour, alpha=0.2, linewidth=0)
                words += [f"{label[:-1]}{k}, {name}: {with_interval(share)}" for k, share in shares.items()]
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set_ylim(0, 102)
        axes.set_xlabel("k samples of a problem")
        axes.set_ylabel("% of problems")
        axes.legend(fontsize=9, ncols=2, loc="upper left", bbox_to_anchor=(-0.1, -0.22), columnspacing=1)
        return as_svg(picture, "; ".join(words) + ".")


def difficulty_pictures(levels: Sequence[Mapping[str, Any]], before: str) -> list[tuple[str, Markup]]:
    """Strict accuracy with its interval, and the completions' mean length, by the problems' difficulty: `by_difficulty`
    of a set, and the name of the model that is compared with."""
    models = (("base", BEFORE, before, "o", -0.08), ("trained", AFTER, "trained", "s", 0.08))
    pictures = []
    for key, label, scale in (
        ("strict_accuracy", "strict accuracy (%)", 100), ("completion_tokens", "completion, tokens (mean)", 1)
    ):  # fmt: skip
        words = []
        with canvas(3.4, 2.2) as (picture, axes):
            for model, colour, name, marker, offset in models:
                values = [figure(level[model][key]) for level in levels]
                known = [(level, value) for level, value in zip(levels, values, strict=True) if value]
                places = [level["difficulty"] + offset for level, _ in known]
                heights = [scale * value["value"] for _, value in known]
                for place, (_, value) in zip(places, known, strict=True):
                    if value.get("low") is not None:
                        axes.plot([place] * 2, [scale * value[end] for end in ("low", "high")], color=colour)
                axes.plot(places, heights, color=colour, marker=marker, markersize=5, linewidth=1.2, label=name)
                words += [
                    f"{name}, difficulty {level['difficulty']} ({level['n']} problems): {height:.1f}"
                    for (level, _), height in zip(known, heights, strict=True)
                ]
            axes.set_xticks([level["difficulty"] for level in levels])
            axes.set_xlabel("calculations in the solution")
            axes.set_ylim(0, 102 if scale == 100 else None)
            axes.legend(ncols=2, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
            pictures.append((label, as_svg(picture, f"{label} by difficulty. " + "; ".join(words) + ".")))
    return pictures


def length_picture(relation: Mapping[str, Any], before: str) -> Markup:
    """The share of pairs in which the right completion is longer than the wrong one, beside a half, at which length
    says nothing: `length_and_accuracy` of a set, and the name of the model that is compared with."""
    rows = [
        (f"{name}, {pairs}", relation[model][part], colour)
        for part, pairs in (("pooled", "all problems"), ("within", "one difficulty"))
        for model, name, colour in (("base", before, BEFORE), ("trained", "trained", AFTER))
    ]
    words = []
    with canvas(3.4, 2.2) as (picture, axes):
        axes.axvline(50, color=GREY, linewidth=1, linestyle=":")
        for row, (label, share, colour) in enumerate(rows):
            if share is None:
                words.append(f"{label}: not measured")
                continue
            if share["low"] is not None:
                axes.plot([100 * share["low"], 100 * share["high"]], [-row] * 2, color=colour, linewidth=2)
            words.append(f"{label}: {with_interval(share)} of {share['pairs']} pairs")
            axes.plot(100 * share["value"], -row, "o", color=colour, markersize=6)
        axes.set_yticks([-row for row in range(len(rows))], [label for label, *_ in rows])
        axes.set_ylim(0.5 - len(rows), 0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of pairs")
        return as_svg(picture, "Pairs in which the right completion is longer. " + "; ".join(words) + ".")


def reliability_picture(calibration: Mapping[str, Any]) -> Markup:
    """A classifier's accuracy in each bin of its confidence, beside the line on which both are the same."""
    with canvas(3.4, 2.9) as (picture, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="accuracy = confidence")
        for part in calibration["bins"]:
            axes.bar(
                part["low"], part["accuracy"], part["high"] - part["low"], align="edge", color=LINE, edgecolor=PAGE
            )
        points = [(part["confidence"], part["accuracy"]) for part in calibration["bins"]]
        axes.plot(*zip(*points, strict=True), color=AFTER, marker="o", markersize=4, label="texts of a bin")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share that is right")
        axes.legend(loc="upper left")
        return as_svg(picture, _reliability_words(calibration))


def _reliability_words(calibration: Mapping[str, Any]) -> str:
    return "Reliability: " + "; ".join(
        f"of {part['n']} texts with confidence {part['low']:.1f} to {part['high']:.1f} (mean "
        f"{part['confidence']:.2f}), {part['accuracy']:.0%} are right"
        for part in calibration["bins"]
    )
