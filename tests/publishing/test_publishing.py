"""The model card: what was measured on which set, and whose data it was."""

from typing import Any

from graded import metrics
from huggingface_hub import ModelCard

from grpo_cot.publishing.publish import card


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
        "merge": {"dtype": "bfloat16", "base": "trained", "token_agreement": 1.0, "tokens": 5, "logit_difference": 0},
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
