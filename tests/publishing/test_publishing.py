"""The model card: what was measured on which set, and whose data it was."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from graded import metrics
from huggingface_hub import ModelCard
from support import ROOT

from grpo_cot.common.files import write_json
from grpo_cot.publishing import publish
from grpo_cot.publishing.card import card
from grpo_cot.publishing.publish import card_facts
from grpo_cot.recipes.recipe import load_recipe


def source_facts(**facts: object) -> dict[str, Any]:
    absent = dict.fromkeys(("id", "revision", "note", "contains"))
    return {"kind": "files", "licence": "MIT", "rows": 1319, "drop": {}, **absent, **facts}


def facts() -> dict[str, Any]:
    figures = metrics(0.2, 0.6)
    figures["sets"]["mgsm-en"] = metrics(0.1, 0.3, n=250)["sets"]["test"]
    training = source_facts(kind="hub", id="openai/gsm8k", revision="7" * 40, rows={"train": 6973, "test": 1319})
    return {
        "name": "grpo", "base": "tiny", "base_record": {"id": None, "name": "tiny"}, "licence": "apache-2.0",
        "dataset": "gsm8k", "methods": ["sft", "rejection_sampling"], "metrics": figures,
        "source": training | {
            "name": "gsm8k", "drop": {"train-9": "no gold"},
            "sets": {
                "test": source_facts(kind="hub", id="openai/gsm8k", revision="7" * 40),
                "mgsm-en": source_facts(licence="CC-BY-4.0", rows=250, contains="test", note="Professionally made."),
                "svamp": source_facts(licence="WTFPL"),
            },
        },
        "merge": {"dtype": "bfloat16", "base": "trained", "token_agreement": 1.0, "tokens": 5, "kept": 0.97},
        "prompt": [{"role": "user", "content": "1 + 1?"}], "recipe": "prompt: {}\n", "seed": 1,
        "trained_rows": 812, "selected": {"step": 40, "eval_loss": 0.5},
        "packages": {"trl": "1.14.2"},
    }  # fmt: skip


def test_the_card_says_of_every_evaluated_set_its_figures_licence_and_what_it_repeats() -> None:
    text = card("merged", facts())
    assert "trained with sft, then rejection sampling on gsm8k" in text
    assert "| test: 500 problems, greedy |" in text and "| mgsm-en: 250 problems, greedy |" in text
    assert (
        "learnt from 812 rows, made of the 6973 training problems of gsm8k (hub `openai/gsm8k` at `"
        + "7" * 40
        + "`, licence MIT); its checkpoint, of step 40, was chosen on the split `validation`; "
        "dropped: train-9 (no gold)." in text
    )
    assert (
        "- mgsm-en (files, licence CC-BY-4.0), 250 rows. All of them are also in test. Professionally made.\n" in text
    )
    assert "WTFPL" not in text  # the run was not evaluated on it


def test_the_cards_metadata_names_the_main_set_and_the_methods() -> None:
    data = ModelCard(card("adapter", facts())).data
    assert {"sft", "rejection-sampling"} <= set(data.tags)
    assert data.datasets == ["openai/gsm8k"]
    assert {result.dataset_name for result in data.eval_results} == {"gsm8k, test"}
    assert [result.metric_value for result in data.eval_results] == [0.6, 0.65]


@pytest.mark.parametrize("licence", ["apache-2.0", "llama3.2"])
@pytest.mark.parametrize(("part", "library"), [("adapter", "peft"), ("merged", "transformers")])
def test_the_cards_metadata_is_that_of_the_base_and_the_part(licence: str, part: str, library: str) -> None:
    asked = facts() | {"licence": licence}
    data = ModelCard(card(part, asked)).data
    assert (data.license, data.library_name) == (licence, library)
    assert (data.base_model, data.model_name, data.pipeline_tag) == ("tiny", "grpo", "text-generation")
    data = ModelCard(card(part, asked | {"base_record": {"id": "Qwen/Qwen2.5-0.5B", "name": "qwen"}})).data
    assert data.base_model == "Qwen/Qwen2.5-0.5B"


def test_a_set_without_an_id_of_the_hub_is_named_and_claims_none() -> None:
    asked = facts()
    asked["source"] |= {"id": None, "sets": {name: source_facts() for name in asked["source"]["sets"]}}
    data = ModelCard(card("adapter", asked)).data
    assert data.datasets is None
    assert {result.dataset_type for result in data.eval_results} == {"test"}


def test_the_cards_facts_are_those_of_the_base_and_of_the_training(tmp_path: Path) -> None:
    write_json(tmp_path / "base.json", {"id": None, "name": "tiny", "licence": "Llama3.2"})
    settings = {"dtype": "float32", "attn_implementation": "sdpa", "threads": 1}
    description = {
        "kind": "adapter", "architecture": "causal", "path": "01-grpo", "base": "b", "model": settings,
        "quantization": None,
    }  # fmt: skip
    write_json(tmp_path / "model.json", description)
    (tmp_path / "01-grpo").mkdir()
    ran = {"seed": 3, "rows": 812, "packages": {"trl": "1"}, "selected": {"step": 4, "eval_loss": 0.5}}
    write_json(tmp_path / "01-grpo/configuration.json", ran)
    recipe = load_recipe(ROOT / "tests/pipeline/short.yaml")
    found = card_facts(recipe, tmp_path / "model.json", tmp_path / "base.json")
    assert (found["licence"], found["base"]) == ("llama3.2", "tiny")  # the Hub's names of licences are in small letters
    assert (found["seed"], found["trained_rows"], found["selected"]) == (3, 812, ran["selected"])
    assert (found["methods"], found["packages"]) == (["grpo"], ran["packages"])


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_is_as_private_as_the_recipe_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    asked: list[tuple[Any, ...]] = []

    class Hub:
        def __init__(self, token: str) -> None:
            asked.append(("token", token))

        def create_repo(self, name: str, **options: Any) -> None:
            asked.append(("create", name, options))

        def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> Any:
            asked.append(("upload", repo_id, folder_path))
            return SimpleNamespace(oid=f"commit of {repo_id}")

    monkeypatch.setattr(publish, "HfApi", Hub)
    for part in ("merged", "adapter"):
        (tmp_path / part).mkdir()
    pushed = publish.push(tmp_path, "me/model", private, "hf_secret")
    assert asked == [
        ("token", "hf_secret"),
        ("create", "me/model-adapter", {"private": private, "exist_ok": True}),
        ("upload", "me/model-adapter", tmp_path / "adapter"),
        ("create", "me/model-merged", {"private": private, "exist_ok": True}),
        ("upload", "me/model-merged", tmp_path / "merged"),
    ]
    assert pushed["merged"] == {"repository": "me/model-merged", "commit": "commit of me/model-merged"}
