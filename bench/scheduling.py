"""Snakemake over DVC's stages: what it costs, what it saves and what it survives (`make bench-scheduling [PARTS=...]`).

wall     eight stages of 20 s of one core's work on two cores, against `dvc repro`; and a run with nothing to do
many     what a stage costs in a pipeline of 10, 50, 200 and 1,000 that do nothing, each with as many dependencies as a
         stage of ours has (its entry in dvc.lock has some 120 lines)
steps    the time that a container adds to a step, alternating with the host (needs a Docker Engine and the image)
kills    ten kills (kill -9 of Snakemake, of a dvc, of a container) at random moments of the short experiment in
         containers; `make recover` and the same command must finish it without repeating a finished stage
"""

import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from pipeline.conftest import Project, new_project
from pipeline.engines.test_containers import ONE_RUN
from pipeline.engines.test_snakemake import LOCAL, SLURM, check, logged, ran, synthetic
from support import outputs_in_lock


def seconds(project: Project, *command: str) -> float:
    """The wall time of a command that must succeed."""
    started = time.monotonic()
    project.run(*command)
    return time.monotonic() - started


def wall(folder: Path) -> None:
    """Parallel against sequential, and a no-op."""
    parallel, sequential = (synthetic(folder / name, count=8, seconds=20) for name in ("parallel", "sequential"))
    took = {
        "snakemake": seconds(parallel, *LOCAL, "--cores", "2"),
        "dvc repro": seconds(sequential, "dvc", "repro"),
        "snakemake with nothing to do": seconds(parallel, *LOCAL, "--cores", "2"),
    }
    check(parallel)
    for name, value in took.items():
        print(f"{name}: {value:.1f} s")
    print(f"ratio: {took['snakemake'] / took['dvc repro']:.2f}")


def many(folder: Path) -> None:
    """More and more stages: a first run, a second one, and the lock."""
    for count in (10, 50, 200, 1000):
        project = synthetic(folder / f"many-{count}", count=1, seconds=0)
        code = [f"code/file{number}" for number in range(27)]
        (project.folder / "code").mkdir()
        for name in code:
            (project.folder / name).write_text(name)
        work = {"cmd": "cp input out${item}", "deps": ["input", *code], "outs": ["out${item}"]}
        stages = {"work": {"foreach": list(range(count)), "do": work}}
        (project.folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
        first, second = (seconds(project, *LOCAL, "--cores", "2") for _ in range(2))
        lines = len((project.folder / "dvc.lock").read_text().splitlines())
        print(
            f"{count} stages on two cores: {first:.0f} s, {2 * (first - second) / count:.2f} s of a core for each; "
            f"{second:.1f} s where there is nothing to do; dvc.lock has {lines:,} lines",
            flush=True,
        )


def steps(folder: Path) -> None:
    """One light step and one with weights, on the host and in a container."""
    project = new_project(folder / "steps", ONE_RUN)
    project.run("dvc", "repro")
    grade = ("docker/run", "grade", "--image", "cpu", "--recipe", "experiments/short.yaml", "--prompts",
             "runs/short-a/prompts", "--completions", "runs/short-a/eval/completions.jsonl", "--predictions",
             ".cache/predictions.jsonl", "--metrics", ".cache/metrics.json")  # fmt: skip
    evaluate = ("docker/run", "check", "--image", "cpu", "--recipe", "experiments/short.yaml", "--model",
                "runs/short-a/train/model.json", "--seed", "1", "--output", ".cache/check.json")  # fmt: skip
    for name, command in (("grade", grade), ("check", evaluate)):
        differences = []
        for _ in range(7):
            took = {}
            for engine in ("host", "docker"):
                project.environment["GRPO_COT_ENGINE"] = engine
                took[engine] = seconds(project, *command)
            differences.append(took["docker"] - took["host"])
        print(
            f"{name}: a container adds {statistics.median(differences):.2f} s in the median "
            f"({min(differences):.2f} to {max(differences):.2f}; on the host {took['host']:.1f} s)"
        )


def matrix(folder: Path) -> None:
    """Two experiments times two seeds, three ways."""
    runs = "".join(
        f"  {recipe}-{seed}: {{recipe: {recipe}, dataset: few, base: tiny, image: cpu, seed: {seed}}}\n"
        for recipe in ("short", "other")
        for seed in (1, 2)
    )
    params = f"runs:\n{runs}datasets: [few]\nbases: {{tiny: cpu}}\ncomparisons:\n  seeds: {{a: short-1, b: short-2}}\n"
    ways = {"dvc": ("dvc", "repro"), "local": (*LOCAL, "--cores", "2")}
    if shutil.which("sinfo"):
        ways["slurm"] = SLURM
    locks = {}
    for name, command in ways.items():
        project = new_project(folder / name, params)
        recipe = (project.folder / "experiments/short.yaml").read_text()
        (project.folder / "experiments/other.yaml").write_text(
            recipe.replace("learning_rate: 1.0e-3", "learning_rate: 5.0e-4")
        )
        took = seconds(project, *command)
        check(project)
        locks[name] = outputs_in_lock(project.folder)
        same = locks[name] == locks["dvc"]
        print(f"{name}: {took:.0f} s for {len(locks[name])} stages, dvc.lock as dvc repro's: {same}")
    assert all(lock == locks["dvc"] for lock in locks.values())


def victims(project: Project, kind: str) -> list[psutil.Process]:
    """The processes of a kind that are at work in the project."""
    words = {"snakemake": "workflow/profiles/local", "dvc": "--wait-for-lock"}
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if words[kind] in (process.info["cmdline"] or ()) and process.info["cwd"] == str(project.folder)
    ]


