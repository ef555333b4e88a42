"""The commit that a report names: known to the step report alone, with a plus where files differ from it."""

import subprocess
from pathlib import Path

import launch
import pytest


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_report_knows_the_commit_and_whether_files_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    assert launch.commit("report") == {}
    git(tmp_path, "init", "--quiet")
    assert launch.commit("report") == {}  # nothing is committed yet
    for name in ("dvc.lock", "recipe.yaml"):
        (tmp_path / name).write_text("before")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "state")
    known = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "dvc.lock").write_text("DVC writes it while it runs")
    assert launch.commit("report") == {"GRPO_COT_COMMIT": known}
    assert launch.commit("train") == {}
    (tmp_path / "recipe.yaml").write_text("after")
    assert launch.commit("report") == {"GRPO_COT_COMMIT": f"{known}+"}
    git(tmp_path, "checkout", "--quiet", "recipe.yaml")
    (tmp_path / "new.yaml").write_text("a recipe of one's own")
    assert launch.commit("report") == {"GRPO_COT_COMMIT": f"{known}+"}


def test_another_projects_repository_around_the_checkout_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "another project")
    (tmp_path / "inside").mkdir()
    monkeypatch.setattr(launch, "ROOT", tmp_path / "inside")
    assert launch.commit("report") == {}
