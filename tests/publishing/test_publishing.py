"""The model card: what was measured on which set, and whose data it was."""

from pathlib import Path
from typing import Any

import pytest
from graded import metrics
from huggingface_hub import ModelCard
from support import ROOT

from grpo_cot.common.files import write_json
from grpo_cot.hub.licences import BaseLicence
from grpo_cot.publishing.card import card
from grpo_cot.publishing.publish import card_facts
from grpo_cot.recipes.recipe import load_recipe


def licence(name: str) -> dict[str, Any]:
    return dict.fromkeys(BaseLicence.model_fields) | {"id": name}


def source_facts(**facts: object) -> dict[str, Any]:
    absent = dict.fromkeys(("id", "revision", "note", "contains", "benchmark"))
    return {"kind": "files", "licence": licence("mit"), "rows": 1319, "drop": {}, **absent, **facts}


def facts() -> dict[str, Any]:
    figures = metrics(0.2, 0.6)
    figures["sets"]["mgsm-en"] = metrics(0.1, 0.3, n=250)["sets"]["test"]
    training = source_facts(kind="hub", id="openai/gsm8k", revision="7" * 40, rows={"train": 6973, "test": 1319})
    return {
        "name": "grpo", "base": "tiny", "base_record": {"id": None, "name": "tiny", "agreement": None},
        "licence": licence("apache-2.0"),
        "dataset": "gsm8k", "methods": ["sft", "rejection_sampling"], "metrics": figures,
        "source": training | {
            "name": "gsm8k", "drop": {"train-9": "no gold"},
            "sets": {
                "test": source_facts(kind="hub", id="openai/gsm8k", revision="7" * 40),
                "mgsm-en": source_facts(
                    licence=licence("cc-by-4.0"), rows=250, contains="test", note="Professionally made."
                ),
                "svamp": source_facts(licence=licence("wtfpl")),
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
        + "`, licence mit); its checkpoint, of step 40, was chosen on the split `validation`; "
        "dropped: train-9 (no gold)." in text
    )
    assert (
        "- mgsm-en (files, licence cc-by-4.0), 250 rows. All of them are also in test. Professionally made.\n" in text
    )
    assert "wtfpl" not in text  # the run was not evaluated on it


def test_the_cards_metadata_names_the_main_set_and_the_methods() -> None:
    data = ModelCard(card("adapter", facts())).data
    assert {"sft", "rejection-sampling"} <= set(data.tags)
    assert data.datasets == ["openai/gsm8k"]
    assert {result.dataset_name for result in data.eval_results} == {"gsm8k, test"}
    assert [result.metric_value for result in data.eval_results] == [0.6, 0.65]


@pytest.mark.parametrize(("part", "library"), [("adapter", "peft"), ("merged", "transformers")])
def test_the_cards_metadata_is_that_of_the_base_and_the_part(part: str, library: str) -> None:
    data = ModelCard(card(part, facts())).data
    assert (data.license, data.library_name) == ("apache-2.0", library)
    assert (data.base_model, data.model_name, data.pipeline_tag) == (None, "grpo", "text-generation")
    qwen = {"id": "Qwen/Qwen2.5-0.5B", "name": "qwen", "agreement": None}
    assert ModelCard(card(part, facts() | {"base_record": qwen})).data.base_model == "Qwen/Qwen2.5-0.5B"


def test_the_cards_body_states_the_bases_licence() -> None:
    text = card("merged", facts())
    assert "made from tiny, whose licence is Apache license 2.0 (`apache-2.0`); it holds for this model" in text
    assert "Notice" not in text and "**None**" not in text


def test_a_set_without_an_id_of_the_hub_is_named_and_claims_none() -> None:
    asked = facts()
    asked["source"] |= {"id": None, "sets": {name: source_facts() for name in asked["source"]["sets"]}}
    data = ModelCard(card("adapter", asked)).data
    assert data.datasets is None
    assert {result.dataset_type for result in data.eval_results} == {"test"}


def test_the_cards_facts_are_those_of_the_base_and_of_the_training(tmp_path: Path) -> None:
    write_json(tmp_path / "base.json", {"id": None, "name": "tiny", "licence": licence("llama3.2")})
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
    assert (found["licence"]["id"], found["base"]) == ("llama3.2", "tiny")
    assert (found["seed"], found["trained_rows"], found["selected"]) == (3, 812, ran["selected"])
    assert (found["methods"], found["packages"]) == (["grpo"], ran["packages"])
