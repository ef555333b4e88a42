"""What the tests of pushes have in common."""

from pathlib import Path

import pytest
from publishing.workshop import Workshop
from stand_in_hub import Hub


@pytest.fixture
def in_a_checkout_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step leaves in .cache is not this checkout's."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")


@pytest.fixture
def workshop(tmp_path: Path, hub: Hub) -> Workshop:
    """The Qwen base is made already."""
    made = Workshop(tmp_path, hub, "qwen2.5-3b-instruct")
    made.make_base()
    return made
