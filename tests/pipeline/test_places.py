"""The pipeline in places and with settings that its authors do not have: the same bytes, or one sentence."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import ROOT

from pipeline.conftest import Project, new_project
from pipeline.test_kills import PARAMS, REPRO, outputs

pytestmark = pytest.mark.slow
DEAD = "http://127.0.0.1:9"
# In every Python process: locks as a file system without them refuses them.
LOCKLESS = """
import errno, fcntl
def refuse(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = fcntl.lockf = refuse
"""


@pytest.mark.prove
def test_a_worktree_at_an_odd_path_in_an_odd_environment_gives_the_same_bytes(
    finished: Project, tmp_path: Path
) -> None:
    """Spaces, letters beyond ASCII and quotes in the path; C's locale; a home that nobody can write; a proxy that is
    dead, which no step of this run needs; files for their owner alone."""
    source = new_project(tmp_path / "source", PARAMS)
    place = tmp_path / "Größe des 模型 'q'"
    source.run("git", "worktree", "add", "--quiet", "-b", "other", str(place))
    (place / ".venv").symlink_to(ROOT / ".venv")
    project = Project(place)
    project.environment |= {
        "LC_ALL": "C", "LANG": "C", "HOME": "/proc", "XDG_CACHE_HOME": "/proc/none", "HTTPS_PROXY": DEAD,
        "HTTP_PROXY": DEAD,
    }  # fmt: skip
    project.run("sh", "-c", 'umask 077; exec "$@"', "sh", *REPRO)
    expected = {name: digest for name, digest in outputs(finished).items() if "short-b" not in name}
    assert outputs(project) == expected
    assert project.run(*REPRO).count("Running stage") == 0


def test_a_file_system_without_locks_is_one_sentence(finished: Project, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LOCKLESS)
    project = Project(finished.folder)
    project.environment["PYTHONPATH"] = f"src{os.pathsep}{tmp_path}"
    for command in (("dvc", "status"), ("snakemake", "--profile", "workflow/profiles/local")):
        said = project.run(*command, fails=True)
        assert "Traceback" not in said and "lock" in said, said


def test_a_read_only_checkout_is_one_sentence_and_leaves_what_is_there(copy: Project) -> None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting needs root")
    before = outputs(copy)
    copy.edit("src/grpo_cot/grading/lenient.py", "def lenient_answer(", "# edited\ndef lenient_answer(")
    folder = str(copy.folder)
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
        pytest.skip("this container may not mount a folder")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        said = copy.run(*REPRO, fails=True)
        assert "Read-only file system" in said and "Traceback" not in said, said
    finally:
        subprocess.run(["umount", folder], check=True)
    assert outputs(copy) == before
    copy.run(*REPRO)


@pytest.mark.parametrize("moment", [0, 2**32], ids=["back", "ahead"])
def test_after_a_jump_of_the_clock_an_edit_is_still_noticed(copy: Project, moment: int) -> None:
    """An edit that keeps the file's size, with a date of 1970 or of 2106."""
    path = copy.folder / "experiments/short.yaml"
    copy.edit("experiments/short.yaml", "max_new_tokens: 48", "max_new_tokens: 47")
    os.utime(path, (moment, moment))
    said = copy.run("dvc", "status", "evaluate@short-a", "merge@short-a")
    assert "evaluate@short-a" in said and "changed" in said and "merge@short-a" not in said
