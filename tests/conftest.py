"""Real data, when the machine has it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from stand_in_hub import TOKEN, Hub, serving
from support import ROOT
from xdist.scheduler import LoadScopeScheduling

import grpo_cot  # noqa: F401  # before a test imports torch, whose threads it tells how to wait

if TYPE_CHECKING:
    from publishing.workshop import Workshop

PIPELINE = "tests/pipeline/"

# A machine that is busy with other work is no fault of the tested code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# For the processes that tests start; vLLM, where it is on the path, starts some as well.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that take longest begin first: in one process those of the pipeline, in the other those of training,
    and then those of the engines, which need the finished pipeline that the first has made by then."""
    places = {f"{PIPELINE}engines/": 2, PIPELINE: 0, "tests/training/": 1}  # the first that fits
    items.sort(key=lambda item: next((place for room, place in places.items() if item.nodeid.startswith(room)), 3))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How `make test` shares the tests between two processes: by file, and those of the pipeline by folder, which have
    a finished pipeline in common."""
    return Rooms(config, log)


class Rooms(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist says no types
    """One process runs all tests of a scope; xdist's own groups (marks) do not reach it under this pytest."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return file.rpartition("/")[0] if file.startswith(PIPELINE) else file


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


@pytest.fixture(scope="session")
def beside_lm_eval() -> None:
    """From now on this process finds lm-evaluation-harness, and scikit-learn with it."""
    folder = ROOT / ".venv/lm-eval"
    if not (folder / ".ready").is_file():
        pytest.skip("lm-evaluation-harness is not installed; `make .venv/lm-eval/.ready` does that")
    sys.path.append(str(folder))


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A stand-in for the Hub, at its `address`."""
    with serving() as served:
        yield served


@pytest.fixture
def the_client_asks_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Hub's client in this process asks the stand-in, with a token that may write and through no proxy."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    # Environment variables come too late: the client read them when it was imported.
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    close_session()  # of another test, with another proxy
    yield
    close_session()


@pytest.fixture
def in_a_checkout_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step leaves in .cache is not this checkout's."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")


@pytest.fixture
def workshop(tmp_path: Path, hub: Hub) -> "Workshop":
    """The Qwen base is made already."""
    from publishing.workshop import Workshop

    made = Workshop(tmp_path, hub, "qwen2.5-3b-instruct")
    made.make_base()
    return made
