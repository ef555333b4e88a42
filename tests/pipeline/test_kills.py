"""kill -9 at random moments anywhere in the DAG: the same command goes on, nothing is lost, nothing is half-written."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from pipeline.conftest import Project, new_project

RUN = "runs: {short-a: {recipe: short, dataset: few, base: tiny, image: cpu, seed: 1}}\n"
PARAMS = RUN + "datasets: [few]\nbases: {tiny: cpu}\ncomparisons: {}\n"
REPRO = ("make", "--silent", "--assume-old=.venv/.ready", "repro")
OUTPUTS = ("data", "models", "record", "runs", "published")
LONGEST = 12.0  # seconds between the start of a command and its death


def outputs(project: Project) -> dict[str, str]:
    """The hash of every file that the steps leave, but of those that hold times: the records and the report."""
    found = {}
    for folder in OUTPUTS:
        for path in sorted((project.folder / folder).rglob("*")):
            if path.is_file() and "record" not in path.parts and path.name not in ("report.html", ".gitignore"):
                found[str(path.relative_to(project.folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def forget(project: Project) -> None:
    """As if nothing had ever run here."""
    for name in (*OUTPUTS, ".cache", ".dvc/cache", ".dvc/tmp", "dvc.lock"):
        path = project.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def kill_one(run: "subprocess.Popen[bytes]", rng: random.Random) -> str:
    """Kill all processes of a command together, or one of them alone; the name of the victim."""
    if rng.random() < 0.5:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        return "all"
    family = [process for process in psutil.Process(run.pid).children(recursive=True) if process.is_running()]
    victim = rng.choice(family) if family else psutil.Process(run.pid)
    name = victim.name()
    victim.kill()
    try:
        run.wait(60)  # the others end by themselves, or with an error
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    return name


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(100, marks=pytest.mark.prove)])
def test_after_random_kills_the_same_command_ends_where_an_uninterrupted_one_does(
    finished: Project, tmp_path: Path, kills: int
) -> None:
    project = new_project(tmp_path / "clone", PARAMS)
    expected = {name: digest for name, digest in outputs(finished).items() if "short-b" not in name}
    assert len(expected) > 40
    rng, killed = random.Random(kills), []
    while len(killed) < kills:
        forget(project)
        while True:
            log = (tmp_path / "log").open("wb")
            run = subprocess.Popen(
                REPRO, cwd=project.folder, env=project.environment, stdout=log, stderr=log, start_new_session=True
            )
            if len(killed) < kills:
                try:
                    run.wait(rng.uniform(0.5, LONGEST))
                except subprocess.TimeoutExpired:
                    killed.append(kill_one(run, rng))
                    wrong = {name for name, digest in outputs(project).items() if expected.get(name) != digest}
                    assert not wrong, f"after a kill of {killed[-1]}: {sorted(wrong)}"
                    continue
            assert run.wait() == 0, f"after kills of {killed}: {(tmp_path / 'log').read_text()[-3000:]}"
            break
        assert outputs(project) == expected, killed
