"""`make report`: reports/index.html over all runs, comparisons and experiments that are present."""

import sys
from pathlib import Path

from experiments import experiments
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import write_text
from grpo_cot.reporting.bands import bands
from grpo_cot.reporting.claims import claims
from grpo_cot.reporting.index import graded_runs, index_page, read_comparisons, summary


def main(root: Path) -> None:
    """Write the page, and print a line a run and comparison."""
    results, comparisons = graded_runs(root), read_comparisons(root)
    page = root / "reports/index.html"
    curves, answers, trials = bands(root, results), claims(results, comparisons), experiments(root)
    write_text(page, index_page(results, comparisons, curves, answers, trials))
    for line in summary(results, comparisons):
        print(line)
    print(f"{len(results)} runs, {len(comparisons)} comparisons: file://{page}")


if __name__ == "__main__":
    try:
        main(Path(__file__).resolve().parent.parent)
    except InputError as error:
        sys.exit(f"index: {error}")
