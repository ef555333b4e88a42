"""`make laptop` puts a suite into params.yaml, and loses no run of the user's own."""

from pathlib import Path

import pytest
from suite import use_suite
from support import ROOT

from grpo_cot.common.errors import InputError


def files(root: Path, params: str | None) -> Path:
    (root / "suites").mkdir()
    (root / "suites/demo.yaml").write_text("runs: {demo: {}}\n")
    (root / "suites/laptop.yaml").write_text("runs: {laptop: {}}\n")
    if params is not None:
        (root / "params.yaml").write_text(params)
    return root


@pytest.mark.parametrize("params", ["runs: {demo: {}}\n", "runs: {laptop: {}}\n", None])
def test_a_suite_takes_the_place_of_another(tmp_path: Path, params: str | None) -> None:
    use_suite(files(tmp_path, params), "laptop")
    assert (tmp_path / "params.yaml").read_text() == "runs: {laptop: {}}\n"


def test_runs_of_the_users_own_are_not_lost(tmp_path: Path) -> None:
    root = files(tmp_path, "runs: {mine: {}}\n")
    with pytest.raises(InputError, match="copy it to suites/MINE"):
        use_suite(root, "laptop")
    assert (root / "params.yaml").read_text() == "runs: {mine: {}}\n"


def test_the_demo_can_be_brought_back() -> None:
    assert (ROOT / "suites/demo.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
