"""Tables over all runs: ours beside the published figures, several seeds together, and comparisons.

Everything here comes from the runs' metrics.json and the comparisons' files. Only the figures over several seeds are
computed here.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml
from grpo_cot.params import Run
from grpo_cot.reporting.headlines import ACCURACIES, named
from grpo_cot.statistics import t_interval

PUBLISHED = Path(__file__).with_name("published_results.yaml")
MODELS = ("base", "trained")
# Measures of the ablation table: their labels, factors and units.
ABLATED = {
    "strict_accuracy": (ACCURACIES["strict_accuracy"], 100, " %"),
    "lenient_accuracy": (ACCURACIES["lenient_accuracy"], 100, " %"),
    "sound_accuracy": ("strict, every line true", 100, " %"),
    "pass_at.8": ("pass@8", 100, " %"),
    "format_adherence": ("format adherence", 100, " %"),
    "completion_tokens": ("completion, tokens (mean)", 1, ""),
}


@dataclass(frozen=True)
class Result:
    """A graded run: its line of params.yaml (None where it has none any more), and its metrics.

    `published_row` is its recipe's, `dataset_id` where the main evaluation set comes from (None: not from the Hub).
    `has_report`: its own page is there. `about`: the words at the head of its recipe.
    """

    name: str
    line: Run | None
    published_row: str | None
    dataset_id: str | None
    metrics: Mapping[str, Any]
    has_report: bool = False
    about: str = ""


def published_results() -> Mapping[str, Any]:
    """The published tables, with the faults of their figures' measurement."""
    results: Mapping[str, Any] = read_yaml(PUBLISHED)
    return results


