"""A reward from outside the library: one file, one line in the recipe, and DVC notices its edits."""

import json
import shutil

import pytest

from pipeline.conftest import Project

pytestmark = pytest.mark.slow
OWN = '''\
"""Rewards of one's own."""

from grpo_cot.rewards import completion_text, promises


@promises(pays=["<answer>18</answer>"], never=["<answer>18</answer> " + "and so on " * 30])
def brevity(prompts, completions, **columns):
    """1 for a completion of at most 120 characters."""
    return [float(len(completion_text(completion)) <= 120) for completion in completions]
'''
PROMISE = '@promises(pays=["<answer>18</answer>"], never=["<answer>18</answer> " + "and so on " * 30])\n'
LINE = "  xml_count: 0\n"


@pytest.fixture
def own(copy: Project) -> Project:
    """The finished clone with a third run, `own`, whose recipe names a reward of my_rewards.py."""
    (copy.folder / "my_rewards.py").write_text(OWN)
    shutil.copy(copy.folder / "experiments/short.yaml", copy.folder / "experiments/own.yaml")
    copy.edit("experiments/own.yaml", LINE, f"{LINE}  my_rewards.brevity: 0.5\n")
    copy.edit(
        "params.yaml", "datasets:", "  own: {recipe: own, dataset: few, base: tiny, image: cpu, seed: 1}\ndatasets:"
    )
    return copy


def test_a_reward_of_ones_own_trains_and_its_edit_retrains_the_runs_that_name_it(own: Project) -> None:
    assert len(OWN.splitlines()) <= 15
    assert set(own.repro("train@own")) == {"prepare@own", "audit@own", "train@own"}
    log = json.loads((own.folder / "runs/own/train/01-grpo/log.json").read_text())
    assert all("rewards/brevity/mean" in entry for entry in log if "reward" in entry)
    # The other runs are audited again, which changes nothing of what their training waits for.
    own.edit("my_rewards.py", "<= 120)", "<= 119)")
    assert set(own.repro("train@own", "train@short-a")) == {"audit@own", "audit@short-a", "train@own"}
    own.edit("my_rewards.py", PROMISE, "")
    message = own.run("dvc", "repro", "--single-item", "audit@own", fails=True)
    assert "audit: experiments/own.yaml: the reward 'my_rewards.brevity' makes no promise" in message
    assert "Traceback" not in message
