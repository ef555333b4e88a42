"""Real data, when the machine has it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_in_hub import Hub, serving
from support import ROOT

# For the processes that tests start; vLLM, where it is on the path, starts some as well.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])


def folder_from(variable: str) -> Path:
    """The folder that an environment variable names; the test is skipped, with the reason, when it is not set."""
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{variable} does not name a folder of real data on this machine")
    return Path(value)


@pytest.fixture
def gsm8k_folder() -> Path:
    """GSM8K's own train.jsonl and test.jsonl."""
    return folder_from("GSM8K_DIR")


@pytest.fixture
def tokenizers_folder() -> Path:
    """The real Qwen2.5 tokenizer and collected chat templates."""
    return folder_from("TOKENIZERS_DIR")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A stand-in for the Hub, at its `address`."""
    with serving() as served:
        yield served
