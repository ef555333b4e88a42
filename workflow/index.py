"""`make report`: reports/index.html over all runs and comparisons that are present, Tables I and II first."""

import sys
from pathlib import Path

from grpo_cot.files import InputError, read_json, write_text
from grpo_cot.recipes.recipe import load_params, load_recipe
from grpo_cot.reporting.pages import environment
from grpo_cot.reporting.tables import (
    Result,
    comparisons_over_seeds,
    published_results,
    published_tables,
    replications,
    source_id,
    wrong_by_mark,
)


def graded_runs(root: Path) -> list[Result]:
    """Every run that has been graded, by name."""
    lines = load_params(root / "params.yaml", root).runs
    results = []
    for path in sorted(root.glob("runs/*/grade/metrics.json")):
        name, metrics = path.parts[-3], read_json(path)
        line = lines.get(name)
        row = load_recipe(root / f"experiments/{line.recipe}.yaml").published_row if line else None
        source = root / f"data/{line.dataset}.source.json" if line else None
        results.append(
            Result(
                name, line, row, source_id(read_json(source), metrics["set"]) if source and source.is_file() else None,
                metrics,
            )
        )  # fmt: skip
    return results


def main(root: Path) -> None:
    """Write reports/index.html and print a line a run and comparison."""
    results = graded_runs(root)
    comparisons = [{"name": path.stem, **read_json(path)} for path in sorted(root.glob("comparisons/*.json"))]
    published = published_results()
    page = root / "reports/index.html"
    write_text(
        page,
        environment().get_template("index.html.jinja").render(
            results=results,
            published=published,
            tables=published_tables(results, published),
            wrong=wrong_by_mark(published),
            replications=replications(results),
            comparisons=comparisons,
            aggregated=comparisons_over_seeds(comparisons, results),
        ),
    )  # fmt: skip
    for result in results:
        metrics = result.metrics
        for reader in ("strict_accuracy", "lenient_accuracy"):
            before, after, change = metrics["base"][reader], metrics["trained"][reader], metrics["paired"][reader]
            print(
                f"{result.name}: {reader.replace('_', ' ')} {before['value']:.1%} -> {after['value']:.1%}, difference "
                f"{points(change)} (n = {metrics['n']}, paired, 95 % interval)"
            )
    for comparison in comparisons:
        print(
            f"{comparison['name']}: strict accuracy of {comparison['b']} minus {comparison['a']}: "
            f"{points(comparison['strict_accuracy'])} (n = {comparison['n']}, paired, 95 % interval)"
        )
    print(f"{len(results)} runs, {len(comparisons)} comparisons: file://{page}")


def points(change: dict[str, float]) -> str:
    """A paired difference in percentage points with its interval and p."""
    return (
        f"{100 * change['difference']:+.1f} points [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}], "
        f"p = {change['p']:.2g}"
    )


if __name__ == "__main__":
    try:
        main(Path(__file__).resolve().parent.parent)
    except InputError as error:
        sys.exit(f"index: {error}")
