"""Each generated sentence, with figures for each of its outcomes."""

from typing import Any

import pytest
from graded import metrics, preference_metrics, text_metrics

from grpo_cot.reporting.sentences import (
    against_best_prompt,
    length_verdict,
    outcome,
    reading,
    relation,
    sampling_noise,
    verdict,
)

ROSE = {"difference": 0.12, "low": 0.06, "high": 0.18, "p": 0.0004, "detectable": 0.08}
FELL = {"difference": -0.12, "low": -0.18, "high": -0.06, "p": 0.0004, "detectable": 0.08}
NEITHER = {"difference": 0.02, "low": -0.04, "high": 0.08, "p": 0.61, "detectable": 0.08}


def measured(strict: dict[str, Any], lenient: dict[str, Any]) -> dict[str, Any]:
    figures = metrics(0.2, 0.2 + strict["difference"])
    return figures | {"paired": {"strict_accuracy": strict, "lenient_accuracy": lenient}}


def test_an_outcome_needs_the_interval_and_the_test() -> None:
    assert [outcome(difference) for difference in (ROSE, FELL, NEITHER)] == ["gained", "lost", "no difference shown"]
    assert outcome({**ROSE, "p": 0.05}) == "no difference shown"
    assert outcome({**ROSE, "low": 0.0}) == "no difference shown"
    assert outcome({**FELL, "high": 0.0}) == "no difference shown"


def test_the_verdict_says_from_where_to_where_and_how_sure() -> None:
    assert verdict(measured(ROSE, ROSE)) == {
        "outcome": "gained",
        "sentence": "Training raised strict accuracy from 20.0 % to 32.0 % on 500 held-out problems: +12.0 points "
        "[+6.0, +18.0], p < 0.001.",
    }
    assert verdict(measured(FELL, ROSE)) == {
        "outcome": "lost",
        "sentence": "Training lowered strict accuracy from 20.0 % to 8.0 % on 500 held-out problems: -12.0 points "
        "[-18.0, -6.0], p < 0.001.",
    }


def test_without_a_difference_the_verdict_says_what_would_have_been_found() -> None:
    said = verdict(measured(NEITHER, ROSE))
    assert said["outcome"] == "no difference shown"
    assert said["sentence"] == (
        "No difference is shown in strict accuracy: 20.0 % before, 22.0 % after on 500 held-out problems, +2.0 points "
        "[-4.0, +8.0], p = 0.610. A true difference of 8.0 points would have been found four times in five."
    )
    assert verdict(measured({**NEITHER, "detectable": None}, ROSE))["sentence"].endswith("p = 0.610.")


def test_the_verdict_names_what_pairs_and_texts_are_known_by() -> None:
    assert "raised the share of pairs ranked right from 40.0 %" in verdict(preference_metrics(0.4, 0.9))["sentence"]
    said = verdict(text_metrics(0.2, 0.6))["sentence"]
    assert "the share judged negative by the independent judge" in said and "500 held-out texts" in said


@pytest.mark.parametrize(
    ("strict", "lenient", "expected"),
    [
        (ROSE, ROSE, "Lenient accuracy rose as well: +12.0 points [+6.0, +18.0], p < 0.001. The gain is more than one"),
        (
            ROSE,
            NEITHER,
            "Lenient accuracy shows no difference: +2.0 points [-4.0, +8.0], p = 0.610. What was gained is",
        ),
        (ROSE, FELL, "Lenient accuracy fell: -12.0 points [-18.0, -6.0], p < 0.001. More answers stand in the schema"),
        (NEITHER, ROSE, "More answers are right, but no more of them stand in the schema."),
        (NEITHER, NEITHER, "Nor does lenient accuracy show one: +2.0 points"),
        (NEITHER, FELL, "p < 0.001. Fewer answers are right."),
        (FELL, ROSE, "More answers are right, and fewer stand in the schema."),
        (FELL, NEITHER, "What was lost is the format"),
        (FELL, FELL, "Lenient accuracy fell as well: -12.0 points [-18.0, -6.0], p < 0.001. The loss is more than one"),
    ],
)
def test_the_reading_tells_format_from_answers(strict: dict[str, Any], lenient: dict[str, Any], expected: str) -> None:
    said = reading(measured(strict, lenient))
    assert said and expected in said


def test_pairs_have_no_reading() -> None:
    assert reading(preference_metrics(0.4, 0.9)) is None