def published_tables(results: Sequence[Result], published: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each published table, every row with the runs that stand beside it, then our other runs on final answers.

    A cell holds a `figure` ({value} with low and high where there is an interval; None: not measured) and `marks`, the
    letters of the faults of its measurement (`wrong_by_mark`); a published cell is None where nothing was published.

    Raises:
        InputError: a recipe names a row that the published tables do not have.
    """
    for result in results:
        if result.published_row is not None and result.published_row not in published["rows"]:
            raise InputError(
                f"run {result.name}: its recipe's published_row is {result.published_row!r}, expected null or one of: "
                f"{', '.join(published['rows'])}"
            )
    return [
        {
            "title": table["title"], "columns": table["columns"],
            "rows": [
                {
                    "model": row["model"],
                    "ours": [_ours(result, table, published) for result in results if result.published_row == name],
                    "published": [_published_cell(published, name, column) for column in table["columns"]],
                }
                for name, row in published["rows"].items()
            ],
            "others": [
                _ours(result, table, published)
                for result in results
                if result.published_row is None and "strict_accuracy" in result.metrics["paired"]
            ],
        }
        for table in published["tables"]
    ]  # fmt: skip


def wrong_by_mark(published: Mapping[str, Any]) -> dict[str, str]:
    """The faults of the published figures' measurement, by the letter that marks these figures."""
    return {letter: entry["text"] for letter, entry in zip(string.ascii_lowercase, published["wrong"], strict=False)}


def _published_cell(published: Mapping[str, Any], row: str, column: str) -> dict[str, Any] | None:
    figures = published["rows"][row]["figures"]
    if column not in figures:
        return None
    marks = [
        letter
        for letter, entry in zip(string.ascii_lowercase, published["wrong"], strict=False)
        if (entry["columns"] is None or column in entry["columns"]) and (entry["rows"] is None or row in entry["rows"])
    ]
    return {"figure": figures[column], "marks": marks}


def _ours(result: Result, table: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": result.name, "has_report": result.has_report, "line": result.line,
        "set": result.metrics["set"], "n": result.metrics["n"],
        "other_data": result.dataset_id != published["dataset"],
        "figures": [result.metrics["trained"].get(column) for column in table["columns"]],
    }  # fmt: skip


def by_recipe(results: Sequence[Result]) -> dict[tuple[str, str, str], dict[int, Result]]:
    """The runs of each recipe, data set and base, by their seeds in order."""
    groups: dict[tuple[str, str, str], dict[int, Result]] = {}
    for result in results:
        if result.line is not None:
            key = (result.line.recipe, result.line.dataset, result.line.base)
            groups.setdefault(key, {}).setdefault(result.line.seed, result)
    return {key: dict(sorted(runs.items())) for key, runs in groups.items()}


def replications(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Runs of one recipe, data set and base with different seeds, together.

    Each with `seeds`, `n` (problems) and `figures`: for every accuracy that all of them have, its `label` and
    `over_seeds` of the `base`, of the `trained` model and of their `difference`.
    """
    groups = {key: (list(seeds), list(seeds.values())) for key, seeds in by_recipe(results).items() if len(seeds) > 1}
    return [
        {
            "recipe": recipe, "dataset": dataset, "base": base, "seeds": seeds,
            "n": sorted({run.metrics["n"] for run in runs}),
            "figures": {
                accuracy: {
                    "label": label,
                    **{
                        model: over_seeds([run.metrics[model][accuracy]["value"] for run in runs])
                        for model in ("base", "trained")
                    },
                    "difference": own_difference(runs, accuracy),
                }
                for accuracy, label in _in_common([run.metrics for run in runs]).items()
            },
        }
        for (recipe, dataset, base), (seeds, runs) in groups.items()
    ]  # fmt: skip


def ablation(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The recipes that were run on one data set and base side by side, where there are two or more with final answers.

    Each table has `dataset`, `base` and `rows`, the best strict accuracy first: `recipe`, the words `about` it,
    `seeds`, `n` (problems), and for each of ABLATED `over_seeds` of the `base` and of the `trained` model, None where a
    run did not measure it.
    """
    compared: dict[tuple[str, str], list[dict[str, Any]]] = {}
    about = {result.line.recipe: result.about for result in results if result.line}
    for (recipe, dataset, base), seeds in by_recipe(results).items():
        runs = [run.metrics for run in seeds.values()]
        if all("strict_accuracy" in metrics["paired"] for metrics in runs):
            figures = {measure: {model: _over_runs(model, measure, runs) for model in MODELS} for measure in ABLATED}
            row = {
                "recipe": recipe, "about": about[recipe], "seeds": list(seeds),
                "n": sorted({metrics["n"] for metrics in runs}), "figures": figures,
            }  # fmt: skip
            compared.setdefault((dataset, base), []).append(row)
    return [
        {
            "dataset": dataset, "base": base,
            "rows": sorted(rows, key=lambda row: -row["figures"]["strict_accuracy"]["trained"]["value"]),
        }
        for (dataset, base), rows in compared.items()
        if len(rows) > 1
    ]  # fmt: skip


def _over_runs(model: str, measure: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A measure's figure over several runs; of a family (`pass_at.8`) the member after the point."""
    family, _, member = measure.partition(".")
    values = [run[model].get(family) for run in runs]
    if member:
        values = [value and value.get(member) for value in values]
    return over_seeds([value["value"] for value in values]) if all(values) else None


def _in_common(figures: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The accuracies that all of these metrics, or all of these comparisons, have, with their labels."""
    return {
        accuracy: named(label, figures[0])
        for accuracy, label in ACCURACIES.items()
        if all(accuracy in entry.get("paired", entry) for entry in figures)
    }


def comparisons_over_seeds(comparisons: Sequence[Mapping[str, Any]], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Comparisons of the same two recipes (on the same data sets and bases) with different seeds, together.

    Each with `figures`: for every accuracy that all of them have, its `label`, `over_seeds` of the paired differences b
    minus a, one a seed, and of each side's difference from its own base, so that a placebo's gain is seen. A comparison
    whose run already stands in its group is left out: it would count that run twice.
    """
    by_name = {result.name: result for result in results}
    groups: dict[tuple[str, ...], list[tuple[Mapping[str, Any], Result, Result]]] = {}
    for comparison in comparisons:
        a, b = by_name.get(comparison["a"]), by_name.get(comparison["b"])
        if a is None or b is None or a.line is None or b.line is None:
            continue
        key = tuple(name for line in (a.line, b.line) for name in (line.recipe, line.dataset, line.base))
        members = groups.setdefault(key, [])
        if all(a.line.seed != _seed(other_a) and b.line.seed != _seed(other_b) for _, other_a, other_b in members):
            members.append((comparison, a, b))
    return [
        {
            "a": key[0], "b": key[3],
            "seeds": [f"{_seed(a)}" if _seed(a) == _seed(b) else f"{_seed(a)} and {_seed(b)}" for _, a, b in members],
            "n": sorted({comparison["n"] for comparison, _, _ in members}),
            "figures": {
                accuracy: {
                    "label": label,
                    "b_minus_a": over_seeds([comparison[accuracy]["difference"] for comparison, _, _ in members]),
                    "a": own_difference([a for _, a, _ in members], accuracy),
                    "b": own_difference([b for _, _, b in members], accuracy),
                }
                for accuracy, label in _in_common([comparison for comparison, _, _ in members]).items()
            },
        }
        for key, members in groups.items()
        if len(members) > 1
    ]  # fmt: skip


def _seed(result: Result) -> int | None:
    return result.line.seed if result.line else None


def own_difference(results: Sequence[Result], accuracy: str) -> dict[str, Any]:
    """`over_seeds` of these runs' differences trained minus base."""
    return over_seeds([result.metrics["paired"][accuracy]["difference"] for result in results])


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """A figure's mean over seeds (`value`), its t interval (95 %) and the two-sided p of its mean being 0.

    With no spread between the seeds a t interval says nothing: `low`, `high` and `p` are None.
    """
    if len(set(values)) == 1:
        return {"value": values[0], "low": None, "high": None, "p": None}
    mean = t_interval(values)
    return {"value": mean.difference, "low": mean.low, "high": mean.high, "p": mean.p}


def source_id(source: Mapping[str, Any], name: str) -> str | None:
    """The Hub id that an evaluation set comes from, by the data set's source record; None where it is not the Hub."""
    identifier: str | None = source["sets"][name]["id"]
    return identifier
