"""`make sbom`: the packages of each image as a software bill of materials (CycloneDX 1.6), in reports/sbom.

They are those of the image's locks, with their hashes. The system packages of its base are the base's own.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = {"cpu": ("torch-cpu", "cpu"), "cuda": ("cuda-py312",)}


def main() -> None:
    """Write one file for each image."""
    folder = ROOT / "reports/sbom"
    folder.mkdir(parents=True, exist_ok=True)
    for image, names in LOCKS.items():
        requirements = "\n".join((ROOT / f"locks/{name}.txt").read_text(encoding="utf-8") for name in names)
        file = folder / f"{image}.cdx.json"
        command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "-o", str(file), "-"]
        subprocess.run(command, input=requirements, text=True, check=True)
        print(f"sbom: {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
