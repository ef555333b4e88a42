"""A study's published claims, each beside what its logs show and what our runs decide."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_cot.common.files import read_yaml
from grpo_cot.reporting.tables import Result, over_seeds

CLAIMS = Path(__file__).with_name("claims.yaml")
# A measure's name in a sentence, the factor and the unit of its differences, and the words for more and for less.
MEASURES = {
    "strict_accuracy": ("strict accuracy", 100, "points", "higher", "lower"),
    "format_adherence": ("format adherence", 100, "points", "higher", "lower"),
    "completion_tokens": ("mean completion", 1, "tokens", "longer", "shorter"),
    "longer_is_right": ("share of pairs whose right completion is the longer one", 100, "points", "above", "below"),
}  # fmt: skip


def claims(results: Sequence[Result], comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each claim of claims.yaml, once for every family of recipes that has runs of its arms, or once as not run.

    Each with `question`, `published`, `log`, `measure`, `recipes` (those it is decided on), `outcome` (holds,
    contradicted, undecided, not run), `sentence`, and `figure`: `over_seeds` of the claim's difference, with `seeds`.
    With one seed the interval is the comparison's own, over problems.
    """
    entries = []
    for claim in read_yaml(CLAIMS)["claims"]:
        measured = _of_arm(claim, results) if "arm" in claim else _of_arms(claim, results, comparisons)
        shared = {key: claim[key] for key in ("question", "published", "log", "measure")}
        for recipes, figures in sorted(measured.items()):
            figure = _together(figures)
            outcome = _outcome(claim["claimed"], figure)
            sentence = _sentence(claim, recipes, figure, outcome)
            entries.append({**shared, "recipes": recipes, "outcome": outcome, "sentence": sentence, "figure": figure})
        if not measured:
            entries.append(
                {**shared, "recipes": (), "outcome": "not run", "sentence": "No run decides this yet.", "figure": None}
            )
    return entries


def _of_arms(
    claim: Mapping[str, Any], results: Sequence[Result], comparisons: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, ...], dict[int, Mapping[str, Any]]]:
    """By the recipes of both arms, which have one family, data set and base: of each seed the comparison's figure."""
    lines = {result.name: result.line for result in results}
    found: dict[tuple[str, ...], dict[int, Mapping[str, Any]]] = {}
    for comparison in comparisons:
        a, b = lines.get(comparison["a"]), lines.get(comparison["b"])
        if a is None or b is None or (a.dataset, a.base, a.seed) != (b.dataset, b.base, b.seed):
            continue
        families = [_family(line.recipe, claim[side]) for line, side in ((a, "a"), (b, "b"))]
        if families[0] is not None and families[0] == families[1] and comparison.get(claim["measure"]):
            found.setdefault((a.recipe, b.recipe), {}).setdefault(a.seed, comparison[claim["measure"]])
    return found


def _of_arm(claim: Mapping[str, Any], results: Sequence[Result]) -> dict[tuple[str, ...], dict[int, Mapping[str, Any]]]:
    """By the arm's recipe: of each seed the figure of its trained model."""
    found: dict[tuple[str, ...], dict[int, Mapping[str, Any]]] = {}
    for result in results:
        if result.line is None or _family(result.line.recipe, claim["arm"]) is None:
            continue
        if figure := _own_figure(claim["measure"], result.metrics):
            found.setdefault((result.line.recipe,), {}).setdefault(result.line.seed, figure)
    return found


def _own_figure(measure: str, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """A trained model's figure as a difference: from one half, or from the base's."""
    if measure == "longer_is_right":
        within = (metrics.get("length_and_accuracy") or {}).get("trained", {}).get("within")
        if within is None:
            return None
        ends = {end: None if within[end] is None else within[end] - 0.5 for end in ("low", "high")}
        return {"difference": within["value"] - 0.5, **ends}
    base, trained = (metrics[model].get(measure) for model in ("base", "trained"))
    if base is None or trained is None:
        return None
    # The shares' own intervals bound the difference's from outside where there is one seed alone.
    return {
        "difference": trained["value"] - base["value"], "low": trained["low"] - base["high"],
        "high": trained["high"] - base["low"],
    }  # fmt: skip


def _family(recipe: str, arm: str) -> str | None:
    """What stands before the arm in the recipe's name; None where it is no recipe of the arm.

    >>> _family("tiny-length-cosine", "length-cosine"), _family("length-cosine", "length-cosine")
    ('tiny', '')
    >>> _family("length-cosine-g6", "length-cosine")
    """
    if recipe == arm:
        return ""
    return recipe.removesuffix(f"-{arm}") if recipe.endswith(f"-{arm}") else None


def _together(figures: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    if len(figures) > 1:
        return {**over_seeds([figure["difference"] for figure in figures.values()]), "seeds": sorted(figures)}
    [(seed, figure)] = figures.items()
    return {"value": figure["difference"], "low": figure["low"], "high": figure["high"], "seeds": [seed]}


def _outcome(claimed: str, figure: Mapping[str, Any]) -> str:
    if figure["low"] is None or figure["low"] <= 0 <= figure["high"]:
        return "undecided"
    return "holds" if (figure["low"] > 0) == (claimed == "higher") else "contradicted"


def _sentence(claim: Mapping[str, Any], recipes: Sequence[str], figure: Mapping[str, Any], outcome: str) -> str:
    """The decision in words; every number is the figure's."""
    name, factor, unit, more, less = MEASURES[claim["measure"]]
    value = figure["value"] * factor
    interval = "no interval: the seeds do not differ"
    if figure["low"] is not None:
        interval = f"95 % interval {factor * figure['low']:+.1f} to {factor * figure['high']:+.1f}"
    seeds = f"{len(figure['seeds'])} seeds" if len(figure["seeds"]) > 1 else "one seed"
    size = f"{abs(value):.1f} {unit} {more if value >= 0 else less}"
    if "arm" not in claim:
        said = f"with {recipes[1]} the {name} is {size} than with {recipes[0]}"
    elif claim["measure"] == "longer_is_right":
        said = f"after {recipes[0]} the {name} is {size} one half"
    else:
        said = f"after {recipes[0]} the {name} is {size} than before"
    undecided = "That decides nothing."
    if figure["low"] is not None:
        most = factor * max(-figure["low"], figure["high"])
        undecided = f"The interval includes no difference, and excludes more than {most:.1f} {unit} either way."
    ends = {
        "holds": "The claim holds here.", "contradicted": "The claim is contradicted here.", "undecided": undecided,
    }[outcome]  # fmt: skip
    return f"Over {seeds}, {said} ({interval}). {ends}"
