"""A classifier's figures: by class, its confusion matrix, and how far its confidence is to be trusted."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_cot.statistics import wilson_interval

BINS = 15  # of a reliability plot (Guo et al., 2017)


def confusion_matrix(labels: Sequence[str], verdicts: Sequence[str | None], classes: Sequence[str]) -> list[list[int]]:
    """How many rows of each class (the lines) were judged each class (the columns).

    Raises:
        ValueError: a label or a verdict is none of the classes, or the sequences differ in length.

    >>> confusion_matrix(["a", "a", "b"], ["a", "b", "b"], ["a", "b"])
    [[1, 1], [0, 1]]
    """
    counts = Counter(zip(labels, verdicts, strict=True))
    if unknown := [pair for pair in counts if not {*pair} <= {*classes}]:
        raise ValueError(f"expected classes among {', '.join(classes)}, found {unknown[0]}")
    return [[counts[label, verdict] for verdict in classes] for label in classes]


def classification(labels: Sequence[str], verdicts: Sequence[str | None], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro F1, the figures by class and the confusion matrix.

    Shares have Wilson's 95 % interval. A class that was never judged so has no precision, one without rows no recall.

    Raises:
        ValueError: as `confusion_matrix`, or there is no row.
    """
    matrix = np.array(confusion_matrix(labels, verdicts, classes))
    right, n = np.diag(matrix), int(matrix.sum())
    if not n:
        raise ValueError("expected at least one row, found none")
    by_class: dict[str, dict[str, Any]] = {}
    for position, label in enumerate(classes):
        hits, judged, rows = int(right[position]), int(matrix[:, position].sum()), int(matrix[position].sum())
        by_class[label] = {
            "rows": rows, "judged": judged,
            "precision": wilson_interval(hits, judged)._asdict() if judged else None,
            "recall": wilson_interval(hits, rows)._asdict() if rows else None,
            "f1": 2 * hits / (judged + rows) if judged + rows else None,
        }  # fmt: skip
    scores = [figures["f1"] for figures in by_class.values() if figures["f1"] is not None]
    return {
        "n": n, "accuracy": wilson_interval(int(right.sum()), n)._asdict(), "macro_f1": sum(scores) / len(scores),
        "classes": list(classes), "by_class": by_class, "confusion": matrix.tolist(),
    }  # fmt: skip


def calibration(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> dict[str, Any]:
    """The expected calibration error, and the points of a reliability plot.

    The rows fall into bins of equal width by the confidence in their verdict, (0, 1/15], (1/15, 2/15], ... With n_b
    rows in a bin, accuracy a_b and mean confidence c_b, the error is Σ_b n_b/n |a_b - c_b| (Naeini et al., 2015; Guo et
    al., 2017).

    Returns:
        n, error, and the points of the bins that have rows: low, high, n, confidence, and accuracy with its interval.

    Raises:
        ValueError: there is no row, or a confidence is not within 0..1.
    """
    values, hits = np.asarray(confidences, dtype=float), np.asarray(correct, dtype=bool)
    if not len(values) or len(values) != len(hits) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("expected a confidence within 0..1 and a verdict for each of at least one row")
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.digitize(values, edges, right=True) - 1, 0, bins - 1)
    points: list[dict[str, Any]] = []
    error = 0.0
    for place in np.unique(places):
        inside = places == place
        accuracy = wilson_interval(int(hits[inside].sum()), int(inside.sum()))
        confidence = float(values[inside].mean())
        error += float(inside.mean()) * abs(accuracy.value - confidence)
        points.append(
            {
                "low": float(edges[place]), "high": float(edges[place + 1]), "n": int(inside.sum()),
                "confidence": confidence, "accuracy": accuracy._asdict(),
            }
        )  # fmt: skip
    return {"n": len(values), "error": error, "points": points}
