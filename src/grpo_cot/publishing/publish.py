"""Publishing: adapter and merged model in the Hub's layout, each with a complete model card, and the push itself."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import get_session, hf_raise_for_status, yaml_dump

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message, read_json, read_jsonl, write_json, write_text
from grpo_cot.hub.errors import hub_errors
from grpo_cot.hub.names import refused_repository
from grpo_cot.models.description import read_description
from grpo_cot.publishing.card import card
from grpo_cot.publishing.programs import transformers_program, vllm_program
from grpo_cot.publishing.results import leaderboard_entries
from grpo_cot.recipes.recipe import Recipe


def check_base(merge: Mapping[str, Any], recipe: Recipe, where: object) -> None:
    """Refuse a merge on another base than the one that was trained on, unless the recipe accepts it.

    Raises:
        InputError: it does not.
    """
    if merge["base"] == "original" and not recipe.publish.accept_original_base:
        raise InputError(
            f"{where}: the merged model is on the original base, not on the one that was trained on ("
            f"{merge['token_agreement']:.2%} of greedy tokens agree); set "
            "merge.base: dequantized, or publish.accept_original_base: true"
        )


def check_repository(recipe: Recipe, prefix: str | None, where: object) -> None:
    """Refuse a name that the Hub does not accept, or that does not begin with `prefix`, as the base's licence asks.

    Raises:
        InputError: the recipe names such a repository.
    """
    repository = recipe.publish.repository
    if repository and (refusal := refused_repository(repository, prefix)):
        raise InputError(f"{where}: publish.repository is {repository!r}: {refusal}")


def card_facts(recipe: Recipe, model_json: Path, base_source: Path) -> dict[str, Any]:
    """The card's facts on the base, the recipe and the training; `base_source` is models/M.source.json."""
    configuration = read_json(model_json.parent / read_description(model_json).path / "configuration.json")
    base = read_json(base_source)
    return {
        "base": base["id"] or base["name"], "base_record": base, "licence": base["licence"],
        "methods": [phase.method for phase in recipe.phases], "seed": configuration["seed"],
        "trained_rows": configuration["rows"], "selected": configuration.get("selected"),
        "packages": configuration["packages"],
    }  # fmt: skip


def programs(recipe: Recipe, model_json: Path, prompt: Sequence[Message]) -> dict[str, str | None]:
    """The merged model's place, its repository or the card's own folder, the card's programs that load it, and whether
    the evaluation's answers were greedy or sampled."""
    place = f"{recipe.publish.repository}-merged" if recipe.publish.repository else "."
    asked = (prompt, recipe.evaluate.sampling, recipe.prompt.chat_template_kwargs)
    architecture = read_description(model_json).architecture
    return {
        "place": place, "transformers_program": transformers_program(place, architecture, *asked),
        "vllm_program": vllm_program(place, architecture, *asked),
        "answers": "sampled" if recipe.evaluate.sampling.get("do_sample") else "greedy",
    }  # fmt: skip


def first_prompt(prompts: Path) -> list[Message]:
    """The messages of the first test problem, as prepare made them."""
    messages: list[Message] = read_jsonl(prompts / "eval-test.jsonl")[0]["messages"]
    return messages


def lay_out(folder: Path, weights: Mapping[str, Path], facts: Mapping[str, Any]) -> None:
    """Copy each part (`adapter`, `merged`) into a folder of its own; write its card, results, agreement and notice."""
    base, licence = facts["base_record"], facts["licence"]
    for part, source in weights.items():
        shutil.copytree(source, folder / part)
        configuration = folder / part / "adapter_config.json"
        if configuration.is_file() and base["id"]:
            place = {"base_model_name_or_path": base["id"], "revision": base["revision"]}
            write_json(configuration, read_json(configuration) | place)
        write_text(folder / part / "README.md", card(part, facts))
        for name, entries in leaderboard_entries(facts["metrics"], facts["source"]).items():
            write_text(folder / part / ".eval_results" / f"{name}.yaml", yaml_dump(entries))
        if base["agreement"]:
            write_text(folder / part / licence["agreement"], base["agreement"])
        if licence["notice"]:
            write_text(folder / part / "Notice", f"{licence['notice']}\n")


