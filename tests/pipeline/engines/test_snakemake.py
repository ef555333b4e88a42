"""The same pipeline scheduled by Snakemake: on this machine's cores, and on a real Slurm of one node."""

import fcntl
import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import stages
from support import ROOT, outputs_in_lock

from pipeline.conftest import Project, commit, new_project

pytestmark = pytest.mark.slow
LOCAL = ("snakemake", "--profile", "workflow/profiles/local")
SLURM = ("snakemake", "--profile", "workflow/profiles/slurm", "--seconds-between-status-checks", "2",
         "--slurm-init-seconds-before-status-checks", "1")  # fmt: skip


def ran(project: Project) -> set[str]:
    """The stages whose command the last Snakemake really ran."""
    return logged(project, "Running stage")


def logged(project: Project, text: str) -> set[str]:
    """The stages whose last log holds a text."""
    logs = (project.folder / ".cache/snakemake").glob("*.log")
    return {log.stem for log in logs if text in log.read_text()}


def synthetic(folder: Path, count: int, seconds: float) -> Project:
    """A clone whose pipeline is `count` stages side by side, each some seconds of one core's work."""
    project = new_project(folder)
    (project.folder / "workflow/validate.py").write_text("")
    lines = ["stages:"]
    for number in range(count):
        lines += [
            f"  work{number}:",
            f"    cmd: python work.py {seconds} {number} > out{number}",
            "    deps: [work.py, input]",
            f"    outs: [out{number}]",
        ]
    outs = [f"out{number}" for number in range(count)]
    lines += ["  last:", f"    cmd: cat {' '.join(outs)} > all", f"    deps: [{', '.join(outs)}]", "    outs: [all]"]
    (project.folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    (project.folder / "work.py").write_text(
        "import sys, time\n"
        "end = time.process_time() + float(sys.argv[1])\n"
        "while time.process_time() < end:\n    pass\n"
        "print(sys.argv[2], open('input').read())\n"
    )
    (project.folder / "input").write_text("first")
    return project


def check(project: Project) -> None:
    """DVC calls everything done."""
    assert "up to date" in project.run("dvc", "status")
    assert "Running stage" not in project.run("dvc", "repro", "--dry", "--allow-missing")


def need(command: tuple[str, ...]) -> None:
    """Skip a test of Slurm where there is none."""
    if command is SLURM and (not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True).returncode):
        pytest.skip("there is no Slurm on this machine (.ci/services starts one; it needs root)")


@pytest.mark.parametrize(
    ("command", "edited", "stages_run"),
    [
        (LOCAL, "src/grpo_cot/grading/lenient.py", {"grade", "report", "compare"}),
        (SLURM, "scripts/compare.py", {"compare"}),  # a job of Slurm's takes 15 s
    ],
    ids=["local", "slurm"],
)
def test_it_runs_and_records_what_an_edit_made_stale(
    copy: Project, command: tuple[str, ...], edited: str, stages_run: set[str]
) -> None:
    need(command)
    function = "def lenient_answer(" if edited.endswith("lenient.py") else "def main("
    copy.edit(edited, function, f"# edited\n{function}")
    copy.run(*command)
    assert {name.split("@")[0] for name in ran(copy)} == stages_run
    check(copy)
    copy.run(*command)
    assert json.loads((copy.folder / stages.PLAN).read_text()) == {}


@pytest.mark.prove
@pytest.mark.parametrize("command", [LOCAL, SLURM], ids=["local", "slurm"])
def test_it_records_what_dvc_repro_records(finished: Project, tmp_path: Path, command: tuple[str, ...]) -> None:
    need(command)
    project = new_project(tmp_path / "clone")
    said = project.run(*command)
    check(project)
    assert outputs_in_lock(project.folder) == outputs_in_lock(finished.folder)
    assert len(ran(project)) == 21
    assert project.run(*command).count("[") < said.count("[") / 4  # a second run has nothing to do
    assert json.loads((project.folder / stages.PLAN).read_text()) == {}


@pytest.mark.prove
def test_in_a_fresh_clone_it_runs_only_what_an_edit_made_stale(finished: Project, tmp_path: Path) -> None:
    source = Project(tmp_path / "source")
    shutil.copytree(finished.folder, source.folder, symlinks=True)
    source.run("dvc", "remote", "modify", "local", "url", str(tmp_path / "remote"))
    commit(source)
    source.run("dvc", "push", "--run-cache")
    source.run("git", "clone", "--quiet", str(source.folder), str(tmp_path / "clone"))
    (tmp_path / "clone/.venv").symlink_to(ROOT / ".venv")
    clone = Project(tmp_path / "clone")
    clone.run(*LOCAL)
    assert ran(clone) == set() and not (clone.folder / "runs/short-a/train").exists()
    clone.edit("src/grpo_cot/grading/lenient.py", "def lenient_answer(", "# edited\ndef lenient_answer(")
    clone.run(*LOCAL)
    assert {name.split("@")[0] for name in ran(clone)} == {"grade", "report", "compare"}
    assert "Running stage" not in clone.run("dvc", "repro", "--dry", "--allow-missing")


