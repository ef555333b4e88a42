"""Resolve locks/direct.in into hashed locks (`make lock`; needs uv on the path).

  cpu.txt         everything but torch and its CUDA libraries
  torch-cpu.txt   torch's CPU build, for machines whose pip knows a place that has it; no more than 200 MB
  torch.txt       the package index's build with what it needs; on Linux that is CUDA, several GB

They are three because pip's hash mode prefers an index's wheel to a local one when a lock admits both.
"""

import re
import subprocess
from pathlib import Path

LOCKS = Path(__file__).parent
CPU_BUILD = "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"  # cp311, manylinux_2_28_x86_64
TORCH_AND_CUDA = re.compile(r"(torch==|nvidia-(?!ml-py)|cuda-|triton\b)")

if __name__ == "__main__":
    resolved = subprocess.run(
        ["uv", "pip", "compile", "direct.in", "--universal", "--python-version", "3.11", "--generate-hashes",
         "--no-header", "--no-annotate", "--quiet"],
        cwd=LOCKS, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    files: dict[str, list[str]] = {"torch-cpu.txt": [], "torch.txt": [], "cpu.txt": []}
    for requirement in re.split(r"\n(?=\S)", resolved.strip()):
        files["torch.txt" if TORCH_AND_CUDA.match(requirement) else "cpu.txt"].append(requirement)
        if requirement.startswith("torch=="):
            files["torch-cpu.txt"] = [f"{requirement.split()[0]}+cpu --hash={CPU_BUILD}"]
    for name, requirements in files.items():
        (LOCKS / name).write_text("\n".join(requirements) + "\n")