def push(folder: Path, repository: str, private: bool, token: str | None) -> dict[str, dict[str, str]]:
    """Push every part to `REPOSITORY-PART` on the Hub; returns each part's repository and commit.

    What the Hub can say beforehand, it is asked before the first repository is made: whether the token may write there,
    what is there already, and whether it takes the cards.

    Raises:
        InputError: there is no token, or the Hub cannot be reached or refuses.
    """
    if not token:
        raise InputError(f"publish.repository is {repository!r}, but HF_TOKEN is not set: give a token that may write")
    api = HfApi(token=token)
    parts = sorted(path.name for path in folder.iterdir())
    _check_token(api, repository)
    for part in parts:
        _check_there(api, f"{repository}-{part}", private)
        _check_card(api, (folder / part / "README.md").read_text(encoding="utf-8"), f"{repository}-{part}")
    pushed: dict[str, dict[str, str]] = {}
    for part in parts:
        name = f"{repository}-{part}"
        there = "".join(f"; {known['repository']} is there already" for known in pushed.values())
        with hub_errors(f"the Hub did not take {name}{there}"):
            api.create_repo(name, private=private, exist_ok=True)
        with hub_errors(f"the files did not reach {name}, which may be left empty or incomplete{there}"):
            commit = api.upload_folder(
                repo_id=name, folder_path=folder / part, commit_message="Publish from grpo-cot",
                delete_patterns=".eval_results/*",  # an earlier model's, which this one may not have
            )  # fmt: skip
            pushed[part] = {"repository": name, "commit": commit.oid}
    return pushed


def _check_token(api: HfApi, repository: str) -> None:
    """Refuse a token that may not write under the repository's owner, as far as the Hub tells."""
    owner = repository.split("/")[0]
    with hub_errors(f"nothing was made at {repository}"):
        account = api.whoami()
        name, role = account["name"], account.get("auth", {}).get("accessToken", {}).get("role")
        owners = {name: role} | {org["name"]: org.get("roleInOrg", role) for org in account.get("orgs", [])}
        by_small_letters = {known.lower(): known for known in owners}
    if role == "read":
        raise InputError(f"HF_TOKEN may only read: to push to {repository}, give one of {name} that may write")
    if owner.lower() not in by_small_letters or owners[by_small_letters[owner.lower()]] == "read":
        may = ", ".join(sorted(known for known, right in owners.items() if right != "read"))
        raise InputError(f"publish.repository is {repository!r}, but HF_TOKEN may not write there; it may for: {may}")


def _check_there(api: HfApi, name: str, private: bool) -> None:
    """Refuse to push what is to be private into a public repository: the Hub leaves one that is there as it is."""
    with hub_errors(f"nothing was made at {name}"):
        public = api.repo_exists(name) and not api.model_info(name).private
    if private and public:
        raise InputError(
            f"publish.private is true, but {name} is on the Hub already, and public; make it private in its settings, "
            "or set publish.private: false"
        )


def _check_card(api: HfApi, text: str, name: str) -> None:
    """Have the Hub look at a card's metadata, as it will look at it when the card is pushed."""
    licence = ModelCard(text).data.get("license")
    with hub_errors(f"the Hub will not take the card of {name} (licence {licence}), so nothing was made there"):
        question = {"content": text, "repoType": "model"}
        address, headers = f"{api.endpoint}/api/validate-yaml", {"Authorization": f"Bearer {api.token}"}
        answer = get_session().post(address, json=question, headers=headers)
        hf_raise_for_status(answer)
        answer.json()  # a page is no answer
