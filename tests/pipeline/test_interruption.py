"""kill -9 in the middle of training and of evaluation: they resume, and end where uninterrupted runs end."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from pipeline.conftest import Project, new_project

pytestmark = pytest.mark.slow
RUN = "runs: {short-a: {recipe: short, dataset: few, base: tiny, image: cpu, seed: 1}}\n"
PARAMS = RUN + "datasets: [few]\nbases: {tiny: cpu}\ncomparisons: {}\n"
TRAIN = "train@short-a"
EVALUATE = "evaluate@short-a"


def results(project: Project) -> dict[str, bytes]:
    """Every file that training leaves: weights, logs, resolved configuration, curves."""
    run = project.folder / "runs/short-a"
    paths = [path for folder in ("train", "curves") for path in sorted((run / folder).rglob("*")) if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


WEIGHTS = "train/01-grpo/adapter_model.safetensors"


def start(project: Project, log: Path, stage: str = TRAIN) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["dvc", "repro", stage], cwd=project.folder, env=project.environment, stdout=log.open("ab"),
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def running(project: Project, step: str = "train") -> list[psutil.Process]:
    """The running processes of a step of this clone, without the shells around them."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if f"scripts/{step}.py" in command and Path(process.cwd()) == project.folder.resolve():
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for_checkpoint(project: Project, deadline: float = 240) -> None:
    end = time.monotonic() + deadline
    while not list((project.folder / ".cache/train/short-a").glob("*/checkpoints-*/checkpoint-3/trainer_state.json")):
        assert time.monotonic() < end, "no checkpoint appeared"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, bytes]]:
    """A clone in front of its training, and the results of an uninterrupted one."""
    project = new_project(tmp_path_factory.mktemp("interrupted"), PARAMS)
    project.run("dvc", "repro", TRAIN)
    return project, results(project)


def stale(project: Project, stage: str = TRAIN, *outputs: str) -> None:
    """Make a stage run again from the start, as if it never had."""
    lock = project.folder / "dvc.lock"
    text = lock.read_text()
    lock.write_text(re.sub(rf"  {stage}:\n(?:    .*\n)+", "", text))
    folders = [f"runs/short-a/{output}" for output in outputs or ("train", "curves")]
    subprocess.run(["rm", "-rf", ".dvc/cache/runs", *folders], cwd=project.folder, check=True)


@pytest.mark.parametrize(
    "victim", ["trainer", pytest.param("dvc", marks=pytest.mark.prove), pytest.param("group", marks=pytest.mark.prove)]
)
def test_a_killed_training_resumes_and_ends_the_same_to_the_byte(
    ready: tuple[Project, dict[str, bytes]], tmp_path: Path, victim: str
) -> None:
    project, expected = ready
    stale(project)
    log = tmp_path / "log"
    dvc = start(project, log)
    wait_for_checkpoint(project)
    [trainer] = running(project)
    if victim == "trainer":
        trainer.kill()
    elif victim == "dvc":
        dvc.kill()
    else:
        os.killpg(dvc.pid, signal.SIGKILL)
    dvc.wait()
    if victim != "dvc":
        trainer.wait(10)
    if victim == "trainer":  # an edit of a page, of the memory plan or of an error's words leaves the checkpoint in use
        for path in ("reporting/templates/report.html.jinja", "memory/estimate.py", "checks/rules.py"):
            file = project.folder / "src/grpo_cot" / path
            file.write_text(file.read_text() + "\n")
    # With dvc alone dead its command lives on; the second run must wait for it or take its result over.
    again = start(project, log)
    again.wait()
    said = log.read_text()
    assert again.returncode == 0, said[-3000:]
    assert running(project) == []
    if victim == "dvc":
        assert f"Another process (pid {trainer.pid})" in said
        assert "Taking over what an interrupted run had finished." in said
    else:
        step = re.search(r"Resuming from step (\d+) of 12", said)
        assert step and int(step.group(1)) >= 3
    assert results(project) == expected
    curve = json.loads((project.folder / "runs/short-a/train/01-grpo/log.json").read_text())
    assert [entry["step"] for entry in curve if "reward" in entry] == list(range(1, 13))


@pytest.mark.prove
def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(ready: tuple[Project, dict[str, bytes]]) -> None:
    project, expected = ready
    stale(project)
    project.run("dvc", "repro", TRAIN)
    assert results(project) == expected
    project.edit("params.yaml", "seed: 1", "seed: 2")
    project.run("dvc", "repro", TRAIN)
    assert results(project)[WEIGHTS] != expected[WEIGHTS]
    project.edit("params.yaml", "seed: 2", "seed: 1")


@pytest.mark.prove
def test_a_killed_evaluation_resumes_and_ends_the_same_to_the_byte(
    ready: tuple[Project, dict[str, bytes]], tmp_path: Path
) -> None:
    project, _ = ready
    project.edit("experiments/short.yaml", "batch_size: 20", "batch_size: 4")
    project.run("dvc", "repro", EVALUATE)
    result = project.folder / "runs/short-a/eval/completions.jsonl"
    expected = result.read_bytes()
    stale(project, EVALUATE, "eval")
    shutil.rmtree(project.folder / ".cache/evaluate/of-bases")  # or half of the work were done before it begins
    log = tmp_path / "log"
    dvc = start(project, log, EVALUATE)
    end = time.monotonic() + 240
    while not any(
        path.stat().st_size for path in (project.folder / ".cache/evaluate/short-a").glob("*/finished.jsonl")
    ):
        assert time.monotonic() < end, "no batch was finished"
        time.sleep(0.01)
    [evaluation] = running(project, "evaluate")
    evaluation.kill()
    assert dvc.wait()
    assert not result.exists()
    said = project.run("dvc", "repro", EVALUATE)
    resumed = re.search(r"Resuming: (\d+) of (\d+) answered", said)
    assert resumed and 4 <= int(resumed.group(1)) <= int(resumed.group(2))
    assert result.read_bytes() == expected
    assert [path.name for path in (project.folder / ".cache/evaluate/short-a").iterdir()] == ["lock"]
