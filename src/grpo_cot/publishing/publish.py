"""Publishing: adapter and merged model in the Hub's layout, each with a complete model card, and the push itself."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from httpx import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json, read_jsonl, write_json
from grpo_cot.models.description import read_description
from grpo_cot.publishing.card import card
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


def card_facts(recipe: Recipe, model_json: Path, base_source: Path) -> dict[str, Any]:
    """The card's facts on the base, the recipe and the training; `base_source` is models/M.source.json."""
    configuration = read_json(model_json.parent / read_description(model_json).path / "configuration.json")
    base = read_json(base_source)
    return {
        "base": base["id"] or base["name"], "base_record": base, "licence": base["licence"].lower(),
        "methods": [phase.method for phase in recipe.phases], "seed": configuration["seed"],
        "trained_rows": configuration["rows"], "selected": configuration.get("selected"),
        "packages": configuration["packages"],
    }  # fmt: skip


def first_prompt(prompts: Path) -> list[dict[str, str]]:
    """The messages of the first test problem, as prepare made them."""
    messages: list[dict[str, str]] = read_jsonl(prompts / "eval-test.jsonl")[0]["messages"]
    return messages


def lay_out(folder: Path, weights: Mapping[str, Path], facts: Mapping[str, Any]) -> None:
    """Copy each part (`adapter`, `merged`) into a folder of its own and write its card."""
    base = facts["base_record"]
    for part, source in weights.items():
        shutil.copytree(source, folder / part)
        configuration = folder / part / "adapter_config.json"
        if configuration.is_file() and base["id"]:
            place = {"base_model_name_or_path": base["id"], "revision": base["revision"]}
            write_json(configuration, read_json(configuration) | place)
        (folder / part / "README.md").write_text(card(part, facts), encoding="utf-8")


def push(folder: Path, repository: str, private: bool, token: str | None) -> dict[str, dict[str, str]]:
    """Push every part to `REPOSITORY-PART` on the Hub; returns each part's repository and commit.

    Raises:
        InputError: there is no token, or the Hub cannot be reached or refuses.
    """
    if not token:
        raise InputError(f"publish.repository is {repository!r}, but HF_TOKEN is not set: give a token that may write")
    api = HfApi(token=token)
    pushed = {}
    for part in sorted(path.name for path in folder.iterdir()):
        name = f"{repository}-{part}"
        try:
            api.create_repo(name, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=name, folder_path=folder / part, commit_message="Publish from grpo-cot")
        except (HfHubHTTPError, HTTPError, OSError) as error:
            raise InputError(f"the Hub did not take {name}: {' '.join(str(error).split())[:200]}") from None
        pushed[part] = {"repository": name, "commit": commit.oid}
    return pushed
