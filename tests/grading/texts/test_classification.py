"""Tables of a classifier, against scikit-learn's where it is installed and by hand."""

import doctest
import random

import pytest

from grpo_cot.grading.texts import classification
from grpo_cot.grading.texts.classification import by_class, calibration, confusion

NAMES = ["bad", "good", "so-so"]


def drawn(n: int) -> tuple[list[str], list[dict[str, float]], list[str]]:
    rng = random.Random(0)
    labels = [rng.choice(NAMES) for _ in range(n)]
    chances = []
    for label in labels:
        weights = {name: rng.random() + (0.7 if name == label else 0) for name in NAMES}
        chances.append({name: weight / sum(weights.values()) for name, weight in weights.items()})
    return labels, chances, [max(row, key=row.__getitem__) for row in chances]


def test_doctests() -> None:
    assert doctest.testmod(classification).failed == 0


def test_the_tables_are_scikit_learns(beside_lm_eval: None) -> None:
    from sklearn import metrics

    labels, _, found = drawn(400)
    report = metrics.classification_report(labels, found, output_dict=True)
    for name, row in by_class(labels, found).items():
        theirs = report[name]
        expected = [theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"]]
        assert list(row.values()) == pytest.approx(expected)
    assert confusion(labels, found) == {"classes": NAMES, "counts": metrics.confusion_matrix(labels, found).tolist()}


def test_a_class_that_was_never_found_or_never_meant_has_no_figure_of_it() -> None:
    table = by_class(["good", "good", "so-so"], ["good", "bad", "good"])
    assert table["bad"] == {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0}
    assert table["so-so"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}


def test_calibration_by_hand() -> None:
    labels = ["good", "good", "bad", "good"]
    chances = [{"good": good, "bad": 1 - good} for good in (0.95, 0.05, 0.65, 1.0)]
    found = calibration(labels, chances)
    assert [(part["low"], part["high"], part["n"]) for part in found["bins"]] == [(0.6, 0.7, 1), (0.9, 1.0, 3)]
    assert [part["accuracy"] for part in found["bins"]] == pytest.approx([0, 2 / 3])
    assert [part["confidence"] for part in found["bins"]] == pytest.approx([0.65, 2.9 / 3])
    assert found["expected_error"] == pytest.approx((0.65 + 3 * (2.9 / 3 - 2 / 3)) / 4)


def test_a_classifier_that_is_right_as_often_as_it_says_has_no_error() -> None:
    chances = [{"good": 0.75, "bad": 0.25}] * 4
    assert calibration(["good", "good", "good", "bad"], chances)["expected_error"] == pytest.approx(0)
