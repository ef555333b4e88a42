"""`make laptop` puts a suite into params.yaml, and loses no run of the user's own."""

from pathlib import Path

import pytest
from suite import for_processor, use_suite
from support import ROOT

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml


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


def test_a_processor_that_emulates_bfloat16_gets_the_suite_in_float32(capsys: pytest.CaptureFixture[str]) -> None:
    assert for_processor(ROOT, "laptop", emulated=True) == "laptop-float32"
    assert "in float32" in capsys.readouterr().out
    assert for_processor(ROOT, "laptop", emulated=False) == "laptop"
    assert for_processor(ROOT, "demo", emulated=True) == "demo"
    bfloat16, float32 = (read_yaml(ROOT / f"experiments/{name}.yaml") for name in ("laptop", "laptop-float32"))
    bfloat16["model"]["dtype"] = "float32"
    assert float32 == bfloat16
