"""Publishing: adapter and merged model in the Hub's layout, each with a complete model card."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.utils import yaml_dump

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message, read_json, read_jsonl, write_json, write_text
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
