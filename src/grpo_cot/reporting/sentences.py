"""Sentences on a run's figures. Which of its outcomes a sentence has is decided by an interval and a p value."""

from collections.abc import Mapping
from typing import Any

from grpo_cot.reporting.headlines import compared, headlines

GAINED, LOST, UNSHOWN = "gained", "lost", "no difference shown"
LEVEL = 0.05

# By the outcomes of strict and of lenient accuracy: whether the schema or the answers changed.
_READINGS = {
    (GAINED, GAINED): "Lenient accuracy rose as well: {}. The gain is more than one of format.",
    (GAINED, UNSHOWN): "Lenient accuracy shows no difference: {}. What was gained is the format, as far as these "
    "problems tell.",
    (GAINED, LOST): "Lenient accuracy fell: {}. More answers stand in the schema, and fewer answers are right.",
    (UNSHOWN, GAINED): "Lenient accuracy rose: {}. More answers are right, but no more of them stand in the schema.",
    (UNSHOWN, UNSHOWN): "Nor does lenient accuracy show one: {}.",
    (UNSHOWN, LOST): "Lenient accuracy fell: {}. Fewer answers are right.",
    (LOST, GAINED): "Lenient accuracy rose: {}. More answers are right, and fewer stand in the schema.",
    (LOST, UNSHOWN): "Lenient accuracy shows no difference: {}. What was lost is the format, as far as these problems "
    "tell.",
    (LOST, LOST): "Lenient accuracy fell as well: {}. The loss is more than one of format.",
}
LONGER, SHORTER, UNRELATED, UNMEASURED = "longer", "shorter", "unrelated", "not measured"
# By how the right ones differ in length among problems of one difficulty.
_WITHIN = {
    LONGER: "Among problems of one difficulty longer completions are more often right.",
    SHORTER: "Among problems of one difficulty shorter completions are more often right.",
    UNRELATED: "Among problems of one difficulty no relation of length and correctness is shown.",
    UNMEASURED: "Problems of one difficulty could not be compared.",
}
_CONFOUNDED = " The relation over all problems may then be one of difficulty."


def probability(p: float) -> str:
    """A p value as it is printed: `= 0.031`, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def points(difference: Mapping[str, float]) -> str:
    """A paired difference of shares, as it is printed."""
    return (
        f"{100 * difference['difference']:+.1f} points [{100 * difference['low']:+.1f}, "
        f"{100 * difference['high']:+.1f}], p {probability(difference['p'])}"
    )


def outcome(difference: Mapping[str, float]) -> str:
    """`gained` or `lost` where a paired difference's interval excludes 0 and its test rejects it; both must, because
    they are different methods and may disagree. Else `no difference shown`."""
    if difference["p"] >= LEVEL or difference["low"] <= 0 <= difference["high"]:
        return UNSHOWN
    return GAINED if difference["difference"] > 0 else LOST


def verdict(metrics: Mapping[str, Any]) -> dict[str, str]:
    """`outcome` and `sentence` on the accuracy that a run is known by: whether training raised it."""
    headline = headlines(metrics)[0]
    difference = headline["difference"]
    decided = outcome(difference)
    subject, problems = _subject(headline), "texts" if "texts" in metrics else "problems"
    before, after = (f"{100 * headline[model]['value']:.1f} %" for model in ("base", "trained"))
    on = f"on {metrics['n']} held-out {problems}"
    if decided != UNSHOWN:
        verb = "raised" if decided == GAINED else "lowered"
        sentence = f"Training {verb} {subject} from {before} to {after} {on}: {points(difference)}."
    else:
        sentence = f"No difference is shown in {subject}: {before} before, {after} after {on}, {points(difference)}."
        if difference["detectable"] is not None:
            least = f"{100 * difference['detectable']:.1f} points"
            sentence += f" A true difference of {least} would have been found four times in five."
    return {"outcome": decided, "sentence": sentence}


def _subject(headline: Mapping[str, Any]) -> str:
    key, label = headline["key"], str(headline["label"])
    if key in ("strict_accuracy", "lenient_accuracy"):
        return label
    return f"the share of {label}" if key == "pair_accuracy" else f"the share {label}"


def reading(metrics: Mapping[str, Any]) -> str | None:
    """Whether a change is one of format or of answers, by strict and lenient accuracy; None where there are none."""
    paired = metrics["paired"]
    if "lenient_accuracy" not in paired:
        return None
    outcomes = (outcome(paired["strict_accuracy"]), outcome(paired["lenient_accuracy"]))
    return _READINGS[outcomes].format(points(paired["lenient_accuracy"]))


def against_best_prompt(metrics: Mapping[str, Any]) -> str | None:
    """Whether the trained model is above the base at the base's own best prompt; None where one prompt was asked."""
    best = metrics["best_prompt"]
    if best is None:
        return None
    before = "base" if metrics["before"] is None else f"model after {metrics['before']}"
    strict, lenient = best["strict_accuracy"], best["lenient_accuracy"]
    place = {metrics["set"]: "at the prompt of the training"}
    parts = [
        f"{100 * figures['base']['value']:.1f} % {reader} {place.get(figures['set'], 'as ' + figures['set'])}"
        for reader, figures in (("strict", strict), ("lenient", lenient))
    ]
    decided = outcome(lenient["difference"])
    said = {
        GAINED: "The trained model is above that", LOST: "The trained model is below that",
        UNSHOWN: "No difference from that is shown in the trained model",
    }[decided]  # fmt: skip
    return (
        f"At the best of {len(best['tried'])} prompts the {before} has {parts[0]} and {parts[1]}. {said}: lenient "
        f"{points(lenient['difference'])}; strict {points(strict['difference'])}."
    )


