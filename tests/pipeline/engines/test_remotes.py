"""Remotes as users use them: a folder, a real SSH server, and S3; second checkouts, killed pushes, flipped bytes."""

import getpass
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import ROOT

from pipeline.conftest import Project, commit

pytestmark = pytest.mark.slow

BUCKET = "outputs"
PATHS = ("one", "folder", "folder/second")  # a file, a folder's manifest, a member of a folder
SMALL = """\
stages:
  make:
    cmd: mkdir -p folder && seq 2000 > folder/first && seq 3000 > folder/second && seq 4000 > one
    deps: [source]
    outs: [folder, one]
  use:
    cmd: cat folder/first folder/second one > both
    deps: [folder, one]
    outs: [both]
"""
MANY = """\
import pathlib, random
pathlib.Path("many").mkdir()
for number in range(200):
    pathlib.Path(f"many/{number}").write_bytes(random.Random(number).randbytes(1 << 18))
"""
# One byte of an object changes, in the cache or wherever the remote is.
FLIP = """\
import sys
from dvc.repo import Repo
where, name, position = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Repo() as repo:
    objects = repo.cache.local if where == "cache" else repo.cloud.get_remote_odb(where)
    files, path = objects.fs, objects.oid_to_path(name.removeprefix("files/md5/").replace("/", ""))
    with files.open(path, "rb") as file:
        content = bytearray(file.read())
    content[position] ^= 1
    files.remove(path)
    with files.open(path, "wb") as file:
        file.write(content)
    objects.protect(path)  # read-only on a disk, as DVC leaves it
"""


@dataclass
class Remote:
    """What a user says to use a remote, and what is there."""

    url: str
    folder: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def use(self, project: Project) -> None:
        project.environment |= self.environment
        project.run("dvc", "remote", "add", "--local", "--default", "shared", self.url)
        for name, value in {"verify": "true", **self.settings}.items():
            project.run("dvc", "remote", "modify", "--local", "shared", name, value)

    def objects(self) -> int:
        """How many objects are there, under their final names."""
        if self.folder:
            return sum(1 for path in self.folder.rglob("files/md5/*/*") if not path.name.endswith(".tmp"))
        listing = (
            f"{self.settings['endpointurl']}/{BUCKET}?list-type=2&prefix={self.url.removeprefix(f's3://{BUCKET}/')}/"
        )
        with urllib.request.urlopen(listing) as answer:
            return answer.read().count(b"<Key>")


