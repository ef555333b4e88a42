"""How well a classifier of texts does on labelled ones: by class, by pair of classes, and in its confidence."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

BINS = 10


def by_class(labels: Sequence[str], found: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and support (texts of the class) of every class that is a label or was found.

    A figure whose denominator is 0 is None: the precision of a class that was never found, for one.

    >>> by_class(["good", "good", "bad"], ["good", "bad", "bad"])["bad"]
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666, 'support': 1}
    """
    right = Counter(label for label, other in zip(labels, found, strict=True) if label == other)
    support, claims = Counter(labels), Counter(found)
    return {
        name: {
            "precision": _ratio(right[name], claims[name]), "recall": _ratio(right[name], support[name]),
            "f1": _ratio(2 * right[name], support[name] + claims[name]), "support": support[name],
        }
        for name in sorted(support | claims)
    }  # fmt: skip


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def confusion(labels: Sequence[str], found: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix: `classes`, and `counts`, a row for each label and in it a column for each class found.

    >>> confusion(["good", "good", "bad"], ["good", "bad", "bad"])
    {'classes': ['bad', 'good'], 'counts': [[1, 0], [1, 1]]}
    """
    classes = sorted({*labels, *found})
    pairs = Counter(zip(labels, found, strict=True))
    return {"classes": classes, "counts": [[pairs[label, other] for other in classes] for label in classes]}


def calibration(labels: Sequence[str], probabilities: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Whether a classifier is right as often as it is confident (Guo et al., 2017): its confidence is the probability
    of the class that it finds likeliest.

    Returns:
        `bins`, those of `BINS` bins of equal width that hold a text: low, high, n, mean confidence and accuracy; and
        `expected_error`, the mean over the texts of the bins' difference between the two.
    """
    filled: dict[int, list[tuple[float, bool]]] = {}
    for label, chances in zip(labels, probabilities, strict=True):
        name = likeliest(chances)
        filled.setdefault(min(int(chances[name] * BINS), BINS - 1), []).append((chances[name], name == label))
    bins = [
        {
            "low": number / BINS, "high": (number + 1) / BINS, "n": len(texts),
            "confidence": statistics.fmean(confidence for confidence, _ in texts),
            "accuracy": statistics.fmean(right for _, right in texts),
        }
        for number, texts in sorted(filled.items())
    ]  # fmt: skip
    gaps = sum(part["n"] * abs(part["accuracy"] - part["confidence"]) for part in bins)
    return {"bins": bins, "expected_error": gaps / len(labels)}


def likeliest(probabilities: Mapping[str, float]) -> str:
    """The class of the highest probability; of several the first."""
    return max(probabilities, key=probabilities.__getitem__)
