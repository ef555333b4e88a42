"""The default experiment with vLLM in it, on the CPU: sampled by vLLM in training, evaluated by vLLM and Transformers.

    make demo && make .venv/vllm/.ready
    python bench/vllm_rollouts.py

The recipe is experiments/tiny-grpo.yaml (4 bits) with bfloat16 in place of float32, on the prompts of `make demo`, by
the pipeline's own steps. Nothing else should run: two processes with torch take turns on two cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from grpo_cot.common.files import read_json, read_yaml, write_json

ROOT = Path(__file__).parent.parent
PROMPTS = ROOT / "runs/tiny-grpo/prompts"
ENVIRONMENT = {
    "PYTHONPATH": f"{ROOT / '.venv/vllm'}:{ROOT / 'src'}",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_CI_ENV": "1",  # no compiling
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def recipe(engine: str) -> dict[str, Any]:
    """tiny-grpo, sampled by vLLM and evaluated by `engine`."""
    content: dict[str, Any] = read_yaml(ROOT / "experiments/tiny-grpo.yaml")
    content["model"]["dtype"] = content["quantization"]["bnb_4bit_compute_dtype"] = "bfloat16"
    [phase] = content["phases"]
    phase["rollouts"] = {"sync": "adapter", "log_probability_gap": 0.02}
    phase["grpo"] |= {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 328}
    content["evaluate"]["engine"] = engine
    return content


def step(name: str, folder: Path, *arguments: str | Path) -> float:
    """Run a step of the pipeline; its seconds."""
    started = time.perf_counter()
    record = ("--record", folder / f"record/{name}.json")
    subprocess.run(
        [sys.executable, f"scripts/{name}.py", *arguments, *record], cwd=ROOT, env=os.environ | ENVIRONMENT, check=True
    )
    return time.perf_counter() - started


def main() -> None:
    """Train once, evaluate and grade twice, and print what came out."""
    if not PROMPTS.is_dir() or not (ROOT / ".venv/vllm/.ready").is_file():
        sys.exit("first: make demo && make .venv/vllm/.ready")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for engine in ("vllm", "transformers"):
            write_json(folder / f"{engine}.yaml", recipe(engine))  # JSON is YAML
        seconds = step(
            "train", folder, "--recipe", folder / "vllm.yaml", "--prompts", PROMPTS, "--base", ROOT / "models/tiny",
            "--seed", "3407", "--scratch", folder / "scratch", "--curves", folder / "curves",
            "--output", folder / "train",
        )  # fmt: skip
        log = read_json(folder / "train/01-grpo/log.json")
        gaps = [entry["sync/log_probability_gap"] for entry in log if "sync/log_probability_gap" in entry]
        print(
            f"training {seconds:.0f} s; gap {sum(gaps) / len(gaps):.4f} (largest {max(gaps):.4f}) in {len(gaps)} steps"
        )
        for engine in ("vllm", "transformers"):
            seconds = step(
                "evaluate", folder, "--recipe", folder / f"{engine}.yaml", "--prompts", PROMPTS,
                "--model", folder / "train/model.json", "--scratch", folder / f"scratch-{engine}",
                "--output", folder / engine,
            )  # fmt: skip
            metrics = folder / f"{engine}-metrics.json"
            step(
                "grade", folder, "--prompts", PROMPTS, "--completions", folder / engine / "completions.jsonl",
                "--predictions", folder / f"{engine}-predictions.jsonl", "--metrics", metrics,
            )  # fmt: skip
            figures = read_json(metrics)
            for model in ("base", "trained"):
                strict = figures[model]["strict_accuracy"]
                print(
                    f"{engine} ({seconds:.0f} s), {model}: strict {strict['value']:.1%} "
                    f"[{strict['low']:.1%}, {strict['high']:.1%}], n = {figures['n']}"
                )


if __name__ == "__main__":
    main()
