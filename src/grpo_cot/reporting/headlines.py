"""The figures that a run is known by, and the names of what is compared."""

from collections.abc import Mapping
from typing import Any

# The shares that are compared in pairs, the one that a run is known by first, and their names.
ACCURACIES = {
    "strict_accuracy": "strict accuracy", "lenient_accuracy": "lenient accuracy", "pair_accuracy": "pairs ranked right",
    "wanted_share": "judged {wanted} by the independent judge",
    "reward_model_share": "taken for {wanted} by the reward model",
}  # fmt: skip
# What a comparison of two runs has beside them.
COMPARED = {**ACCURACIES, "format_adherence": "format adherence"}


def named(label: str, figures: Mapping[str, Any]) -> str:
    """A label of these figures (of a set, or of a comparison): of texts with the class that is to be written."""
    return label.format(wanted=figures["texts"]["wanted"] if "texts" in figures else figures.get("wanted"))


def compared(metrics: Mapping[str, Any]) -> str:
    """The model that the trained one is compared with: `base`, or `after NN-METHOD`, as an earlier phase left it."""
    return f"after {metrics['before']}" if metrics.get("before") else "base"  # earlier runs are without it


def headlines(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The accuracies that an evaluation set has: `key`, `label`, `base`, `trained`, and the paired `difference`."""
    return [
        {
            "key": key, "label": named(label, metrics), "base": metrics["base"][key],
            "trained": metrics["trained"][key], "difference": metrics["paired"][key],
        }
        for key, label in ACCURACIES.items()
        if key in metrics["paired"]
    ]  # fmt: skip


def comparison_headlines(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The shares that a comparison has: `key`, `label`, and what comparisons/C.json says of each."""
    return [
        {"key": key, "label": named(label, comparison), **comparison[key]}
        for key, label in COMPARED.items()
        if key in comparison
    ]
