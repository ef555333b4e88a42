"""The figures of texts that models completed: how many are of the wanted class, what they earned, how fluent and how
different they are, and how far the judge and the reward model can be believed."""

from collections.abc import Sequence
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.grading.estimates import MODELS, mean, paired, perplexity, share
from grpo_cot.grading.texts.classification import by_class, calibration, confusion, likeliest
from grpo_cot.grading.texts.diversity import distinct, self_bleu
from grpo_cot.grading.texts.hacking import text_warnings


def text_figures(predictions: Sequence[Row]) -> dict[str, Any] | None:
    """The figures of a set's texts; None where its rows are none.

    Figures of the reward model are None where none was trained, those of rewards where none judges a completion. The
    fluency is the perplexity of completions under the model that is compared with, whoever wrote them.

    Returns:
        For `base` and `trained`: the shares `wanted_share` (by the judge) and `reward_model_share`, `weighted_reward`,
        `fluency`, `distinct_1`, `distinct_2` and `self_bleu`. `paired`: of the two shares. `texts`: what both models
        have in common. `warnings`: sentences.
    """
    wanted = predictions[0].get("wanted")
    if wanted is None:
        return None
    rows = {model: [prediction[model] for prediction in predictions] for model in MODELS}
    judged = {model: [row["judged"] == wanted for row in rows[model]] for model in MODELS}
    verdicts, alone = {"wanted_share": judged}, {}
    if predictions[0]["label_probabilities"] is not None:
        taken = {model: [row["reward_model_label"] == wanted for row in rows[model]] for model in MODELS}
        verdicts["reward_model_share"] = taken
        pairs = {model: zip(taken[model], judged[model], strict=True) for model in MODELS}
        alone = {model: [theirs and not ours for theirs, ours in pairs[model]] for model in MODELS}
    figures: dict[str, Any] = {
        model: {
            "wanted_share": None, "reward_model_share": None,
            **{name: share(by_model[model]) for name, by_model in verdicts.items()},
            **_model_figures(rows[model], "own" if model == "base" else "other"),
        }
        for model in MODELS
    }  # fmt: skip
    figures["paired"] = {name: paired(by_model["base"], by_model["trained"]) for name, by_model in verdicts.items()}
    rewards = [[row["weighted_reward"] for row in rows[model]] for model in MODELS]
    changes = [after - before for before, after in zip(*rewards, strict=True) if None not in (before, after)]
    moved = [_log_ratio(row) for row in rows["trained"]]
    figures["texts"] = {
        "wanted": wanted, "beginnings": share([row["beginning_judged"] == wanted for row in predictions]),
        "judge": _classifier(predictions, [row["judged"] for row in predictions]),
        "reward_model": _reward_model(predictions), "reward_difference": mean(changes),
        "kl": mean([ratio for ratio in moved if ratio is not None]),
    }  # fmt: skip
    figures["warnings"] = text_warnings(figures, rows, alone, predictions[0]["before"])
    return figures


def _model_figures(rows: Sequence[Row], whose: str) -> dict[str, Any]:
    """`whose` log-likelihoods are those under the model that is compared with."""
    completions = [row["completion"] for row in rows]
    return {
        "weighted_reward": mean([row["weighted_reward"] for row in rows if row["weighted_reward"] is not None]),
        "fluency": perplexity([(row[f"{whose}_log_likelihood"], row["own_tokens"]) for row in rows]),
        "distinct_1": distinct(completions, 1), "distinct_2": distinct(completions, 2),
        "self_bleu": self_bleu(completions),
    }  # fmt: skip


def _log_ratio(row: Row) -> float | None:
    """How much likelier a completion is under its own model than under the other one, in nats."""
    own, other = row["own_log_likelihood"], row["other_log_likelihood"]
    return None if own is None or other is None else float(own - other)


def _classifier(predictions: Sequence[Row], found: Sequence[str]) -> dict[str, Any]:
    labels = [row["label"] for row in predictions]
    right = [label == other for label, other in zip(labels, found, strict=True)]
    return {"accuracy": share(right), "classes": by_class(labels, found)}


def _reward_model(predictions: Sequence[Row]) -> dict[str, Any] | None:
    probabilities = [row["label_probabilities"] for row in predictions]
    if None in probabilities:
        return None
    labels, found = [row["label"] for row in predictions], list(map(likeliest, probabilities))
    return {
        **_classifier(predictions, found), "confusion": confusion(labels, found),
        "calibration": calibration(labels, probabilities),
    }  # fmt: skip
