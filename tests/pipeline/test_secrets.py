"""Secrets that a user's shell holds turn up nowhere: not in logs, artifacts, DVC's files, pages, dashboards' files,
messages of a crash, or on a command line that any user of the machine can read."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from pipeline.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.prove]
PLANTED = {
    "HF_TOKEN": "hf_planted-hub-token", "HUGGING_FACE_HUB_TOKEN": "hf_planted-old-token",
    "WANDB_API_KEY": "planted-dashboard-key-of-forty-characters", "WANDB_MODE": "offline",
    "AWS_ACCESS_KEY_ID": "planted-storage-id", "AWS_SECRET_ACCESS_KEY": "planted-storage-key",
    "HTTPS_PROXY": "http://user:planted-proxy-password@127.0.0.1:9", "PGPASSWORD": "planted-database-password",
    "PIP_INDEX_URL": "https://user:planted-index-password@127.0.0.1:9/simple",
}  # fmt: skip
CRASHING = """
from grpo_cot.rewards import promises

@promises(pays=["<answer>18</answer>"], never=["nothing"])
def crashing(prompts, completions, **columns):
    if len(completions) > 8:  # in training, and not in the audit
        raise RuntimeError("the reward broke")
    return [float("18" in str(completion)) for completion in completions]
"""
# What a run leaves: places by what they are.
PLACES = {
    "unfinished work and checkpoints": ".cache", "W&B's files": ".cache/wandb", "Trackio's": ".cache/trackio",
    "TensorBoard's": ".cache/tensorboard", "artifacts": "runs", "the published folder": "published", "pages": "reports",
    "records": "record", "data sets": "data", "DVC's cache, logs and run cache": ".dvc", "dvc.lock": "dvc.lock",
}  # fmt: skip


def watched(project: Project, *command: str) -> tuple[int, str, set[str]]:
    """A command's status, what it says, and every command line of its processes."""
    lines: set[str] = set()
    with (project.folder / "said").open("w+") as log:
        run = psutil.Popen(
            command, cwd=project.folder, env=project.environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        while run.poll() is None:
            with suppress(psutil.Error):  # one that has just ended
                lines |= {" ".join(process.cmdline()) for process in run.children(recursive=True)}
            time.sleep(0.02)
        log.seek(0)
        said = log.read()
    (project.folder / "said").unlink()
    return run.returncode, said, lines


def holders(project: Project, place: str) -> Iterator[str]:
    """The files of a place that hold a planted secret."""
    root = project.folder / place
    for path in [root] if root.is_file() else root.rglob("*"):
        if path.is_file() and b"planted-" in path.read_bytes():
            yield str(path.relative_to(project.folder))


def test_planted_secrets_turn_up_nowhere(copy: Project) -> None:
    copy.environment |= PLANTED
    recipe = "experiments/short.yaml"
    copy.edit(recipe, "report_to: none", "report_to: [tensorboard, wandb, trackio]")
    copy.edit(recipe, "    rollouts: null", "    show_completions: 3\n    rollouts: null")
    status, said, lines = watched(copy, "dvc", "repro", "publish@short-a", "report@short-a")
    assert status == 0, said[-3000:]
    copy.run("python", "workflow/index.py")
    assert any("scripts/train.py" in line for line in lines) and any("scripts/publish.py" in line for line in lines)
    for place in PLACES.values():
        assert (copy.folder / place).exists(), place

    shutil.copy(copy.folder / recipe, copy.folder / "experiments/crash.yaml")
    (copy.folder / "my_rewards.py").write_text(CRASHING)
    copy.edit("experiments/crash.yaml", "  xml_count: 0\n", "  my_rewards.crashing: 1.0\n")
    copy.edit(
        "params.yaml", "datasets:", "  crash: {recipe: crash, dataset: few, base: tiny, image: cpu, seed: 1}\ndatasets:"
    )
    status, crash, more = watched(copy, "dvc", "repro", "train@crash")
    assert status != 0 and "the reward broke" in crash, crash[-3000:]

    assert "planted-" not in said + crash
    assert not [line for line in lines | more if "planted-" in line]
    assert {place: found for place in PLACES.values() if (found := list(holders(copy, place)))} == {}
