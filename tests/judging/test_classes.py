"""A classifier's figures, worked by hand and compared with scikit-learn's."""

import random

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from sklearn.metrics import precision_recall_fscore_support

from grpo_cot.judging.classes import calibration, classification, confusion_matrix
from grpo_cot.statistics import wilson_interval

CLASSES = ["negative", "neutral", "positive"]


def test_figures_worked_by_hand() -> None:
    labels = ["negative"] * 4 + ["neutral"] * 2 + ["positive"] * 4
    verdicts = ["negative"] * 3 + ["positive"] + ["negative", "positive"] + ["positive"] * 4
    figures = classification(labels, verdicts, CLASSES)
    assert figures["confusion"] == [[3, 0, 1], [1, 0, 1], [0, 0, 4]]
    assert figures["accuracy"] == wilson_interval(7, 10)._asdict()
    negative, neutral, positive = (figures["by_class"][label] for label in CLASSES)
    assert negative["precision"]["value"] == negative["recall"]["value"] == negative["f1"] == 0.75
    assert neutral["precision"] is None and neutral["recall"]["value"] == neutral["f1"] == 0
    assert positive["precision"] == wilson_interval(4, 6)._asdict() and positive["f1"] == 0.8
    assert figures["macro_f1"] == pytest.approx((0.75 + 0 + 0.8) / 3)


def test_figures_are_those_of_scikit_learn() -> None:
    rng = random.Random(5)
    labels = rng.choices(CLASSES, (5, 1, 3), k=400)
    verdicts = [label if rng.random() < 0.7 else rng.choice(CLASSES) for label in labels]
    figures = classification(labels, verdicts, CLASSES)
    assert figures["confusion"] == sklearn_confusion_matrix(labels, verdicts, labels=CLASSES).tolist()
    expected = precision_recall_fscore_support(labels, verdicts, labels=CLASSES)
    for position, label in enumerate(CLASSES):
        found = figures["by_class"][label]
        assert [found["precision"]["value"], found["recall"]["value"], found["f1"], found["rows"]] == pytest.approx(
            [column[position] for column in expected]
        )
    assert figures["macro_f1"] == pytest.approx(np.mean(expected[2]))


@pytest.mark.parametrize(
    ("labels", "verdicts"), [(["negative"], ["bad"]), (["negative"], [None]), (["x"], ["neutral"])]
)
def test_a_class_that_there_is_not_is_no_error_of_the_classifier(labels: list[str], verdicts: list[str | None]) -> None:
    with pytest.raises(ValueError, match="expected classes among negative, neutral, positive, found"):
        confusion_matrix(labels, verdicts, CLASSES)
    with pytest.raises(ValueError, match="expected at least one row"):
        classification([], [], CLASSES)


def test_calibration_worked_by_hand() -> None:
    """Two bins, (0, 0.5] and (0.5, 1]: 2 of 5 rows at 0.4 with accuracy 0.5, and 3 at 0.9 with accuracy 2/3."""
    figures = calibration([0.3, 0.5, 0.8, 0.9, 1.0], [True, False, True, False, True], bins=2)
    assert figures["error"] == pytest.approx(2 / 5 * abs(0.5 - 0.4) + 3 / 5 * abs(2 / 3 - 0.9))
    low, high = figures["points"]
    assert (low["low"], low["high"], low["n"], low["confidence"]) == (0, 0.5, 2, pytest.approx(0.4))
    assert high["accuracy"] == wilson_interval(2, 3)._asdict()


def test_an_edge_belongs_to_the_bin_below_it_and_empty_bins_are_no_points() -> None:
    points = calibration([0.0, 0.5, 0.500001, 1.0], [True] * 4, bins=4)["points"]
    assert [(point["low"], point["n"]) for point in points] == [(0, 1), (0.25, 1), (0.5, 1), (0.75, 1)]
    assert len(calibration([0.99] * 20, [True] * 20)["points"]) == 1


def test_a_classifier_that_knows_how_often_it_is_right_has_a_small_error() -> None:
    rng = np.random.default_rng(5)
    confidences = rng.uniform(1 / 3, 1, 20_000)
    honest = calibration(confidences, rng.random(20_000) < confidences)
    boasting = calibration(np.sqrt(confidences), rng.random(20_000) < confidences)
    assert honest["error"] < 0.02
    assert boasting["error"] == pytest.approx(float(np.mean(np.sqrt(confidences) - confidences)), abs=0.02)


@pytest.mark.parametrize("confidences", [[], [1.1], [-0.1], [float("nan")]])
def test_what_is_no_confidence_is_refused(confidences: list[float]) -> None:
    with pytest.raises(ValueError, match=r"a confidence within 0..1"):
        calibration(confidences, [True] * len(confidences))
