"""The steps base and publish as a user runs them, against a Hub that refuses what the Hub refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from graded import metrics
from huggingface_hub import constants, parse_eval_result_entries
from huggingface_hub.utils import close_session
from publishing.workshop import AGREEMENT, BASES, Workshop
from stand_in_hub import READER, Hub, page, refusal
from support import ROOT

from grpo_cot.common.files import read_json, read_yaml, write_json
from grpo_cot.hub import errors

pytestmark = pytest.mark.usefixtures("the_client_asks_it", "in_a_checkout_of_its_own")


@pytest.mark.parametrize("base", BASES)
def test_the_full_size_recipes_push_succeeds_with_licence_agreement_and_notice(
    tmp_path: Path, hub: Hub, base: str
) -> None:
    workshop = Workshop(tmp_path, hub, base)
    workshop.make_base()
    workshop.publish()
    licence = read_yaml(workshop.base_source)["licence"]
    name = BASES[base][1]
    assert set(hub.repositories) == {f"somebody/{name}-adapter", f"somebody/{name}-merged"}
    for files in hub.repositories.values():
        _, head, body = files["README.md"].decode().split("---\n", 2)
        data = yaml.safe_load(head)
        assert data["license"] == licence["id"]
        assert (data.get("license_name"), data.get("license_link")) == (licence.get("name"), licence.get("link"))
        assert body.lstrip().split("\n\n")[1] == f"**{licence['display']}**"
        said = body[body.index("## Licence") : body.index("## Limits")]
        assert licence["notice"] in said and f"`{licence['agreement']}`" in said
        assert "[qwen-research](https://" in said or "Llama 3.2 Community License Agreement (`llama3.2`)" in said
        assert files[licence["agreement"]].decode() == AGREEMENT
        assert files["Notice"].decode() == f"{licence['notice']}\n"
    assert not (tmp_path / "base" / licence["agreement"]).exists()  # another text would make a trained model stale


@pytest.mark.parametrize(("private", "visibility"), [("true", "private"), ("false", "public")])
def test_a_repository_is_as_private_as_the_recipe_asks(
    workshop: Workshop, hub: Hub, private: str, visibility: str
) -> None:
    workshop.edit(workshop.recipe, "private: true", f"private: {private}")
    workshop.publish()
    made = [json.loads(request["body"]) for request in hub.seen if request["path"] == "/api/repos/create"]
    assert [asked["visibility"] for asked in made] == [visibility, visibility]


def test_what_is_to_be_private_is_not_pushed_into_a_public_repository(workshop: Workshop, hub: Hub) -> None:
    workshop.edit(workshop.recipe, "private: true", "private: false")
    workshop.publish()
    shutil.rmtree(workshop.folder / "published")
    (workshop.folder / "published.json").unlink()
    workshop.edit(workshop.recipe, "private: false", "private: true")
    asked = sum("/commit/" in path for path in hub.paths())
    said = workshop.refused(workshop.publish)
    assert "publish.private is true, but somebody/me-model-adapter is on the Hub already, and public" in said
    assert sum("/commit/" in path for path in hub.paths()) == asked


def test_results_of_a_whole_benchmark_are_published_in_the_hubs_layout(workshop: Workshop, hub: Hub) -> None:
    workshop.publish()
    for files in hub.repositories.values():
        [entry] = parse_eval_result_entries(yaml.safe_load(files[".eval_results/test.yaml"]))
        assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 75.0)
        assert entry.dataset_revision == "7" * 40
        assert "all 1319 problems" in str(entry.notes) and "70.0 %" in str(entry.notes)


def test_a_sample_of_a_benchmark_is_no_result_of_it(workshop: Workshop, hub: Hub) -> None:
    write_json(workshop.folder / "metrics.json", metrics(0.5, 0.7, n=500))
    workshop.publish()
    assert not any(path.startswith(".eval_results") for files in hub.repositories.values() for path in files)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"id": "qwen-research"}, '"license" must be one of [apache-2.0, mit,'),
        ({"name": None}, '"license_name" is required'),
        ({"link": "somewhere"}, '"license_link" must be'),
    ],
)
def test_a_card_that_the_hub_refuses_is_one_sentence_before_a_repository_is_made(
    workshop: Workshop, hub: Hub, changed: dict[str, Any], says: str
) -> None:
    record = read_json(workshop.folder / "base.json")
    write_json(workshop.folder / "base.json", record | {"licence": record["licence"] | changed})
    said = workshop.refused(workshop.publish)
    assert "will not take the card of somebody/me-model-adapter (licence " in said and says in said
    assert hub.repositories == {} and not any("repos/create" in path for path in hub.paths())


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"HF_TOKEN": ""}, "HF_TOKEN is not set"),
        ({"HF_TOKEN": "hf_wrong"}, "the Hub does not accept the token in HF_TOKEN"),
        ({"HF_TOKEN": READER}, "HF_TOKEN may only read"),
        ({"HF_TOKEN": "hf_ä"}, "the token in HF_TOKEN has characters that no token has"),
        ({"HF_TOKEN": "hf_a\nb"}, "the token in HF_TOKEN has characters that no token has"),
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY names a SOCKS proxy, which needs the package socksio"),
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, "cannot be reached (["),
        ({"HTTP_PROXY": "nonsense://x"}, "HF_ENDPOINT or HTTPS_PROXY holds no address (Unknown scheme for proxy URL"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached (["),
        ({"HF_ENDPOINT": "nonsense"}, "HF_ENDPOINT or HTTPS_PROXY holds no address"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE keeps this machine from asking the Hub"),
    ],
)
def test_a_wrong_token_proxy_or_address_is_one_sentence(
    workshop: Workshop, hub: Hub, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    for name, value in variables.items():
        if name.startswith("HF_") and name != "HF_TOKEN":  # the client read it when it was imported
            monkeypatch.setattr(constants, {"HF_ENDPOINT": "ENDPOINT"}.get(name, name), value)
        monkeypatch.setenv(name, value)
    close_session()
    assert says in workshop.refused(workshop.publish)
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("asked", "answer", "says"),
    [
        ("whoami", page(200), "is not the Hub"),
        (
            "whoami",
            refusal(429, "Too many", Retry_After="33"),
            "too many requests for the Hub's limit; try again in 33 s",
        ),
        ("whoami", (200, {"Content-Type": "application/json"}, b"[]"), "does not understand the answer"),
        ("validate-yaml", page(200), "is not the Hub"),
        ("validate-yaml", page(403), "is not the Hub (a page with status 403)"),
        ("validate-yaml", refusal(503, "Maintenance"), "the Hub has a fault of its own"),
        ("repos/create", page(200), "is not the Hub"),
        ("repos/create", refusal(400, "This name is taken by a redirect"), "refuses it (This name is taken"),
        ("repos/create", refusal(402, "Pro only"), "the Hub asks for payment first (Pro only)"),
        ("repos/create", refusal(403, "No rights under a-team"), "the Hub forbids it (No rights under a-team)"),
        ("repos/create", refusal(407, ""), "the proxy asks for a name and a password"),
        ("repos/create", page(502), "or a proxy before it (status 502)"),
    ],
)
def test_what_the_hub_or_a_proxy_answers_is_one_sentence_and_nothing_is_made(
    workshop: Workshop, hub: Hub, asked: str, answer: Any, says: str
) -> None:
    hub.faults.append((asked, answer))
    assert says in workshop.refused(workshop.publish)
    assert hub.repositories == {}


def test_a_push_that_fails_midway_says_what_is_there(workshop: Workshop, hub: Hub) -> None:
    hub.faults.append(("merged/preupload", refusal(403, "Private repository storage limit reached")))
    said = workshop.refused(workshop.publish)
    assert "did not reach somebody/me-model-merged" in said and "storage limit reached" in said
    assert "somebody/me-model-adapter is there already" in said


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("somebody/my--model", "no '--' or '..'"),
        (f"somebody/{'x' * 90}", "1 to 96"),
        ("somebody/.model", "none of '-' and '.' at its start"),
        ("somebody/modèle", "letters (a to z)"),
    ],
)
def test_a_name_that_the_hub_refuses_is_refused_before_it_is_asked(
    workshop: Workshop, hub: Hub, name: str, says: str
) -> None:
    asked = len(hub.seen)
    workshop.edit(workshop.recipe, "somebody/me-model", name)
    said = workshop.refused(workshop.publish)
    assert f"publish.repository is '{name}'" in said and says in said and len(hub.seen) == asked


def test_an_owner_that_the_token_may_not_write_for_is_refused(workshop: Workshop, hub: Hub) -> None:
    for owner in ("watched", "stranger"):
        workshop.recipe.write_text((ROOT / "experiments/grpo-cot-3b.yaml").read_text())
        workshop.edit(workshop.recipe, "repository: null ", f"repository: {owner}/model ")
        assert "HF_TOKEN may not write there; it may for: a-team, somebody" in workshop.refused(workshop.publish)
    workshop.edit(workshop.recipe, "stranger/model", "a-team/model")
    workshop.publish()
    assert set(hub.repositories) == {"a-team/model-adapter", "a-team/model-merged"}


def test_a_second_push_renews_what_is_there(workshop: Workshop, hub: Hub) -> None:
    workshop.publish()
    (workshop.folder / "merged/notes.txt").write_bytes(b"later")
    write_json(workshop.folder / "metrics.json", metrics(0.5, 0.7, n=500))
    workshop.publish()
    there = hub.repositories["somebody/me-model-merged"]
    assert there["notes.txt"] == b"later" and ".eval_results/test.yaml" not in there


def test_a_model_from_llama_must_say_so_in_its_name(tmp_path: Path, hub: Hub) -> None:
    workshop = Workshop(tmp_path, hub, "llama-3.2-1b-instruct")
    workshop.make_base()
    workshop.edit(workshop.recipe, "somebody/Llama-model", "somebody/model")
    assert "begins with 'Llama-', such as 'somebody/Llama-model'" in workshop.refused(workshop.publish)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (refusal(403, "Access is restricted", X_Error_Code="GatedRepo"), "it is gated: accept its terms on its page"),
        (refusal(404, "Repository not found", X_Error_Code="RepoNotFound"), "no such repository, or a private one"),
        (refusal(404, "Invalid rev id", X_Error_Code="RevisionNotFound"), "but not this commit"),
        (page(200), "is not the Hub"),
        (refusal(401, "Invalid credentials in Authorization header"), "does not accept the token in HF_TOKEN"),
    ],
)
def test_a_base_that_cannot_be_downloaded_is_one_sentence(tmp_path: Path, hub: Hub, answer: Any, says: str) -> None:
    workshop = Workshop(tmp_path, hub, "llama-3.2-1b-instruct")
    hub.faults.append(("/", answer))
    said = workshop.refused(workshop.make_base)
    assert "meta-llama/Llama-3.2-1B-Instruct cannot be downloaded: " in said and says in said


def test_a_base_without_the_agreement_that_is_due_is_refused(tmp_path: Path, hub: Hub) -> None:
    workshop = Workshop(tmp_path, hub, "qwen2.5-3b-instruct")
    del workshop.files["LICENSE"]
    assert "licence.agreement is 'LICENSE', but the base has no text file" in workshop.refused(workshop.make_base)


def test_a_hub_that_does_not_answer_is_not_waited_for_for_ever(
    workshop: Workshop, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "_SILENCE", 0.2)
    hub.delay = 1.0
    assert "did not answer in time" in workshop.refused(workshop.publish)
