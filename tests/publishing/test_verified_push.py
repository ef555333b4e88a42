"""A push that holds: what the Hub has afterwards is what was sent, whatever went wrong on the way."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from publishing.workshop import Workshop
from stand_in_hub import Hub, page, refusal

from grpo_cot.common.files import read_json

pytestmark = pytest.mark.usefixtures("the_client_asks_it", "in_a_checkout_of_its_own")


@pytest.fixture
def without_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sends large files by LFS, as where the Hub refuses Xet."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def pushed(workshop: Workshop) -> dict[str, dict[str, Any]]:
    """What published.json says of the push."""
    said: dict[str, dict[str, Any]] = read_json(workshop.folder / "published.json")["pushed"]
    return said


@pytest.mark.usefixtures("without_xet")
def test_large_files_go_to_lfs_and_every_file_and_answer_is_compared_afterwards(workshop: Workshop, hub: Hub) -> None:
    hub.lfs = r"\.safetensors$"
    workshop.publish()
    merged = pushed(workshop)["merged"]
    assert merged["files"] == len(hub.repositories["somebody/me-model-merged"]) and merged["answers"] == 1
    weights = (workshop.folder / "merged/model.safetensors").read_bytes()
    assert hub.objects[hashlib.sha256(weights).hexdigest()] == weights
    assert any("/resolve/" in path for path in hub.paths())
    assert not list(Path(".cache/publish/run").rglob("*.safetensors"))


@pytest.mark.usefixtures("without_xet")
def test_a_push_that_was_cut_off_is_made_again_without_sending_what_is_there(workshop: Workshop, hub: Hub) -> None:
    hub.lfs = r"\.safetensors$"
    hub.passing.append(("me-model-merged/commit/main", refusal(500, "Internal error")))
    workshop.refused(workshop.publish)
    sent = sum(path.startswith("/lfs/") for path in hub.paths())
    workshop.publish()
    assert sum(path.startswith("/lfs/") for path in hub.paths()) == sent == 2
    workshop.publish()  # what is there already is not committed again
    assert [commit["title"] for commit in hub.commits["somebody/me-model-merged"]] == [
        "Publish run from grpo-cot", "initial commit",
    ]  # fmt: skip


@pytest.mark.usefixtures("without_xet")
@pytest.mark.parametrize(
    "fault",
    [("/lfs/", page(503)), ("/lfs/", refusal(429, "Too many requests")), ("objects/batch", page(500))],
    ids=["storage 503", "storage 429", "batch 500"],
)
def test_a_fault_that_passes_is_outlived(
    workshop: Workshop, hub: Hub, monkeypatch: pytest.MonkeyPatch, fault: tuple[str, Any]
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.lfs = r"\.safetensors$"
    hub.passing.append(fault)
    workshop.publish()
    assert set(pushed(workshop)) == {"adapter", "merged"} and not hub.passing


def test_a_download_that_ends_in_the_middle_goes_on(
    workshop: Workshop, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.cuts = 2
    workshop.publish()
    assert hub.cuts == 0 and pushed(workshop)["merged"]["answers"] == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            {"loses": {"adapter_config.json"}},
            "the Hub said that it took adapter_config.json, but its commit 0123456789",
        ),
        ({"spoils": {"adapter_config.json"}}, "adapter_config.json came back from the commit 0123456789"),
        ({"meanwhile": "Fix typo"}, "somebody else committed there meanwhile (A commit has happened since."),
    ],
    ids=["success without the file", "other bytes", "another commit"],
)
def test_a_push_that_does_not_hold_is_one_sentence(
    workshop: Workshop, hub: Hub, fault: dict[str, Any], says: str
) -> None:
    for name, value in fault.items():
        setattr(hub, name, value)
    assert says in workshop.refused(workshop.publish)


def test_a_model_that_answers_otherwise_after_its_download_is_refused(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpo_cot.publishing import answers

    said = iter((["4"], ["5"]))
    monkeypatch.setattr(answers, "greedy_answers", lambda *arguments: next(said))
    assert "answers problem 1 with '5', expected '4' as before the push" in workshop.refused(workshop.publish)


def test_a_repository_of_others_is_not_written_over_unless_the_recipe_says_so(workshop: Workshop, hub: Hub) -> None:
    workshop.publish()
    hub.commits["somebody/me-model-merged"].insert(0, {**hub.commits["somebody/me-model-merged"][0], "title": "Mine"})
    asked = sum("/commit/" in path for path in hub.paths())
    said = workshop.refused(workshop.publish)
    assert "somebody/me-model-merged is on the Hub already and holds 'Mine' (commit 0123456789" in said
    assert "set publish.overwrite: true" in said and sum("/commit/" in path for path in hub.paths()) == asked
    workshop.edit(workshop.recipe, "  dry_run: false", "  dry_run: false\n  overwrite: true")
    workshop.publish()


def test_a_commit_in_parts_is_this_runs(workshop: Workshop, hub: Hub) -> None:
    workshop.publish()
    commits = hub.commits["somebody/me-model-merged"]
    commits.insert(0, {**commits[0], "title": "Publish run from grpo-cot (part 2)"})
    workshop.publish()


def test_weights_of_an_earlier_model_in_other_files_do_not_stay(workshop: Workshop, hub: Hub) -> None:
    workshop.publish()
    hub.repositories["somebody/me-model-merged"]["model-00001-of-00002.safetensors"] = b"earlier"
    hub.repositories["somebody/me-model-merged"][".gitattributes"] = b"*.safetensors filter=lfs"
    (workshop.folder / "merged/notes.txt").write_bytes(b"later")
    workshop.publish()
    there = hub.repositories["somebody/me-model-merged"]
    assert "model-00001-of-00002.safetensors" not in there and ".gitattributes" in there


def test_a_model_that_cannot_be_asked_here_is_one_sentence(workshop: Workshop, hub: Hub) -> None:
    (workshop.folder / "merged/model.safetensors").write_bytes(b"no weights")
    said = workshop.refused(workshop.publish)
    assert "has every file as it was sent, but the model cannot be asked on this machine" in said
