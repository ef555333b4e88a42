"""Accuracy and margin of pairs, worked by hand."""

import numpy as np
import pytest

from grpo_cot.judging.pairs import pair_changes, pair_figures
from grpo_cot.statistics import bootstrap_interval, mcnemar, wilson_interval


def test_accuracy_and_margin_worked_by_hand() -> None:
    figures = pair_figures([2.0, 1.0, 0.5, 3.0], [1.0, 1.0, 1.5, 0.0])
    assert figures["accuracy"] == wilson_interval(2, 4)._asdict()  # a tie counts against it
    assert figures["margin"] == bootstrap_interval(np.mean, [1.0, 0.0, -1.0, 3.0])._asdict()
    assert figures["margin"]["value"] == 0.75 and figures["ties"] == 1 and figures["n"] == 4


def test_changes_are_paired() -> None:
    rng = np.random.default_rng(3)
    rejected = rng.normal(size=200)
    before, after = (rejected + rng.normal(shift, 1, size=200) for shift in (0, 1))
    found = pair_changes((before, rejected), (after, rejected))
    expected = mcnemar((before > rejected).tolist(), (after > rejected).tolist())
    assert found["accuracy"]["difference"] == expected.difference > 0.2
    assert found["accuracy"]["p"] == expected.p < 0.001
    assert found["margin"]["value"] == pytest.approx(float(np.mean(after - before)))
    assert found["margin"]["low"] > 0


@pytest.mark.parametrize(
    ("chosen", "rejected", "says"),
    [
        ([], [], "at least one pair, found 0 and 0"),
        ([1.0], [1.0, 2.0], "found 1 and 2"),
        ([float("nan")], [1.0], "a score is not a finite number"),
        ([1.0], [float("-inf")], "a score is not a finite number"),
    ],
)
def test_scores_that_are_none_are_refused(chosen: list[float], rejected: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pair_figures(chosen, rejected)


def test_other_pairs_are_no_change() -> None:
    with pytest.raises(ValueError, match="expected the same pairs, found 1 before and 2 after"):
        pair_changes(([1.0], [0.0]), ([1.0, 2.0], [0.0, 0.0]))