@pytest.fixture(scope="module")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Moto's server: a stand-in which speaks S3's protocol, as there is no S3 on a test machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path_factory.mktemp("moto") / "log").open("w") as log:
        command = [ROOT / ".venv/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("moto_server does not answer")
        yield endpoint
    finally:
        server.terminate()
        server.wait()


PROVE = pytest.mark.prove


@pytest.fixture(params=["folder", pytest.param("ssh", marks=PROVE), pytest.param("s3", marks=PROVE)])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "ssh":
        host, key = os.environ.get("GRPO_COT_TEST_SSH"), os.environ.get("GRPO_COT_TEST_SSH_KEY")
        if not host or not key:
            pytest.skip("GRPO_COT_TEST_SSH and GRPO_COT_TEST_SSH_KEY name no SSH server (.ci/services starts one)")
        folder = tmp_path / "remote"
        return Remote(f"ssh://{getpass.getuser()}@{host}{folder}", folder, {"keyfile": key})
    if request.param == "s3":
        endpoint = request.getfixturevalue("s3_endpoint")
        secrets = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        return Remote(f"s3://{BUCKET}/{tmp_path.name}", None, {"endpointurl": endpoint}, secrets)
    return Remote(str(tmp_path / "remote"), tmp_path / "remote")


@pytest.fixture(scope="module")
def small_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A pipeline of a second, with what `make verify` needs."""
    folder = tmp_path_factory.mktemp("small")
    library = (f"src/grpo_cot/{name}.py" for name in ("__init__", "common/__init__", "common/errors", "common/files"))
    for name in ("Makefile", "workflow/checkout.py", "workflow/verify.py", *library):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / ".gitignore").write_text(".venv\n__pycache__\n")
    (folder / "dvc.yaml").write_text(SMALL)
    (folder / "source").write_text("1\n")
    project = Project(folder)
    project.run("git", "init", "--quiet")
    project.run("dvc", "init", "--quiet")
    project.run("dvc", "config", "core.analytics", "false")
    project.run("dvc", "repro", "--quiet")
    commit(project)
    return project


@pytest.fixture
def small(small_once: Project, tmp_path: Path) -> Project:
    shutil.copytree(small_once.folder, tmp_path / "small", symlinks=True)
    return Project(tmp_path / "small")


def clone(project: Project, folder: Path, remote: Remote) -> Project:
    project.run("git", "clone", "--quiet", str(project.folder), str(folder))
    (folder / ".venv").symlink_to(ROOT / ".venv")
    shutil.copy(project.folder / ".dvc/config.local", folder / ".dvc")  # instead of the commands, which take seconds
    other = Project(folder)
    other.environment |= remote.environment
    return other


def verify(project: Project, *, remote: bool = False, fails: bool = False) -> str:
    command = ["make", "--no-print-directory", "--assume-old=.venv/.ready", "verify"]
    return project.run(*command, *(["REMOTE=shared"] if remote else []), fails=fails)


def object_of(project: Project, path: str) -> str:
    """The name of the object that the cache keeps an output's or an output's member's content in."""
    file = project.folder / path
    if file.is_dir():
        entry = (project.folder / "dvc.lock").read_text().split(f"path: {path}\n")[1].split("md5: ")[1].split()[0]
        return f"files/md5/{entry[:2]}/{entry[2:]}"
    digest = subprocess.run(["md5sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    return f"files/md5/{digest[:2]}/{digest[2:]}"


def flip(project: Project, where: str, name: str, position: int = 15) -> None:
    project.run("python", "-c", FLIP, where, name, str(position))


def outputs(project: Project) -> dict[str, bytes]:
    paths = [project.folder / path for path in ("one", "both", "folder/first", "folder/second")]
    return {str(path.relative_to(project.folder)): path.read_bytes() for path in paths if path.exists()}


@pytest.mark.parametrize("remote", ["ssh", "s3"], indirect=True)
def test_a_remote_gives_back_the_bytes_that_it_was_given(small: Project, tmp_path: Path, remote: Remote) -> None:
    remote.use(small)
    small.run("dvc", "push", "--quiet")
    other = clone(small, tmp_path / "other", remote)
    other.run("dvc", "pull", "--quiet")
    assert outputs(other) == outputs(small)
    assert " 0 corrupt" in verify(small, remote=True)


@PROVE
def test_a_second_checkout_runs_nothing_and_an_edited_one_what_changed(
    finished: Project, tmp_path: Path, remote: Remote
) -> None:
    source = Project(tmp_path / "source")
    shutil.copytree(finished.folder, source.folder, symlinks=True)
    remote.use(source)
    source.run("dvc", "push", "--run-cache")
    second = clone(source, tmp_path / "second", remote)
    assert second.repro("--pull", "--allow-missing") == []
    second.run("dvc", "pull")
    assert second.repro() == []

    edited = clone(source, tmp_path / "edited", remote)
    edited.edit("experiments/short.yaml", "How many r's are in strawberry?", "What is 2 + 3?")
    ran = edited.repro("--pull", "--allow-missing", "report@short-a")
    # The card and the report quote the recipe.
    assert sorted(ran) == ["check@short-a", "publish@short-a", "report@short-a"]


def test_a_killed_push_leaves_no_half_object_and_goes_on(small: Project, tmp_path: Path, remote: Remote) -> None:
    small.run("python", "-c", MANY)
    small.run("dvc", "add", "--quiet", "many")
    commit(small)
    remote.use(small)
    push = subprocess.Popen(
        ["dvc", "push", "--quiet", "--jobs", "2"], cwd=small.folder, env=small.environment, start_new_session=True
    )
    while remote.objects() < 5:
        assert push.poll() is None
    push.kill()
    push.wait()
    assert remote.objects() < 200
    assert " 0 corrupt" in verify(small, remote=True)
    small.run("dvc", "push", "--quiet")
    other = clone(small, tmp_path / "other", remote)
    other.run("dvc", "pull", "--quiet")
    assert {path.name: path.read_bytes() for path in (other.folder / "many").iterdir()} == {
        str(number): random.Random(number).randbytes(1 << 18) for number in range(200)
    }


def test_flipped_bytes_in_the_remote_are_refused_named_and_repaired(
    small: Project, tmp_path: Path, remote: Remote
) -> None:
    remote.use(small)
    small.run("dvc", "push", "--quiet", "--run-cache")
    assert "0 corrupt, 0 missing" in verify(small, remote=True)
    for path in PATHS:
        flip(small, "shared", object_of(small, path))
    other = clone(small, tmp_path / "other", remote)
    other.run("dvc", "pull", fails=True)
    assert outputs(other).items() < outputs(small).items()  # what came is right
    said = verify(small, remote=True)
    for path in PATHS:
        assert f"{object_of(small, path)} ({path}) is corrupt: restored from the workspace" in said
    assert "0 corrupt, 0 missing" in verify(small, remote=True)
    verify(other)  # what a pull leaves that stopped midway
    other.run("dvc", "pull")
    assert outputs(other) == outputs(small)
    assert " 0 corrupt" in verify(other)


def test_flipped_bytes_in_the_cache_are_named_and_repaired_from_workspace_or_remote(
    small: Project, remote: Remote
) -> None:
    remote.use(small)
    small.run("dvc", "push", "--quiet")
    before, names = outputs(small), {path: object_of(small, path) for path in PATHS}
    for origin in ("the workspace", "remote 'shared'"):
        for name in names.values():
            flip(small, "cache", name)
        if origin != "the workspace":
            shutil.rmtree(small.folder / "folder")
            (small.folder / "one").unlink()
        said = verify(small)
        for path, name in names.items():
            assert f"{name} ({path}) is corrupt: restored from {origin}" in said
    small.run("dvc", "checkout")
    assert outputs(small) == before
    assert "up to date" in small.run("dvc", "status")
    assert " 0 corrupt" in verify(small)


def test_what_was_checked_out_of_a_corrupt_object_is_replaced(small: Project, tmp_path: Path) -> None:
    Remote(str(tmp_path / "remote")).use(small)
    small.run("dvc", "push", "--quiet")
    before, name = outputs(small), object_of(small, "folder/second")
    flip(small, "cache", name)
    shutil.rmtree(small.folder / "folder")
    small.run("dvc", "checkout")
    assert outputs(small) != before and "up to date" in small.run("dvc", "status")  # DVC believes the cache
    assert "folder/second was checked out of it: replaced" in verify(small)
    assert outputs(small) == before


def test_without_an_intact_copy_the_object_is_removed_and_its_stage_runs_again(small: Project) -> None:
    before, name = outputs(small), object_of(small, "one")
    flip(small, "cache", name)
    (small.folder / "one").unlink()
    small.run("dvc", "checkout")
    said = verify(small, fails=True)
    assert f"{name} (one) is corrupt: no intact copy, removed; `dvc repro make` makes it again" in said
    assert small.repro() == ["make"]
    assert outputs(small) == before
    assert " 0 corrupt" in verify(small)


def test_a_remote_object_without_an_intact_copy_is_pushed_again_by_who_has_it(
    small: Project, tmp_path: Path, remote: Remote
) -> None:
    remote.use(small)
    small.run("dvc", "push", "--quiet")
    name = object_of(small, "folder/second")
    flip(small, "shared", name)
    other = clone(small, tmp_path / "other", remote)
    assert f"{name} (folder/second) is corrupt: no intact copy, removed;" in verify(other, remote=True, fails=True)
    small.run("dvc", "push")
    other.run("dvc", "pull")
    assert outputs(other) == outputs(small)


def test_a_member_that_the_remote_lacks_is_pushed_again(small: Project, tmp_path: Path) -> None:
    Remote(str(tmp_path / "remote")).use(small)
    small.run("dvc", "push", "--quiet")
    name = object_of(small, "folder/second")
    (tmp_path / "remote" / name).unlink()
    assert "up to date" in small.run("dvc", "push")  # DVC takes the folder's manifest as proof
    assert f"{name} (folder/second) is missing: restored from the workspace" in verify(small, remote=True)
    assert "0 corrupt, 0 missing" in verify(small, remote=True)


def test_a_changed_entry_of_the_run_cache_is_found(small: Project, tmp_path: Path) -> None:
    Remote(str(tmp_path / "remote")).use(small)
    small.run("dvc", "push", "--quiet", "--run-cache")
    cache = small.folder / ".dvc/cache"
    entry = next(path for path in (cache / "runs").rglob("*") if path.is_file() and "path: both" in path.read_text())
    text, name = entry.read_text(), entry.relative_to(cache).as_posix()
    one, both = (object_of(small, path).removeprefix("files/md5/").replace("/", "") for path in ("one", "both"))
    entry.write_text(text.replace(both, one))  # DVC would check out the wrong file without a word
    assert f"{name} (run cache) is corrupt: restored from remote 'shared'" in verify(small)
    assert entry.read_text() == text
    shutil.rmtree(tmp_path / "remote")
    entry.write_text("[")
    assert "nothing is lost" in verify(small)
    assert not entry.exists() and small.repro() == []


def test_verify_says_in_a_sentence_what_stops_it(small: Project, tmp_path: Path) -> None:
    assert "verify: config file error: remote 'shared' doesn't exist\n" in verify(small, remote=True, fails=True)
    Remote(str(tmp_path / "nowhere")).use(small)
    assert "verify: remote 'shared' holds no objects at" in verify(small, remote=True, fails=True)
    small.run("dvc", "remote", "modify", "--local", "shared", "url", "ssh://127.0.0.1:1/nowhere")
    said = verify(small, remote=True, fails=True)
    assert "verify: remote 'shared' cannot be reached: " in said and "Traceback" not in said
