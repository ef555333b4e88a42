"""Pushing to the Hub with the real client, against a local stand-in that refuses what the Hub refuses."""

import json

import pytest
from stand_in_hub import COMMIT, TOKEN, Hub

from pipeline.conftest import Project

pytestmark = pytest.mark.slow


def test_a_push_sends_both_parts_with_the_token_and_records_the_commits(copy: Project, hub: Hub) -> None:
    copy.environment |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN}
    copy.edit("experiments/short.yaml", "repository: null", "repository: somebody/model")
    assert copy.repro("--single-item", "publish@short-a") == ["publish@short-a"]
    published = json.loads((copy.folder / "runs/short-a/published.json").read_text())
    assert published["pushed"] == {
        part: {
            "repository": f"somebody/model-{part}",
            "commit": COMMIT,
            "files": len(hub.repositories[f"somebody/model-{part}"]),
        }
        | ({"answers": 4} if part == "merged" else {})
        for part in ("adapter", "merged")
    }
    made = [json.loads(request["body"]) for request in hub.seen if request["path"].endswith("/repos/create")]
    asked = [(body["name"], body["visibility"]) for body in made]
    assert asked == [("model-adapter", "private"), ("model-merged", "private")]
    commits = [request for request in hub.seen if "/commit/" in request["path"]]
    assert [request["path"].split("/")[4] for request in commits] == ["model-adapter", "model-merged"]
    assert {request["authorization"] for request in commits} == {f"Bearer {TOKEN}"}
    for request, weights in zip(commits, ("adapter_model.safetensors", "model.safetensors"), strict=True):
        paths = {json.loads(line)["value"].get("path") for line in request["body"].splitlines()}
        assert {"README.md", weights} <= paths
    for path in copy.folder.rglob("*"):
        if path.is_file() and path.relative_to(copy.folder).parts[0] not in (".venv", "tests"):
            assert TOKEN.encode() not in path.read_bytes(), path


def test_a_dry_run_says_what_it_would_push_and_asks_nobody(copy: Project, hub: Hub) -> None:
    copy.environment |= {"HF_ENDPOINT": hub.address}
    copy.edit("experiments/short.yaml", "repository: null", "repository: somebody/model")
    copy.edit("experiments/short.yaml", "dry_run: false", "dry_run: true")
    said = copy.run("dvc", "repro", "--single-item", "publish@short-a")
    assert "a dry run: nothing was pushed to somebody/model" in said
    assert hub.seen == []
    published = json.loads((copy.folder / "runs/short-a/published.json").read_text())
    assert "adapter/README.md" in published["files"] and published["pushed"] == {}


def test_a_push_without_a_token_is_one_sentence(copy: Project) -> None:
    copy.environment.pop("HF_TOKEN", None)
    copy.edit("experiments/short.yaml", "repository: null", "repository: somebody/model")
    said = copy.run("dvc", "repro", "--single-item", "publish@short-a", fails=True)
    assert "HF_TOKEN is not set" in said and "Traceback" not in said


def test_a_merge_into_the_original_base_is_published_only_when_accepted(copy: Project) -> None:
    copy.edit("experiments/short.yaml", "base: dequantized", "base: original")
    assert copy.repro("--single-item", "merge@short-a") == ["merge@short-a"]
    figures = json.loads((copy.folder / "runs/short-a/merge.json").read_text())
    assert figures["base"] == "original" and not figures["parity_holds"] and figures["misplaced"] > 0.5
    said = copy.run("dvc", "repro", "--single-item", "publish@short-a", fails=True)
    assert "is on the original base, not on the one that was trained on" in said
    copy.edit("experiments/short.yaml", "accept_original_base: false", "accept_original_base: true")
    assert copy.repro("--single-item", "publish@short-a") == ["publish@short-a"]


def test_a_merge_that_fails_parity_stops_the_run(copy: Project) -> None:
    copy.edit("src/grpo_cot/merging/shards.py", "            layer.merge()\n", "")
    said = copy.run("dvc", "repro", "--single-item", "merge@short-a", fails=True)
    assert "the merged model is not the trained one" in said and "it keeps 0% of its adapter" in said
    assert "Traceback" not in said
