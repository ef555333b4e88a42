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
    paired = run["metrics"]["paired"]
    shown = [
        f"{reader} accuracy {run['metrics']['base'][key]['value']:.1%} -> {run['metrics']['trained'][key]['value']:.1%} "
        f"({100 * paired[key]['difference']:+.1f} points [{100 * paired[key]['low']:+.1f}, {100 * paired[key]['high']:+.1f}])"
        for reader, key in (("strict", "strict_accuracy"), ("lenient", "lenient_accuracy"))
    ]
    print(f"{run['name']} (n = {run['metrics']['n']}): {'; '.join(shown)}")
print(f"{len(runs)} runs, {len(comparisons)} comparisons: file://{page}")
