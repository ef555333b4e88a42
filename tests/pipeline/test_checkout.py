"""A checkout as people get it: from an archive, by a git that converts line ends, or moved after it was set up."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import check_checkout
from support import ROOT

from grpo_cot.common.errors import InputError
from pipeline.conftest import Project, new_project


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder that holds DVC's settings, and is no git repository."""
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", tmp_path / ".dvc/config")
    return tmp_path


def test_a_checkout_without_git_is_told_what_to_do(archive: Path) -> None:
    with pytest.raises(
        InputError, match=r"no git repository, .*; run `git init` here, or, to go without git, `.venv/bin"
    ):
        check_checkout(archive)


@pytest.mark.parametrize(
    "command", [["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "config", "--local", "core.no_scm", "true"]]
)
def test_what_it_is_told_helps(archive: Path, command: list[str]) -> None:
    subprocess.run(command, cwd=archive, check=True, capture_output=True)
    check_checkout(archive)


def test_an_archive_without_its_hidden_folders_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder .dvc is missing"):
        check_checkout(tmp_path)


@pytest.mark.parametrize("program", ["recover", "verify"])
def test_without_git_nothing_is_mended_or_removed(archive: Path, program: str) -> None:
    (archive / "workflow").mkdir()
    for name in (program, "checkout"):
        shutil.copy(ROOT / f"workflow/{name}.py", archive / "workflow")
    (archive / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    ran = subprocess.run([sys.executable, f"workflow/{program}.py"], cwd=archive, capture_output=True, text=True)
    assert ran.returncode and f"{program}: " in ran.stderr and "run `git init` here" in ran.stderr
    assert (archive / "dvc.lock").read_text() == "schema: '2.0'\nstages: {}\n"


def test_a_broken_lock_without_git_is_not_said_to_be_back(archive: Path) -> None:
    (archive / "workflow").mkdir()
    for name in ("recover", "checkout"):
        shutil.copy(ROOT / f"workflow/{name}.py", archive / "workflow")
    command = [sys.executable, "-m", "dvc", "config", "--local", "core.no_scm", "true"]
    subprocess.run(command, cwd=archive, check=True, capture_output=True)
    (archive / "dvc.lock").write_text("schema: '2.0'\nstages: {")
    ran = subprocess.run([sys.executable, "workflow/recover.py"], cwd=archive, capture_output=True, text=True)
    assert "git has no earlier one" in ran.stdout and "committed one is back" not in ran.stdout
    assert not (archive / "dvc.lock").exists()


@pytest.mark.slow
def test_a_git_that_converts_line_ends_checks_out_the_same_bytes(tmp_path: Path) -> None:
    project = new_project(tmp_path / "first")
    clone = Project(tmp_path / "clone")
    subprocess.run(
        ["git", "-c", "core.autocrlf=true", "clone", "--quiet", str(project.folder), str(clone.folder)], check=True
    )
    (clone.folder / ".venv").symlink_to(ROOT / ".venv")
    files = clone.run("git", "ls-files", "-z").rstrip("\0").split("\0")
    different = [name for name in files if (clone.folder / name).read_bytes() != (project.folder / name).read_bytes()]
    assert len(files) > 300 and different == []
    assert "there is no step 'nothing'" in clone.run("docker/run", "nothing", "--image", "cpu", fails=True)


def test_a_moved_checkout_makes_its_environment_anew(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new name"
    old.mkdir()
    shutil.copy(ROOT / "Makefile", old / "Makefile")
    shutil.copytree(ROOT / "locks", old / "locks", ignore=shutil.ignore_patterns("wheels"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", old / ".venv"], check=True)
    (old / ".venv/bin/dvc").write_text(f"#!{old}/.venv/bin/python\n")
    locks = [old / f"locks/{name}.txt" for name in ("torch-cpu", "torch", "cpu", "tools")]
    (old / ".venv/.ready").write_text("".join(path.read_text() for path in locks))

    def planned(folder: Path) -> str:
        return subprocess.run(["make", "-n", "check"], cwd=folder, capture_output=True, text=True, check=True).stdout

    assert "making it anew" not in planned(old)
    (tmp_path / "linked").mkdir()
    shutil.copytree(old, tmp_path / "linked", dirs_exist_ok=True, ignore=shutil.ignore_patterns(".venv"))
    (tmp_path / "linked/.venv").symlink_to(old / ".venv")
    assert "making it anew" not in planned(tmp_path / "linked")
    old.rename(new)
    assert "making it anew" in planned(new)
