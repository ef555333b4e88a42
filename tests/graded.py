"""Hand-made metrics.json files, as the step grade writes them."""

from typing import Any


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - 0.04), "high": min(1.0, value + 0.04)}


def model_figures(accuracy: float, **changed: Any) -> dict[str, Any]:
    figures = {
        "strict_accuracy": share(accuracy),
        "lenient_accuracy": share(accuracy + 0.05),
        "unread": share(0.07),
        "format_adherence": share(0.9),
        "perplexity": {"value": 3.25, "low": 3.0, "high": 3.5, "tokens": 4000},
        "sacrebleu": {"value": 41.5, "low": 40.25, "high": 42.75, "signature": "nrefs:1|tok:13a|version:2.5.1"},
        "rouge1": share(0.61),
        "rouge2": share(0.42),
        "rougeL": share(0.55),
        "pass_at": {"1": share(0.4), "4": share(0.7)},
        "majority_at": {"4": share(0.5)},
        "harness": {"strict_match": share(0.31), "flexible_extract": share(0.52)},
        "reasoning_tokens": {"mean": 30.5, "low": 29.0, "high": 32.0, "n": 450},
        "completion_tokens": {"mean": 44.0},
        "truncated": 0.02,
    }  # fmt: skip
    return {**figures, **changed}


def metrics(base: float, trained: float, n: int = 500, **changed: Any) -> dict[str, Any]:
    """Metrics of one evaluation set; `changed` replaces figures of the trained model."""
    change = trained - base
    difference = {"difference": change, "low": change - 0.05, "high": change + 0.05, "p": 0.0004, "detectable": 0.061}
    figures = {
        "n": n,
        "base": model_figures(base),
        "trained": model_figures(trained, **changed),
        "paired": {"strict_accuracy": difference, "lenient_accuracy": difference},
        "warnings": [],
    }
    return {"set": "test", **figures, "sets": {"test": figures}}


def preference_metrics(base: float, trained: float) -> dict[str, Any]:
    """Metrics of one evaluation set of pairs of answers, without final answers."""
    figures = metrics(base, trained)["sets"]["test"]
    absent = ("strict_accuracy", "lenient_accuracy", "unread", "format_adherence", "harness", "pass_at", "majority_at")
    for model, accuracy in (("base", base), ("trained", trained)):
        figures[model] |= dict.fromkeys(absent) | {"pair_accuracy": share(accuracy), "pair_margin": {"value": 2.5}}
    figures["paired"] = {"pair_accuracy": figures["paired"]["strict_accuracy"]}
    figures["implicit_reward"] = {"accuracy": share(0.81), "margin": {"value": 4.25, "low": 4.0, "high": 4.5}, "n": 490}
    return {"set": "test", **figures, "sets": {"test": figures}}
