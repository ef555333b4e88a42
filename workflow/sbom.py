"""`make sbom`: the packages of each image as a software bill of materials (CycloneDX 1.6), in reports/sbom.

They are those of the image's locks, with their hashes. The system packages of its base are the base's own.
"""

import re
import subprocess
import sys
from pathlib import Path

from packaging.markers import Marker

from grpo_cot.common.files import write_text

ROOT = Path(__file__).parent.parent
IMAGE = {
    "sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix",
    "python_version": "3.11", "python_full_version": "3.11.2", "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
}  # fmt: skip
LOCKS = {"cpu": ("torch-cpu", "cpu"), "cuda": ("cuda-py312",)}


def installed(entry: str) -> bool:
    """Whether a lock's entry is for the images: Linux on x86-64, CPython.

    >>> installed("a==1 ; sys_platform == 'win32'"), installed("b==2")
    (False, True)
    """
    marker = entry.splitlines()[0].removesuffix("\\").strip().partition(" ; ")[2]
    return not marker or Marker(marker).evaluate(IMAGE)


def main() -> None:
    """Write one file for each image."""
    folder = ROOT / "reports/sbom"
    for image, names in LOCKS.items():
        texts = [(ROOT / f"locks/{name}.txt").read_text(encoding="utf-8").strip() for name in names]
        entries = [entry for text in texts for entry in re.split(r"\n(?=\S)", text) if installed(entry)]
        command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "-"]
        bill = subprocess.run(command, input="\n".join(entries), text=True, check=True, stdout=subprocess.PIPE).stdout
        write_text(folder / f"{image}.cdx.json", bill)
        print(f"sbom: {(folder / f'{image}.cdx.json').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
