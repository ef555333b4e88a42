"""The figures that a run is known by: the accuracies that its evaluation set has."""

from collections.abc import Mapping
from typing import Any

# The shares that are compared in pairs, the one that a run is known by first, and their names.
ACCURACIES = {
    "strict_accuracy": "strict accuracy", "lenient_accuracy": "lenient accuracy", "pair_accuracy": "pairs ranked right"
}  # fmt: skip


def headlines(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The accuracies that an evaluation set has: `label`, `base`, `trained`, and the paired `difference`."""
    return [
        {
            "label": label, "base": metrics["base"][key], "trained": metrics["trained"][key],
            "difference": metrics["paired"][key],
        }
        for key, label in ACCURACIES.items()
        if key in metrics["paired"]
    ]  # fmt: skip
