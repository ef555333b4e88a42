"""`make laptop`: put a suite into params.yaml, unless params.yaml holds runs of the user's own.

Where the processor only emulates bfloat16, it is the suite of the same name for float32, if there is one.
"""

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


def for_processor(root: Path, name: str, *, emulated: bool) -> str:
    """The suite's name, or that of its twin in float32 where bfloat16 is `emulated` and there is a twin."""
    if not emulated or not (root / f"suites/{name}-float32.yaml").is_file():
        return name
    print("This processor only emulates bfloat16: the run is in float32, and takes longer.")
    return f"{name}-float32"


if __name__ == "__main__":
    from grpo_cot.models.processor import emulates_bfloat16

    root = Path(__file__).resolve().parent.parent
    try:
        use_suite(root, for_processor(root, sys.argv[1], emulated=emulates_bfloat16()))
    except InputError as error:
        sys.exit(f"suite: {error}")
