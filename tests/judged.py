"""Hand-made predictions of texts, as the step grade writes them."""

from typing import Any

CLASSES = ("negative", "positive")


def answer(
    judged: str, reward_model: str | None = None, completion: str = " is dull and long", **changed: Any
) -> dict[str, Any]:
    """A model's part of a prediction: the class by the judge, and the one by the reward model (by default the same)."""
    label = reward_model or judged
    return {
        "completion": completion, "text": f"The course{completion}", "judged": judged, "reward_model_label": label,
        "reward_model_probability": 0.9 if label == "negative" else 0.1, "amounts": {"reward_model": 1.0},
        "weighted_reward": 1.0, "own_log_likelihood": -8.0, "own_tokens": 4, "other_log_likelihood": -8.0,
        "gold_log_likelihood": -12.0, "gold_tokens": 6, "tokens": 4, "truncated": False, "reasoning_tokens": None,
        "samples_correct": None, "rouge": None, **changed,
    }  # fmt: skip


def predictions(
    base: list[dict[str, Any]], trained: list[dict[str, Any]], before: str | None = None, *, reward_model: bool = True
) -> list[dict[str, Any]]:
    """A set's predictions from both models' answers; the wanted class is negative, and the judge knows every text."""
    rows = []
    for number, (first, second) in enumerate(zip(base, trained, strict=True)):
        label, *others = CLASSES if number % 2 else CLASSES[::-1]
        chances = {label: 0.8, others[0]: 0.2}
        row: dict[str, Any] = {"id": f"test-{number}", "set": "test", "before": before, "gold": None, "solution": None}
        row |= {"locale": "en", "text": "The course is dull", "label": label, "wanted": "negative", "judged": label}
        row |= {"beginning_judged": "positive", "label_probabilities": chances, "base": first, "trained": second}
        if not reward_model:
            row["label_probabilities"] = None
            for model in ("base", "trained"):
                row[model] = row[model] | {"reward_model_label": None, "reward_model_probability": None}
        rows.append(row)
    return rows
