"""Which instructions decide the bytes: six GRPO steps under each setting of torch's libraries, and what each costs.

    python bench/processors.py [RUN]

RUN is a finished one of params.yaml (tiny-grpo), with its prompts and its base. Each setting is a process of its own,
twice. Printed are the processor, and for each setting the first digits of the adapter's sha256 and the seconds of the
step: on two processors the same digits under one setting say that it makes them alike.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grpo_cot.common.files import file_hash, read_yaml
from grpo_cot.common.step import processor
from grpo_cot.params import load_params

ROOT = Path(__file__).parent.parent
STEPS = 6
SETTINGS = {
    "plain": {},
    "ATen with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATen without vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "MKL compatible": {"MKL_CBWR": "COMPATIBLE"},
    "MKL with AVX2": {"MKL_CBWR": "AVX2"},
    "oneDNN with AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "ATen with AVX2, MKL compatible": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE"},
    "ATen with AVX2, MKL compatible, oneDNN with AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
}


def trained(folder: Path, name: str, setting: dict[str, str]) -> tuple[str, float]:
    """The adapter's hash and the seconds of a short training."""
    run = load_params(ROOT / "params.yaml", ROOT).runs[name]
    recipe = read_yaml(ROOT / f"experiments/{run.recipe}.yaml")
    recipe["phases"][0]["grpo"] |= {"max_steps": STEPS, "save_strategy": "no"}
    recipe["phases"][0].pop("validation", None)
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    arguments = {
        "recipe": folder / "recipe.yaml", "prompts": ROOT / f"runs/{name}/prompts", "base": ROOT / f"models/{run.base}",
        "seed": run.seed, "scratch": folder / "scratch", "curves": folder / "curves", "output": folder / "trained",
    }  # fmt: skip
    command = [
        sys.executable,
        "scripts/train.py",
        *(str(word) for key, value in arguments.items() for word in (f"--{key}", value)),
    ]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=os.environ | setting, check=True, capture_output=True)
    seconds = time.perf_counter() - started
    return file_hash(folder / "trained/01-grpo/adapter_model.safetensors")[:12], seconds


def main() -> None:
    """Every setting twice; a hash that differs between the two is named."""
    import torch  # noqa: F401  # so that the processor's name says what it chose

    name = sys.argv[1] if len(sys.argv) > 1 else "tiny-grpo"
    print(f"{processor()}, {STEPS} steps of {name}")
    for label, setting in SETTINGS.items():
        runs = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(trained(Path(folder), name, setting))
        (first, _), (second, seconds) = runs
        print(f"  {label}: {first if first == second else f'{first}, then {second}'}, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
