"""A clone of the working tree in which the pipeline runs as a user runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from support import ROOT

PARAMS = """\
runs:
  short-a: {recipe: short, dataset: few, base: tiny, image: cpu, seed: 1}
  short-b: {recipe: short, dataset: few, base: tiny, image: cpu, seed: 2}
datasets: [few]
bases: {tiny: cpu}
comparisons:
  a-b: {a: short-a, b: short-b}
"""
FEW = "kind: generator\nseed: 7\nsplits: {train: 40, test: 24}\nlicence: Apache-2.0\n"


class Project:
    """A checkout with the short experiment in its params.yaml, sharing this environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DVC", "PYTEST"))},
            "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
            "PYTHONPATH": "src",
        }

    def run(self, *command: str, fails: bool = False) -> str:
        """Both outputs of a command, which must succeed (or fail)."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert (done.returncode != 0) == fails, f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def repro(self, *arguments: str) -> list[str]:
        """The steps (`STEP@RUN`) that `dvc repro` ran."""
        said = self.run("dvc", "repro", *arguments)
        return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that occurs in a file."""
        file = self.folder / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))


def new_project(folder: Path, params: str = PARAMS) -> Project:
    """A fresh clone of the working tree as it stands, with the short experiment."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    shutil.copy(ROOT / "tests/pipeline/short.yaml", folder / "experiments/short.yaml")
    (folder / "sources/datasets/few.yaml").write_text(FEW)
    (folder / "params.yaml").write_text(params)
    project = Project(folder)
    project.run("git", "init", "--quiet")
    commit(project)
    return project


def use_systems_python(project: Project) -> None:
    """Give a project an environment that users other than root can run, with the same packages: the tests' own Python
    may lie where only root can read."""
    python = "/usr/bin/python3"
    version = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
    if version.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip(f"{python} is not the Python of the environment, and a user other than root needs one")
    environment = project.folder / ".venv"
    environment.unlink()
    subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "same.pth").write_text(f"{next((ROOT / '.venv').glob('lib/python*/site-packages'))}\n")
    project.environment["PATH"] = f"{environment}/bin:{os.environ['PATH']}"


def commit(project: Project) -> None:
    """Commit everything."""
    project.run("git", "add", "--all")
    project.run(
        "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", "state"
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which both short runs and their comparison are done. Tests that change it work on a copy.

    Of several processes of tests, one makes it, and each has a copy.
    """
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    made = place / "made"
    with FileLock(place / "made.lock"):
        if not made.is_dir():
            making = tmp_path_factory.mktemp("making")
            project = new_project(making)
            project.run("dvc", "repro")
            commit(project)
            making.rename(made)
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(made, folder, symlinks=True)
    return Project(folder)


@pytest.fixture
def copy(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished clone, to change."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")
