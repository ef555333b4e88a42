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
        "noise": None,
        "harness": {"strict_match": share(0.31), "flexible_extract": share(0.52)},
        "reasoning_tokens": {"mean": 30.5, "low": 29.0, "high": 32.0, "n": 450},
        "completion_tokens": {"value": 44.0, "low": 43.0, "high": 45.0},
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
        "paired_samples": None,
    }
    return {"set": "test", "before": None, "validation": {}, "best_prompt": None, **figures, "sets": {"test": figures}}


def preference_metrics(base: float, trained: float) -> dict[str, Any]:
    """Metrics of one evaluation set of pairs of answers, without final answers."""
    figures = metrics(base, trained)["sets"]["test"]
    absent = ("strict_accuracy", "lenient_accuracy", "unread", "format_adherence", "harness", "pass_at", "majority_at")
    for model, accuracy in (("base", base), ("trained", trained)):
        figures[model] |= dict.fromkeys(absent) | {"pair_accuracy": share(accuracy), "pair_margin": {"value": 2.5}}
    figures["paired"] = {"pair_accuracy": figures["paired"]["strict_accuracy"]}
    figures["implicit_reward"] = {"accuracy": share(0.81), "margin": {"value": 4.25, "low": 4.0, "high": 4.5}, "n": 490}
    return {"set": "test", "before": None, "validation": {}, "best_prompt": None, **figures, "sets": {"test": figures}}


def text_metrics(
    base: float, trained: float, before: str | None = None, *, reward_model: bool = True
) -> dict[str, Any]:
    """Metrics of one evaluation set of texts."""
    figures = preference_metrics(base, trained)["sets"]["test"]
    del figures["implicit_reward"]
    absent = ("pair_accuracy", "pair_margin", "sacrebleu", "rouge1", "rouge2", "rougeL")
    for model, value in (("base", base), ("trained", trained)):
        figures[model] |= dict.fromkeys(absent) | {
            "reasoning_tokens": {"mean": None, "low": None, "high": None, "n": 0}, "wanted_share": share(value),
            "reward_model_share": share(value + 0.1) if reward_model else None,
            "weighted_reward": {"value": 1.5, "low": 1.25, "high": 1.75}, "distinct_1": 0.25, "distinct_2": 0.625,
            "fluency": {"value": 8.25, "low": 8.0, "high": 8.5, "tokens": 900}, "self_bleu": {"value": 41.5, "n": 100},
        }  # fmt: skip
    change = figures["paired"].pop("pair_accuracy")
    figures["paired"] = {"wanted_share": change} | ({"reward_model_share": change} if reward_model else {})
    bins = [
        {"low": low, "high": low + 0.1, "n": n, "confidence": low + 0.05, "accuracy": low + 0.1}
        for low, n in ((0.6, 30), (0.9, 470))
    ]
    classes = {
        "negative": {"precision": 0.875, "recall": 0.8125, "f1": 0.8426, "support": 180},
        "positive": {"precision": None, "recall": 0.0, "f1": 0.0, "support": 20},
    }
    classifier = {"accuracy": share(0.87), "classes": classes}
    figures["texts"] = {
        "wanted": "negative", "beginnings": share(0.125), "judge": classifier,
        "reward_difference": {"value": 0.5, "low": 0.25, "high": 0.75},
        "kl": {"value": 12.25, "low": 11.5, "high": 13.0},
        "reward_model": classifier | {
            "confusion": {"classes": ["negative", "positive"], "counts": [[171, 9], [4, 16]]},
            "calibration": {"bins": bins, "expected_error": 0.0525},
        } if reward_model else None,
    }  # fmt: skip
    return {
        "set": "test",
        "before": before,
        "validation": {},
        "best_prompt": None,
        **figures,
        "sets": {"test": figures},
    }
