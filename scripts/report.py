"""Step report: one page that shows what came out, how it got there, and what ran on what."""

import os
from argparse import Namespace
from pathlib import Path

from grpo_cot.common.files import write_text
from grpo_cot.common.step import run
from grpo_cot.reporting.report import report_page


def main(args: Namespace) -> str:
    """report.html."""
    commit = os.environ.get("GRPO_COT_COMMIT")  # docker/run knows it
    write_text(args.output, report_page(args.run, args.name, args.recipe, args.source, commit))
    return f"file://{args.output.resolve()}"


if __name__ == "__main__":
    run(main, __doc__, run=Path, name=str, recipe=Path, source=Path, output=Path)
