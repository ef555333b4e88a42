"""What every step's entry point shares: arguments, one-sentence refusals, a last line, and the record of the run."""

import argparse
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import write_json
from grpo_cot.common.machine import machine_error


def run(main: Callable[[argparse.Namespace], str], description: str | None, **arguments: Any) -> None:
    """Parse `--name VALUE` for every argument (its type as given), run the step, and say in one line what it did.

    With `--record FILE`, what ran where and for how long is written there, apart from the step's results, because it
    differs at every run. Bad input is one sentence on standard error and exit status 1.
    """
    parser = argparse.ArgumentParser(description=description)
    for name, kind in arguments.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, required=True)
    parser.add_argument("--record", type=Path)
    args = parser.parse_args()
    args.measured = {}  # what a step measures of itself, for the record alone
    step = Path(sys.argv[0]).stem
    started = datetime.now(UTC)
    clock = time.monotonic()
    try:
        message = main(args)
    except InputError as error:
        sys.exit(f"{step}: {error}{_outputs_hint()}")
    except Exception as error:
        if not (sentence := machine_error(error)):
            raise
        sys.exit(f"{step}: {sentence}{_outputs_hint()}")
    if args.record:
        # Of the largest process, which may be one of several in training; KiB, bytes on macOS.
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        write_json(
            args.record,
            {
                "step": step, "started": started.isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - clock, 2),
                "peak_memory_mib": peak // (2**20 if sys.platform == "darwin" else 2**10),
                "host": platform.node(), "system": platform.platform(), "cpus": os.cpu_count(), "device": device(),
                "processor": processor(),
                "python": platform.python_version(), "engine": os.environ.get("GRPO_COT_ENGINE"),
                "image": os.environ.get("GRPO_COT_IMAGE"), "image_id": os.environ.get("GRPO_COT_IMAGE_ID"),
                **args.measured,
            },
        )  # fmt: skip
    print(f"{step}: {message}", flush=True)


def _outputs_hint() -> str:
    if "DVC_STAGE" not in os.environ:
        return ""
    return f". (`dvc checkout` brings back the earlier outputs of {os.environ['DVC_STAGE']}.)"


def processor() -> str:
    """The processor's name, and in brackets the instructions that torch chose for it where torch was used.

    Both decide how sums are rounded, and with it the last bits of what a CPU trains.
    """
    name = ""
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    elif Path("/proc/cpuinfo").is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = found[1].strip() if found else ""
    name = name or platform.processor() or platform.machine()
    torch = sys.modules.get("torch")
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})" if torch else name


def device() -> str:
    """The GPU's name where torch was used and finds one, else the kind of machine (`x86_64`)."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else platform.machine()
