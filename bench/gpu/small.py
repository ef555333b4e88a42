"""`gpu-small` end to end: a copy of this checkout runs suites/gpu-small.yaml through DVC, base model included.

    python bench/gpu/small.py

The last line is a JSON object: minutes of the whole, and each run's and comparison's figures.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shape import ROOT

from grpo_cot.common.files import read_json


def main() -> None:
    """Run the suite in a copy of the tracked files, so that nothing here changes."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "checkout"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
        (copy / "params.yaml").write_bytes((copy / "suites/gpu-small.yaml").read_bytes())
        (copy / ".venv").symlink_to(Path(sys.executable).parent.parent)  # whose python the steps run in
        environment = os.environ | {
            "PYTHONPATH": "src", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GRPO_COT_ENGINE": "host",
        }  # fmt: skip
        started = time.perf_counter()
        for command in (["python", "workflow/validate.py"], ["dvc", "repro"], ["python", "workflow/index.py"]):
            subprocess.run(command, cwd=copy, env=environment, check=True)
        found = {
            "minutes": (time.perf_counter() - started) / 60,
            "runs": {path.parts[-3]: read_json(path) for path in sorted(copy.glob("runs/*/grade/metrics.json"))},
            "comparisons": {path.stem: read_json(path) for path in sorted(copy.glob("comparisons/*.json"))},
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
