"""Scratch folders: one trainer at a time, whole checkpoints only, and nobody else's state."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from grpo_cot.resuming import Callers, Journal, exclusive, fingerprint, last_whole_checkpoint, resumable

HOLD = "import sys, time, pathlib; from grpo_cot.resuming import exclusive\n" \
       "with exclusive(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"  # fmt: skip


def test_a_second_trainer_waits_names_the_pid_and_gets_the_folder_when_the_first_is_killed(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert first.stdout and first.stdout.readline() == "held\n"
    second = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert second.stdout and f"pid {first.pid}" in second.stdout.readline()
    first.kill()
    assert second.stdout.readline() == "held\n"
    second.kill()
    first.wait(), second.wait()


def test_the_lock_ends_with_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with exclusive(tmp_path):
            assert (tmp_path / "lock").read_text().strip() == str(os.getpid())


def test_a_half_written_checkpoint_is_passed_over_and_removed(tmp_path: Path) -> None:
    for step, state in ((9, '{"global_step": 9}'), (10, '{"global_step": 10}'), (20, '{"global_st'), (30, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state:
            (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert last_whole_checkpoint(tmp_path / "absent") is None


def test_any_changed_part_changes_the_fingerprint_and_the_order_of_keys_does_not() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2}}) == fingerprint({"b": {"c": 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_callers_notice_the_death_of_whoever_started_them(tmp_path: Path) -> None:
    watch = (
        "import time, pathlib, sys; from grpo_cot.resuming import Callers; callers = Callers(); import json\n"
        "out = pathlib.Path(sys.argv[1]); out.write_text(json.dumps([callers.alive()]))\n"
        "while callers.alive(): time.sleep(0.05)\n"
        "out.write_text('noticed')"
    )
    said = tmp_path / "said"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {watch!r}, {str(said)!r}])",
        ]
    )
    deadline = time.monotonic() + 30
    while not said.exists() or not said.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert json.loads(said.read_text()) == [True]
    parent.kill()
    parent.wait()
    while said.read_text() != "noticed":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_living_callers_of_this_test_are_alive() -> None:
    assert Callers().alive()


def test_a_journal_gives_back_what_was_finished_and_drops_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "new/finished.jsonl"
    journal = Journal(path)
    journal["base 0"] = [["a\nb", 1, False]]
    journal["base 1"] = [["ế", 2, True]]
    written = path.read_bytes()
    for cut in (written + b'["base 2", [["c', written + b'["base 2", []]'):
        path.write_bytes(cut)
        again = Journal(path)
        assert dict(again) == {"base 0": [["a\nb", 1, False]], "base 1": [["ế", 2, True]]}
        again["base 2"] = []
        assert dict(Journal(path)) == dict(again)


def interrupted(root: Path, **parts: Any) -> Path:
    """The scratch folder of a run that failed after it had finished a piece of work."""
    with pytest.raises(KeyboardInterrupt), resumable(root, parts) as folder:
        Journal(folder / "finished.jsonl")["a"] = 1
        raise KeyboardInterrupt
    return folder


def test_an_interrupted_run_goes_on_in_its_folder_which_success_removes(tmp_path: Path) -> None:
    first = interrupted(tmp_path, seed=1)
    with resumable(tmp_path, {"seed": 1}) as again:
        assert again == first
        assert dict(Journal(again / "finished.jsonl")) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_the_folder_of_other_settings_is_kept_for_a_week_and_named_with_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = interrupted(tmp_path, seed=1, recipe={"phases": [1], "model": "x"})
    with resumable(tmp_path, {"seed": 2, "recipe": {"phases": [2], "model": "x"}}):
        pass
    assert f"Kept {other}, of an interrupted run that differs in recipe.phases, seed:" in capsys.readouterr().out
    assert (other / "finished.jsonl").is_file()
    for path in other.iterdir():
        os.utime(path, (0, time.time() - 8 * 24 * 3600))
    with resumable(tmp_path, {"seed": 2}):
        pass
    assert f"Removed {other}: nothing was written there for a week." in capsys.readouterr().out
    assert not other.exists()


def test_a_run_is_bound_to_the_code_that_it_has_loaded_in_every_room(tmp_path: Path) -> None:
    code = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import grpo_cot.resuming, grpo_cot.rewards.ours, grpo_cot.problems.generators
with grpo_cot.resuming.resumable(pathlib.Path(sys.argv[2]), {}) as folder:
    print(folder.name)
"""
    package = tmp_path / "src/grpo_cot"
    shutil.copytree(ROOT / "src/grpo_cot", package, ignore=shutil.ignore_patterns("__pycache__"))

    def folder() -> str:
        command = [sys.executable, "-c", code, tmp_path / "src", tmp_path / "scratch"]
        environment = {**os.environ, "PYTHONPATH": ""}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    first = folder()
    (tmp_path / "my_rewards.py").write_text("")  # of the user's: what lies beside it is no code
    code = code.replace("import grpo_cot", f"sys.path.append({str(tmp_path)!r})\nimport my_rewards, grpo_cot", 1)
    first = folder()
    (tmp_path / "params.yaml").write_text("runs: {}\n")
    assert folder() == first
    for unused in ("reporting/templates/report.html.jinja", "memory/estimate.py", "grading/grade.py"):
        (package / unused).write_text((package / unused).read_text() + "\n")
        assert folder() == first, unused
    for used in ("rewards/ours.py", "numbers.py", "problems/phrasings.yaml"):
        (package / used).write_text((package / used).read_text() + "\n")
        assert folder() != first, used
        first = folder()
