"""Everything that this project claims for a GPU, measured on the one that is here.

    python bench/gpu/measure.py [PART ...] [--source qwen2.5-3b-instruct]

Parts (all, unless named): ceilings, step, evaluation, merging, attention, small. Each measurement is a process of its
own; one that fails is written down with its reason, and the others go on. Results go to
`bench/gpu/results/DATE-DEVICE.json` and, as a table, to `.md` beside it. `--source` names another base's shape.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from shape import ROOT, environment, random_base

from grpo_cot.common.files import read_json, write_json, write_text

HERE = Path(__file__).parent
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "unsloth", "vllm", "flash-attn")
COMPLETIONS = (200, 1024)
LONGEST = 900  # characters of a failure that are kept


def measurements(parts: list[str], base: Path) -> dict[str, list[str]]:
    """Every measurement's name and its command."""
    here = {"base": ["--base", str(base)]}
    found: dict[str, list[str]] = {}
    if "ceilings" in parts:
        found["ceilings"] = ["ceilings.py"]
    if "step" in parts:
        for completion in COMPLETIONS:
            for variant in ("bare", "transformers", "unsloth", "vllm"):
                found[f"step {variant} 256+{completion}"] = [
                    "grpo_steps.py", variant, *here["base"], "--completion", str(completion)
                ]  # fmt: skip
    if "evaluation" in parts:
        for engine in ("transformers", "vllm"):
            found[f"evaluation {engine}"] = ["evaluating.py", engine, *here["base"]]
    if "merging" in parts:
        found["merging"] = ["merge_steps.py", *here["base"]]
    if "attention" in parts:
        found["attention"] = ["attention.py", *here["base"]]
        found["step transformers, flash attention 256+1024"] = [
            "grpo_steps.py", "transformers", *here["base"], "--completion", "1024", "--attention", "flash_attention_2"
        ]  # fmt: skip
    if "small" in parts:
        found["gpu-small"] = ["small.py"]
    return found


def measured(command: list[str]) -> dict[str, Any]:
    """The JSON object on a command's last line, or why there is none."""
    done = subprocess.run(
        [sys.executable, str(HERE / command[0]), *command[1:]], cwd=ROOT, env=environment(), text=True,
        capture_output=True,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        sys.stderr.write(done.stderr)
        return {"failed": (done.stderr.strip() or f"exit status {done.returncode}")[-LONGEST:]}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def against_ceilings(figures: dict[str, Any], ceilings: dict[str, Any]) -> None:
    """Add how near a step came to what the card can do.

    A training pass with gradient checkpointing needs about 8 floating point operations a parameter and token (2
    forward, 2 again, 4 backward; Kaplan et al., 2020, table 1), less the 2 of weight gradients that a frozen base has
    not: 6. A rollout reads the weights once for every token position of the batch.
    """
    used = 6 * figures["parameters"] * figures["training_tokens_per_second"] / 1e12
    figures["training_share_of_matrix_ceiling"] = used / ceilings["matrix_tflops"]
    reads = figures["weight_bytes"] * figures["rollout_tokens_per_second"] / figures["completions"]
    figures["rollout_share_of_copy_ceiling"] = reads / ceilings["copy_bytes_per_second"]


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"# {results['device']}, {results['date']}", "",
        ", ".join(f"{name} {found}" for name, found in results["versions"].items()), "",
        f"Shape: {results['source']}. Off the lock: {', '.join(results['off_lock']) or 'nothing'}.", "",
        "| measurement | figures |", "| --- | --- |",
    ]  # fmt: skip
    for name, figures in results["measurements"].items():
        said = json.dumps({key: _short(value) for key, value in figures.items()}).replace("|", r"\|")
        lines.append(f"| {name} | {said.strip('{}')} |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def off_lock() -> list[str]:
    """The packages whose version is not that of the lock of the image `cuda`; without them a row closes nothing."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    file = ROOT / f"locks/cuda-{python}.txt"
    if not file.is_file():
        return [f"no lock for {python}"]
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", file.read_text(), flags=re.MULTILINE))
    found = {package: _version(package).split("+")[0] for package in PACKAGES if package in locked}
    return [f"{name} {here} (locked {locked[name]})" for name, here in found.items() if here != locked[name]]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def main() -> None:
    """Run the parts and write the results."""
    parts = ("ceilings", "step", "evaluation", "merging", "attention", "small")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=(*parts, []), default=[])
    parser.add_argument("--source", default="qwen2.5-3b-instruct")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("measure: there is no GPU that torch can use; nothing was measured")
    device = torch.cuda.get_device_name()
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(), "device": device, "source": args.source,
        "versions": {package: _version(package) for package in PACKAGES},
        "off_lock": off_lock(), "measurements": {},
    }  # fmt: skip
    name = re.sub(r"\W+", "-", device)
    target = HERE / "results" / f"{results['date']}-{name}.json"
    if target.is_file():  # parts of the same day are put together, where they are of the same versions
        before = read_json(target)
        if {**before, "measurements": {}} == results:
            results = before
    with tempfile.TemporaryDirectory() as folder:
        base = random_base(args.source, Path(folder) / "base")
        torch.cuda.empty_cache()  # the measurements are other processes, which need the memory
        for name, command in measurements(args.parts or list(parts), base).items():
            print(f"{name} ...", flush=True)
            figures = measured(command)
            ceilings = results["measurements"].get("ceilings", {"failed": "not asked for"})
            if name.startswith("step") and not {"failed"} & (figures.keys() | ceilings.keys()):
                against_ceilings(figures, ceilings)
            results["measurements"][name] = figures
            write_json(target, results)  # after each, so that a machine that is taken away leaves what was measured
            write_text(target.with_suffix(".md"), table(results))
            print(json.dumps(figures), flush=True)
    print(f"wrote {target} and its table")


if __name__ == "__main__":
    main()