def sampling_noise(metrics: Mapping[str, Any]) -> str | None:
    """Where the uncertainty of an accuracy of sampled answers comes from; None where no samples were drawn."""
    parts = [
        f"{name} {100 * noise['data']:.1f} points from the choice of problems and {100 * noise['prediction']:.1f} from "
        "chance"
        for name, model in ((compared(metrics), "base"), ("trained", "trained"))
        if (noise := metrics[model]["noise"])
    ]
    if not parts:
        return None
    return f"One drawn answer to each of these problems gives an accuracy with a standard error of: {'; '.join(parts)}."


def relation(figure: Mapping[str, float] | None) -> str:
    """How right completions differ from wrong ones in length, by the share of pairs in which the right one is longer:
    `longer`, `shorter` or `unrelated` as its interval lies above, below or around a half; `not measured` without pairs.
    Where there is no interval nothing is shown.
    """
    if figure is None:
        return UNMEASURED
    if figure["low"] is None or figure["low"] <= 0.5 <= figure["high"]:
        return UNRELATED
    return LONGER if figure["value"] > 0.5 else SHORTER


def length_verdict(when: str, figures: Mapping[str, Any]) -> str:
    """How length goes with correctness `when` (before or after training): over all problems, and within a difficulty.

    `figures` is a model's part of `length_and_accuracy`.
    """
    pooled, within = figures["pooled"], figures["within"]
    if relation(pooled) == UNMEASURED:
        return f"{when}, no right and wrong completion could be compared in length."
    sentence = f"{when}, of a right and a wrong completion the right one is longer in {with_interval(pooled)} of pairs"
    if relation(within) != UNMEASURED:
        sentence += f", and in {with_interval(within)} of pairs of one difficulty"
    sentence += f". {_WITHIN[relation(within)]}"
    if relation(within) == UNRELATED and relation(pooled) != UNRELATED:
        sentence += _CONFOUNDED
    return sentence


def with_interval(figure: Mapping[str, float]) -> str:
    """A share with its interval, as it is printed."""
    if figure["low"] is None:
        return f"{100 * figure['value']:.1f} % (no interval)"
    return f"{100 * figure['value']:.1f} % [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"