LONGER = {"value": 0.62, "low": 0.55, "high": 0.69, "pairs": 900}
SHORTER = {"value": 0.31, "low": 0.27, "high": 0.35, "pairs": 900}
EITHER = {"value": 0.52, "low": 0.47, "high": 0.57, "pairs": 900}


def test_a_relation_of_length_is_decided_by_its_interval() -> None:
    figures = (LONGER, SHORTER, EITHER, None, {"value": 1.0, "low": None, "high": None, "pairs": 1})
    expected = ["longer", "shorter", "unrelated", "not measured", "unrelated"]
    assert [relation(figure) for figure in figures] == expected
    assert relation({**LONGER, "low": 0.5}) == relation({**SHORTER, "high": 0.5}) == "unrelated"


@pytest.mark.parametrize(
    ("pooled", "within", "expected"),
    [
        (SHORTER, LONGER, "Among problems of one difficulty longer completions are more often right."),
        (LONGER, SHORTER, "Among problems of one difficulty shorter completions are more often right."),
        (
            SHORTER,
            EITHER,
            "Among problems of one difficulty no relation of length and correctness is shown. The relation over all "
            "problems may then be one of difficulty.",
        ),
        (EITHER, EITHER, "Among problems of one difficulty no relation of length and correctness is shown."),
        (LONGER, None, "Problems of one difficulty could not be compared."),
    ],
)
def test_length_is_judged_within_a_difficulty(
    pooled: dict[str, float], within: dict[str, float] | None, expected: str
) -> None:
    said = length_verdict("After training", {"pooled": pooled, "within": within})
    share = f"{100 * pooled['value']:.1f} % [{100 * pooled['low']:.1f}, {100 * pooled['high']:.1f}]"
    assert said.startswith(
        f"After training, of a right and a wrong completion the right one is longer in {share} of pair"
    )
    assert said.endswith(expected)
    assert ("of pairs of one difficulty" in said) == (within is not None)


def test_length_without_pairs_is_not_judged() -> None:
    said = length_verdict("After training", {"pooled": None, "within": None})
    assert said == "After training, no right and wrong completion could be compared in length."


def test_pairs_that_are_all_alike_have_no_interval() -> None:
    alike = {"value": 1.0, "low": None, "high": None, "pairs": 1}
    said = length_verdict("After training", {"pooled": alike, "within": alike})
    assert "longer in 100.0 % (no interval) of pairs, and in 100.0 % (no interval)" in said
    assert "no relation of length and correctness is shown" in said


@pytest.mark.parametrize(
    ("lenient", "expected"),
    [
        (ROSE, "The trained model is above that: lenient +12.0 points [+6.0, +18.0], p < 0.001; strict +2.0 points"),
        (FELL, "The trained model is below that: lenient -12.0 points"),
        (NEITHER, "No difference from that is shown in the trained model: lenient +2.0 points [-4.0, +8.0], p = 0.610"),
    ],
)
def test_a_gain_that_a_prompt_alone_would_bring_is_said(lenient: dict[str, Any], expected: str) -> None:
    best = {
        "tried": ["test", "test-with-0", "test-with-nothing"],
        "strict_accuracy": {"set": "test", "base": {"value": 0.2}, "difference": NEITHER},
        "lenient_accuracy": {"set": "test-with-nothing", "base": {"value": 0.4}, "difference": lenient},
    }
    said = against_best_prompt(metrics(0.2, 0.3) | {"best_prompt": best})
    assert said and expected in said
    assert said.startswith(
        "At the best of 3 prompts the base has 20.0 % strict at the prompt of the training and 40.0 % lenient as "
        "test-with-nothing. "
    )
    after = against_best_prompt(metrics(0.2, 0.3) | {"best_prompt": best, "before": "01-sft"})
    assert after and after.startswith("At the best of 3 prompts the model after 01-sft has")


def test_one_prompt_is_no_choice() -> None:
    assert against_best_prompt(metrics(0.2, 0.3) | {"best_prompt": None}) is None


def test_the_noise_of_a_drawn_answer_is_said_where_samples_were_drawn() -> None:
    figures = metrics(0.2, 0.6)
    assert sampling_noise(figures) is None
    figures["base"]["noise"] = {"data": 0.031, "prediction": 0.012}
    figures["trained"]["noise"] = {"data": 0.02, "prediction": 0.004}
    assert sampling_noise(figures) == (
        "One drawn answer to each of these problems gives an accuracy with a standard error of: "
        "base 3.1 points from the choice of problems and 1.2 from chance; "
        "trained 2.0 points from the choice of problems and 0.4 from chance."
    )