def kill(project: Project, kind: str) -> bool:
    """Kill one of a kind, and say whether there was one."""
    if kind == "container":
        listed = ["docker", "ps", "--quiet", "--filter", f"label=grpo-cot.checkout={project.folder}"]
        found = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
        return bool(found) and not subprocess.run(["docker", "kill", found[0]], capture_output=True).returncode
    processes = victims(project, kind)
    if processes:
        processes[0].kill()
    return bool(processes)


def kills(folder: Path) -> None:
    """Ten kills in the short experiment, each of another seed; the last is compared with an undisturbed run."""
    project = new_project(folder / "kills", ONE_RUN)
    project.environment["GRPO_COT_ENGINE"] = "docker"
    chance = random.Random(int(time.time()))
    seeds = [*range(101, 110), 1]
    for number, seed in enumerate(seeds):
        kind = ("snakemake", "dvc", "container")[number % 3]
        (project.folder / "params.yaml").write_text(ONE_RUN.replace("seed: 1}", f"seed: {seed}}}"))
        shutil.rmtree(project.folder / ".cache/snakemake", ignore_errors=True)
        with (project.folder / ".cache-said").open("w") as said:
            run = subprocess.Popen(LOCAL, cwd=project.folder, env=project.environment, stdout=said, stderr=said)
        moment = time.monotonic() + chance.uniform(6, 40)
        killed = False
        while run.poll() is None and not killed:
            killed = time.monotonic() > moment and kill(project, kind)
            time.sleep(0.05)
        assert killed, "the run ended before its kill"
        run.wait()
        project.run("make", "--assume-old=.venv/.ready", "recover")
        finished = logged(project, "Updating lock file")
        shutil.rmtree(project.folder / ".cache/snakemake")
        project.run(*LOCAL)
        check(project)
        repeated = ran(project) & finished
        print(
            f"kill of {kind}: {len(finished)} stages were done, {len(ran(project))} ran after it, repeated: {repeated}"
        )
        assert not repeated
    project.run("make", "--assume-old=.venv/.ready", "verify")
    undisturbed = new_project(folder / "undisturbed", ONE_RUN)
    undisturbed.run("dvc", "repro")
    assert outputs_in_lock(project.folder) == outputs_in_lock(undisturbed.folder)
    print("the cache is whole, and dvc.lock equals that of an undisturbed run on the host")


if __name__ == "__main__":
    parts = {function.__name__: function for function in (wall, many, steps, matrix, kills)}
    with tempfile.TemporaryDirectory() as temporary:
        for name in sys.argv[1:] or parts:
            parts[name](Path(temporary))
