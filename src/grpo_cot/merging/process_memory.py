"""The memory that a process has used: for the record of a run, since it is another at every run."""

import re
import resource
import sys
from pathlib import Path

import psutil


def resident_memory() -> int:
    """Bytes of this process that are in memory now, pages of mapped files included."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """The most bytes of this process that have been in memory at once, pages of mapped files included.

    Linux says it of this program alone. `getrusage`, which is asked elsewhere, counts what the process was before it
    became this program: a small process that a large one started would appear as large.
    """
    status = Path("/proc/self/status")
    said = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.is_file() else None
    if said:
        return int(said.group(1)) * 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