def test_it_passes_snakemakes_lint_and_knows_each_stages_resources(finished: Project) -> None:
    assert "good condition" in finished.run(*LOCAL, "--lint")
    meta = {"image": "cuda", "cpu": "threads=2", "cuda": "threads=8 mem_mb=64000 runtime=60 gpu=1"}
    assert stages.resources(meta) == {"threads": 8, "mem_mb": 64000, "runtime": 60, "gpu": 1}
    assert stages.resources({}) == {"threads": 1}
    on_cpu = {"image": "cpu", "cpu": "threads=2"}
    assert [stages.resources(on_cpu, threads)["threads"] for threads in (None, 1, 8)] == [2, 1, 8]
    assert stages.resources({"image": "cpu", "cpu": "threads=1"}, 8) == {"threads": 1}  # without weights
    assert stages.resources(meta, 2)["threads"] == 8  # on a GPU torch is not what takes the cores


def test_a_bad_recipe_stops_it_with_makes_checks_sentence(copy: Project) -> None:
    copy.edit("experiments/short.yaml", "learning_rate:", "learning_rat:")
    assert "did you mean 'learning_rate'" in copy.run(*LOCAL, fails=True)


def test_dvc_still_has_the_names_that_it_does_not_promise(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(finished.folder)
    with Repo() as repo, repo.lock:
        graph = repo.index.graph
        (train,) = [stage for stage in graph if stage.addressing == "train@short-a"]
        assert {stage.addressing for stage in graph.successors(train)} == {
            "prepare@short-a", "audit@short-a", "base@tiny"
        }  # fmt: skip
        assert train.changed(allow_missing=True, upstream=[]) is False
        assert train.meta["image"] == "cpu" and "threads=2" in train.meta["cpu"]


def test_a_stages_lines_are_put_into_the_lock_as_dvc_writes_them(finished: Project) -> None:
    """The file is the same whoever writes it."""
    import stage
    from dvc.utils.serialize import dumps_yaml, load_yaml

    text = (finished.folder / "dvc.lock").read_text()
    stages = load_yaml(finished.folder / "dvc.lock")["stages"]
    assert text.startswith(stage.HEAD) and stage.BODY.fullmatch(text, len(stage.HEAD)) and len(stages) > 20
    again = stage.HEAD
    for name, entry in stages.items():
        lines = dumps_yaml({"stages": {name: entry}}).removeprefix("stages:\n")
        assert stage.with_stage(text, name, lines) == text
        again = stage.with_stage(again, name, lines)
    assert again == text


def stages_that_end_together(folder: Path, rounds: int) -> None:
    """Eight stages side by side, again and again: each must be recorded."""
    project = synthetic(folder, count=8, seconds=0.01)
    for round_ in range(rounds):
        (project.folder / "input").write_text(f"round {round_}")
        project.run(*LOCAL, "--cores", "8")
        check(project)
        assert len(ran(project)) == 9
        assert (project.folder / "all").read_text().count(f"round {round_}\n") == 8


@pytest.mark.prove
def test_stages_that_end_together_are_all_recorded(tmp_path: Path) -> None:
    stages_that_end_together(tmp_path / "clone", rounds=20)


def test_two_snakemakes_do_not_run_in_one_checkout(tmp_path: Path) -> None:
    project = synthetic(tmp_path / "clone", count=1, seconds=0)
    (project.folder / stages.FOLDER).mkdir(parents=True)
    with (project.folder / stages.FOLDER / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another Snakemake is at work" in project.run(*LOCAL, fails=True)
    project.run(*LOCAL)


def dvc_of(project: Project) -> int:
    """The pid of a dvc that is at work in the project."""
    return next(
        int(process.pid)
        for process in psutil.process_iter(["cmdline", "cwd"])
        if any(word.endswith("workflow/stage.py") for word in process.info["cmdline"] or ())
        and process.info["cwd"] == str(project.folder)
    )


@pytest.mark.parametrize("victim", ["snakemake", pytest.param("dvc", marks=pytest.mark.prove)])
def test_after_a_kill_one_command_recovers_and_finished_stages_stay_finished(tmp_path: Path, victim: str) -> None:
    project = synthetic(tmp_path / "clone", count=6, seconds=2)
    with (project.folder / "said").open("w") as said:
        run = subprocess.Popen(
            [*LOCAL, "--cores", "2"], cwd=project.folder, env=project.environment, stdout=said, stderr=said
        )
    deadline = time.monotonic() + 60
    while not logged(project, "Updating lock file") and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(random.uniform(0, 1))
    if victim == "snakemake":
        run.kill()
    else:
        psutil.Process(dvc_of(project)).kill()
    run.wait()
    project.run("make", "--assume-old=.venv/.ready", "recover")
    recorded = logged(project, "Updating lock file")
    assert recorded
    for log in (project.folder / ".cache/snakemake").glob("*.log"):
        log.unlink()
    project.run(*LOCAL)
    check(project)
    assert not ran(project) & recorded


def test_recover_mends_a_half_written_lock_from_the_run_cache(tmp_path: Path) -> None:
    project = synthetic(tmp_path / "clone", count=3, seconds=0.1)
    project.run(*LOCAL)
    lock = project.folder / "dvc.lock"
    whole = lock.read_text()
    for cut in (0, whole.rindex("path: ") + 6, len(whole) - 50):  # DVC accepts the first, YAML the second
        lock.write_text(whole[:cut])
        (project.folder / "runs/.train.7.tmp").mkdir(parents=True)
        assert "half-written" in project.run("make", "--assume-old=.venv/.ready", "recover")
        assert not (project.folder / "runs/.train.7.tmp").exists()
        said = project.run("dvc", "repro")
        assert "is cached - skipping run" in said
        check(project)


def test_recover_leaves_an_editor_alone(tmp_path: Path) -> None:
    project = synthetic(tmp_path / "clone", count=1, seconds=0)
    with subprocess.Popen(["tail", "-f", "scripts/train.py"], cwd=project.folder, stdout=subprocess.DEVNULL) as editor:
        project.run("make", "--assume-old=.venv/.ready", "recover")
        assert editor.poll() is None
        editor.kill()


@pytest.mark.prove
def test_after_a_failed_stage_and_the_edit_taken_back_nothing_is_missing(tmp_path: Path) -> None:
    project = synthetic(tmp_path / "clone", count=2, seconds=0.1)
    project.run(*LOCAL)
    project.edit("work.py", "import sys", "import sys, nothing")
    assert "nothing" in project.run(*LOCAL, fails=True)
    project.edit("work.py", "import sys, nothing", "import sys")
    project.run(*LOCAL)
    assert ran(project) <= {"work0", "work1"} and (project.folder / "out0").exists()
    check(project)


def lose_all_but_the_first(project: Project, remote: Path) -> None:
    """The remote has one of three files of a finished pipeline, and the clone has none; the last stage is stale."""
    project.run("dvc", "remote", "modify", "local", "url", str(remote))
    project.run(*LOCAL)
    project.run("dvc", "push", "out0")
    shutil.rmtree(project.folder / ".dvc/cache")
    shutil.rmtree(project.folder / stages.FOLDER)  # the first run's logs
    for number in range(3):
        (project.folder / f"out{number}").unlink()
    project.edit("dvc.yaml", "cat out0 out1 out2 > all", "cat out2 out1 out0 > all")


def test_what_the_remote_has_not_is_made_again_where_its_stage_waits_for_no_other(tmp_path: Path) -> None:
    """Other stages that read it, and are not stale, do not run."""
    project = synthetic(tmp_path / "clone", count=3, seconds=0.1)
    path = project.folder / "dvc.yaml"
    path.write_text(path.read_text() + "  beside: {cmd: cat out1 > beside, deps: [out1], outs: [beside]}\n")
    lose_all_but_the_first(project, tmp_path / "remote")
    said = project.run(*LOCAL)
    assert "out1, out2: not got from a remote; made again by work1, work2" in said
    assert ran(project) == {"work1", "work2", "last"}
    check(project)


def test_a_lost_file_of_a_later_stage_is_named_and_not_made_again(tmp_path: Path) -> None:
    """It may be a training of a week. All that is lost is named at once."""
    project = synthetic(tmp_path / "clone", count=3, seconds=0.1)
    project.edit("dvc.yaml", "deps: [work.py, input]", "deps: [work.py, input, first]")
    path = project.folder / "dvc.yaml"
    path.write_text(path.read_text() + "  first: {cmd: touch first, outs: [first]}\n")
    lose_all_but_the_first(project, tmp_path / "remote")
    said = project.run(*LOCAL, fails=True)
    assert "out1, out2: missing here and in the remote" in said and "`dvc repro work1 work2` makes them again" in said
    assert (project.folder / "out0").exists()
    project.run("dvc", "repro", "work1", "work2")
    project.run(*LOCAL)
    check(project)


def test_a_rehearsal_changes_nothing(tmp_path: Path) -> None:
    project = synthetic(tmp_path / "clone", count=2, seconds=0.1)
    assert "work1" in project.run(*LOCAL, "--dry-run")
    assert not (project.folder / stages.PLAN).exists() and not (project.folder / "dvc.lock").exists()


def test_a_rehearsal_after_a_run_names_what_an_edit_made_stale(tmp_path: Path) -> None:
    project = synthetic(tmp_path / "clone", count=1, seconds=0.1)
    project.run(*LOCAL)
    assert "work0" not in project.run(*LOCAL, "--dry-run")
    project.edit("input", "first", "second")
    said = project.run(*LOCAL, "-np")
    assert "work0" in said and "last" in said
    assert (project.folder / "all").read_text() == "0 first\n"
