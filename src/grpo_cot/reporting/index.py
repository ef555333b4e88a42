"""The index page over all runs and comparisons that are present, and a line on each."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_cot.common.files import read_json
from grpo_cot.params import load_params
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.reporting import bands, tables
from grpo_cot.reporting.headlines import compared, comparison_headlines, headlines
from grpo_cot.reporting.pages import environment
from grpo_cot.reporting.sentences import outcome
from grpo_cot.reporting.tables import Result
from grpo_cot.statistics import in_points


def graded_runs(root: Path) -> list[Result]:
    """Every run that has been graded, by name."""
    lines = load_params(root / "params.yaml", root).runs
    results = []
    for path in sorted(root.glob("runs/*/grade/metrics.json")):
        name, metrics = path.parts[-3], read_json(path)
        line = lines.get(name)
        recipe = root / f"experiments/{line.recipe}.yaml" if line else None
        row = load_recipe(recipe).published_row if recipe else None
        source = root / f"data/{line.dataset}.source.json" if line else None
        identifier = tables.source_id(read_json(source), metrics["set"]) if source and source.is_file() else None
        has_report = (root / f"runs/{name}/report.html").is_file()
        results.append(Result(name, line, row, identifier, metrics, has_report, _heading(recipe) if recipe else ""))
    return results


def _heading(recipe: Path) -> str:
    """The comment that a recipe begins with, as one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), recipe.read_text(encoding="utf-8").splitlines())
    return " ".join(" ".join(line.lstrip("#") for line in lines).replace("`", "").split())


def read_comparisons(root: Path) -> list[dict[str, Any]]:
    """Every comparison, by name."""
    return [{"name": path.stem, **read_json(path)} for path in sorted(root.glob("comparisons/*.json"))]


def index_page(
    results: Sequence[Result], comparisons: Sequence[Mapping[str, Any]], curves: Sequence[Mapping[str, Any]],
    claims: Sequence[Mapping[str, Any]], experiments: Sequence[Mapping[str, Any]] = (),
) -> str:  # fmt: skip
    """The page. `curves` are `bands` of these runs, `claims` those of `grpo_cot.reporting.claims`, `experiments` what
    `workflow/experiments.py` finds.

    The claims of a study stand on it, with the study's own curves, once a run decides one of them.
    """
    published = tables.published_results()
    if all(claim["outcome"] == "not run" for claim in claims):
        claims = []
    pictures = bands.claim_pictures(claims)
    claims = [{**claim, "picture": picture} for claim, picture in zip(claims, pictures, strict=True)]
    study = bands.published_pictures() if claims else []
    return environment().get_template("index.html.jinja").render(
        results=results, published=published, comparisons=comparisons, claims=claims, study=study,
        experiments=experiments,
        curves=[{**part, "pictures": bands.band_pictures(part)} for part in curves],
        headlines=headlines, comparison_headlines=comparison_headlines, compared=compared,
        outcome=outcome,
        # A newcomer, whose runs are no rows of the published tables, gets no empty tables.
        tables=tables.published_tables(results, published) if any(result.published_row for result in results) else [],
        wrong=tables.wrong_by_mark(published), replications=tables.replications(results),
        ablation=tables.ablation(results), ablated=tables.ABLATED,
        aggregated=tables.comparisons_over_seeds(comparisons, results),
    )  # fmt: skip


def summary(results: Sequence[Result], comparisons: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each accuracy of a run, one a comparison, and their warnings."""
    for result in results:
        metrics = result.metrics
        before_what = f" ({compared(metrics)})" if metrics.get("before") else ""
        for headline in headlines(metrics):
            before, after = (headline[model]["value"] for model in ("base", "trained"))
            yield (
                f"{result.name}: {headline['label']} {before:.1%}{before_what} -> {after:.1%}, difference "
                f"{in_points(headline['difference'])} (n = {metrics['n']}, paired, 95 % interval)"
            )
        yield from (f"{result.name}: WARNING: {warning}" for warning in metrics["warnings"])
    for comparison in comparisons:
        first = comparison_headlines(comparison)[0]
        yield (
            f"{comparison['name']}: {first['label']} of {comparison['b']} minus {comparison['a']}: "
            f"{in_points(first)} (n = {comparison['n']}, paired, 95 % interval)"
        )
        yield from (f"{comparison['name']}: WARNING: {warning}" for warning in comparison["warnings"])
