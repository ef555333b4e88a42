"""`make report`: reports/index.html over all runs and comparisons that are present."""

from pathlib import Path

from grpo_cot.files import read_json, write_text
from grpo_cot.reporting import environment

root = Path(__file__).parent.parent
runs = [{"name": path.parts[-3], "metrics": read_json(path)} for path in sorted(root.glob("runs/*/grade/metrics.json"))]
comparisons = [{"name": path.stem, **read_json(path)} for path in sorted(root.glob("comparisons/*.json"))]
page = root / "reports/index.html"
write_text(page, environment().get_template("index.html.jinja").render(runs=runs, comparisons=comparisons))
for run in runs:
    metrics = run["metrics"]
    for reader in ("strict_accuracy", "lenient_accuracy"):
        before, after, change = metrics["base"][reader], metrics["trained"][reader], metrics["paired"][reader]
        print(
            f"{run['name']}: {reader.replace('_', ' ')} {before['value']:.1%} -> {after['value']:.1%}, difference "
            f"{100 * change['difference']:+.1f} points [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}], "
            f"p = {change['p']:.2g} (n = {metrics['n']}, paired, 95 % interval)"
        )
print(f"{len(runs)} runs, {len(comparisons)} comparisons: file://{page}")
