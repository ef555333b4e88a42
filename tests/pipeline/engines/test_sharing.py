"""One remote for several people: two users of one machine, pushes at the same moment, and a garbage collection."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.conftest import Project, commit, use_systems_python
from pipeline.engines.test_remotes import Remote, clone, outputs, small, small_once  # noqa: F401

pytestmark = pytest.mark.slow
# DVC asks for a user's name, so these are users of every Linux.
FIRST, SECOND = (pwd.getpwnam(name).pw_uid for name in ("daemon", "bin"))
GROUP = pwd.getpwnam("nobody").pw_gid


def as_user(project: Project, user: int, mask: str, *command: str, fails: bool = False) -> str:
    """What a command says to a user of the group whose files have that mask."""
    who = ("setpriv", f"--reuid={user}", f"--regid={GROUP}", "--clear-groups")
    return project.run(*who, "sh", "-c", f'umask {mask}; exec "$@"', "sh", "python", "-m", *command, fails=fails)


def given_to(project: Project, user: int) -> None:
    """Make a checkout a user's own, with a home in it."""
    home = project.folder / "home"
    home.mkdir()
    project.environment |= {"HOME": str(home), "DVC_SITE_CACHE_DIR": str(home / "site")}
    subprocess.run(["chown", "-R", f"{user}:{GROUP}", project.folder], check=True)


def test_two_users_share_a_folder_and_one_who_shuts_it_is_named(small: Project, tmp_path: Path) -> None:  # noqa: F811
    """With `umask 002` and a folder of the group all is shared; files for their owner alone cannot be."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("becoming two users needs root")
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder != Path("/tmp") and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    (tmp_path / "remote").mkdir()
    os.chown(tmp_path / "remote", FIRST, GROUP)
    (tmp_path / "remote").chmod(0o2770)
    remote = Remote(str(tmp_path / "remote"))
    remote.use(small)
    other = clone(small, tmp_path / "other", remote)
    for project, user in ((small, FIRST), (other, SECOND)):
        use_systems_python(project)
        given_to(project, user)

    as_user(small, FIRST, "077", "dvc", "push")
    said = as_user(other, SECOND, "002", "dvc", "pull", fails=True)
    assert "Permission denied" in said and "Traceback" not in said, said
    assert outputs(other) == {}

    subprocess.run(["chmod", "-R", "g+rwX", tmp_path / "remote"], check=True)  # what the first user then does
    as_user(other, SECOND, "002", "dvc", "pull")
    assert outputs(other) == outputs(small)
    (other.folder / "source").write_text("2\n")
    as_user(other, SECOND, "002", "dvc", "repro")
    as_user(other, SECOND, "002", "dvc", "push")
    shutil.copy(other.folder / "dvc.lock", small.folder)
    (small.folder / "source").write_text("2\n")
    as_user(small, FIRST, "002", "dvc", "pull")
    assert outputs(small) == outputs(other)


def test_two_clones_push_to_one_remote_at_once(small: Project, tmp_path: Path) -> None:  # noqa: F811
    remote = Remote(str(tmp_path / "remote"), tmp_path / "remote")
    remote.use(small)
    clones = [clone(small, tmp_path / name, remote) for name in ("one", "two")]
    for number, project in enumerate(clones):
        project.edit("dvc.yaml", "seq 2000", f"seq {2001 + number}")
        project.run("dvc", "repro", "--quiet")
    pushes = [
        subprocess.Popen(["dvc", "push"], cwd=project.folder, env=project.environment, stdout=subprocess.DEVNULL)
        for project in clones
    ]
    assert [push.wait() for push in pushes] == [0, 0]
    for project in clones:
        again = clone(small, tmp_path / f"{project.folder.name}-again", remote)
        for name in ("dvc.yaml", "dvc.lock"):
            shutil.copy(project.folder / name, again.folder)
        again.run("dvc", "pull")
        assert outputs(again) == outputs(project)


@pytest.mark.parametrize("runs", [3, pytest.param(100, marks=pytest.mark.prove)])
def test_a_garbage_collection_keeps_the_outputs_of_every_commit(small: Project, runs: int) -> None:  # noqa: F811
    contents = []
    for number in range(runs):
        small.edit("dvc.yaml", f"seq {2000 + number} ", f"seq {2001 + number} ")
        small.run("dvc", "repro", "--quiet")
        commit(small)
        contents.append(outputs(small))
    small.run("dvc", "gc", "--all-commits", "--force")
    for number in range(runs):
        small.run("git", "checkout", "--quiet", f"HEAD~{runs - 1 - number}")
        small.run("dvc", "checkout", "--quiet")
        assert outputs(small) == contents[number]
        small.run("git", "checkout", "--quiet", "-")
    small.run("dvc", "checkout", "--quiet")
    small.run("dvc", "gc", "--workspace", "--force")
    assert "up to date" in small.run("dvc", "status") and outputs(small) == contents[-1]
