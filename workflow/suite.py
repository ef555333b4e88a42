"""`make laptop`: put a suite into params.yaml, unless params.yaml holds runs of the user's own."""

import sys
from pathlib import Path

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import write_text


def use_suite(root: Path, name: str) -> None:
    """Copy `suites/NAME.yaml` over params.yaml.

    Raises:
        InputError: params.yaml is no copy of a suite, so that runs would be lost.
    """
    params, suite = root / "params.yaml", root / f"suites/{name}.yaml"
    known = {path.read_bytes() for path in sorted((root / "suites").glob("*.yaml"))}
    if params.is_file() and params.read_bytes() not in known:
        raise InputError(
            f"{params}: it lists runs that no file in suites/ has, and they would be lost; copy it to suites/MINE.yaml "
            f"first, or add the runs of {suite} to it and run `make repro report`"
        )
    if not params.is_file() or params.read_bytes() != suite.read_bytes():
        write_text(params, suite.read_text(encoding="utf-8"))
        print(f"params.yaml is now suites/{name}.yaml; `cp suites/demo.yaml params.yaml` brings the demo's run back")


if __name__ == "__main__":
    try:
        use_suite(Path(__file__).resolve().parent.parent, sys.argv[1])
    except InputError as error:
        sys.exit(f"suite: {error}")
