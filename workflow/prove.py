"""`make prove`: run the proofs that take long, and write each one's outcome and date into docs/tested.md."""

import argparse
import datetime
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from grpo_cot.common.files import write_text

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/tested.md"
HEADING = "## Proofs that take long (`make prove`)\n"
TABLE = "| proof | outcome | seconds | date |\n| --- | --- | --- | --- |\n"


def outcomes(report: Path) -> dict[str, tuple[str, float]]:
    """Each proof's outcome and seconds, by file and test; of a parametrized one together, the worst first."""
    results: dict[str, tuple[str, float]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py, {case.get('name', '').split('[')[0]}"
        kinds = {child.tag for child in case}
        outcome = "FAILED" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        before, seconds = results.get(name, (outcome, 0.0))
        worst = min(before, outcome, key=["FAILED", "skipped", "passed"].index)
        results[name] = (worst, seconds + float(case.get("time", 0)))
    return results


def main() -> int:
    """Run the proofs, all or those that an expression selects; the exit status is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("expression", nargs="?", default="", help="as for pytest's -k")
    report = ROOT / ".cache/prove.xml"
    report.unlink(missing_ok=True)
    expression = parser.parse_args().expression
    command = [sys.executable, "-m", "pytest", "-m", "prove", "-k", expression]
    status = subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, check=False).returncode
    page, _, section = PAGE.read_text(encoding="utf-8").partition(HEADING)
    introduction, _, table = section.partition(TABLE)
    kept = table.splitlines() if expression else []  # a run of all proofs drops the rows of those that are gone
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in kept if row.startswith("| ")}
    today = datetime.date.today().isoformat()
    for name, (outcome, seconds) in outcomes(report).items():
        rows[f"`{name}`"] = f"| `{name}` | {outcome} | {seconds:.0f} | {today} |"
    write_text(PAGE, page + HEADING + introduction + TABLE + "\n".join(rows[name] for name in sorted(rows)) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
