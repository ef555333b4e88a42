"""The model card: what was measured on which set, whose data it was, and the programs on it, run as they stand."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from graded import metrics, preference_metrics, text_metrics
from huggingface_hub import ModelCard
from support import ROOT

from grpo_cot.common.files import write_json
from grpo_cot.hub.licences import BaseLicence
from grpo_cot.publishing.card import card
from grpo_cot.publishing.publish import card_facts, programs
from grpo_cot.publishing.results import leaderboard_entries
from grpo_cot.recipes.recipe import MergeSection, ModelSection, Recipe, load_recipe

PROMPT = [
    {"role": "system", "content": "Answer in this form:\n<answer>\n...\n</answer>"},
    {"role": "user", "content": "Olga has 17 kites. Now there are three times as many kites. After that, 15 kites are "
     "taken away. How many kites does Olga have now?"},
]  # fmt: skip


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
        "prompt": [{"role": "user", "content": "1 + 1?"}], "recipe": "prompt: {}\n", "questions_of": str, "seed": 1,
        "trained_rows": 812, "selected": {"step": 40, "eval_loss": 0.5},
        "packages": {"trl": "1.14.2"},
        "place": ".", "answers": "greedy", "transformers_program": "import transformers\n", "vllm_program": None,
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


def test_the_card_of_a_run_on_pairs_claims_no_reasoning_and_no_accuracy() -> None:
    text = card("merged", facts() | {"metrics": preference_metrics(0.4, 0.9)})
    assert "| pairs of answers ranked right (n = 490) | 40.0 % [36.0, 44.0] | 90.0 %" in text
    assert "strict" not in text.lower() and "<reasoning>" not in text and "unread" not in text
    data = ModelCard(text).data
    assert "reasoning" not in data.tags
    assert [result.metric_type for result in data.eval_results] == ["accuracy"]


def test_the_card_of_a_run_on_texts_has_the_judges_figures_and_claims_no_reasoning() -> None:
    figures = text_metrics(0.2, 0.6, "01-sft")
    figures["sets"]["test"]["warnings"] = ["the reward was hacked: much"]
    text = card("merged", facts() | {"metrics": figures})
    assert "to continue the beginning of a text so that it is of the class `negative`.\n" in text
    assert "| test: 500 texts, greedy | after 01-sft | trained |" in text
    assert "| judged `negative` by an independent judge | 20.0 % [16.0, 24.0] | 60.0 % [56.0, 64.0] | +40.0" in text
    assert "| taken for `negative` by the reward model | 30.0 %" in text
    assert "**Warning:** the reward was hacked: much." in text
    assert "it takes 87.0 % [83.0, 91.0] of the set's own texts for their class" in text
    assert "The model after 01-sft is what that phase of the training left" in text
    assert "reason" not in text.lower() and "problem" not in text and "final answer" not in text
    data = ModelCard(text).data
    assert "reasoning" not in data.tags
    assert [(result.metric_name, result.metric_value) for result in data.eval_results] == [
        ("completions judged negative by an independent judge (n = 500)", 0.6)
    ]
    without = card("adapter", facts() | {"metrics": text_metrics(0.2, 0.6, reward_model=False)})
    assert "by the reward model" not in without and "| base | trained |" in without
    assert "The base is the one that training started from" in without


def test_a_leaderboard_gets_figures_of_final_answers_alone() -> None:
    test = source_facts(rows=500, benchmark={"id": "openai/gsm8k", "task_id": "gsm8k"})
    assert list(leaderboard_entries(metrics(0.2, 0.6), {"sets": {"test": test}})) == ["test"]
    for figures in (text_metrics(0.2, 0.6), preference_metrics(0.2, 0.6)):
        assert leaderboard_entries(figures, {"sets": {"test": test}}) == {}


def test_a_set_with_fewer_examples_is_no_further_data_and_no_benchmark() -> None:
    asked = facts() | {"questions_of": lambda name: name.removesuffix("-with-0")}
    figures = asked["metrics"]
    figures["sets"]["test-with-0"] = metrics(0.1, 0.4)["sets"]["test"]
    text = card("merged", asked)
    assert "| test-with-0: 500 problems, greedy |" in text
    assert "\n- test-with-0: the same as test, asked in another way (fewer worked" in text
    test = source_facts(rows=500, benchmark={"id": "openai/gsm8k", "task_id": "gsm8k"})
    other = source_facts(rows=250)
    assert list(leaderboard_entries(figures, {"sets": {"test": test, "mgsm-en": other}})) == ["test"]


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


def short(**sections: Any) -> Recipe:
    """The tests' recipe with other values in some sections."""
    recipe = load_recipe(ROOT / "tests/pipeline/short.yaml")
    return recipe.model_copy(
        update={name: getattr(recipe, name).model_copy(update=values) for name, values in sections.items()}
    )


def described(folder: Path, architecture: str, base: Path) -> Path:
    """model.json of a model with full weights, which are its base's."""
    model = {"dtype": "float32", "attn_implementation": "sdpa", "threads": 1}
    description = {"kind": "full", "architecture": architecture, "path": "base", "base": str(base), "model": model}
    write_json(folder / "model.json", description | {"quantization": None})
    return folder / "model.json"


def merged_and_expected(base: Path, model_json: Path, recipe: Recipe, folder: Path) -> list[str]:
    """Merge; the merged model's answers to PROMPT as the evaluation asks, with the template's arguments and without."""
    from grpo_cot.merging.merge import merge
    from grpo_cot.models.description import read_description
    from grpo_cot.models.generation import encode, generate
    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.models.turns import state_turn_end

    tokenizer = load_tokenizer(base)
    description = read_description(model_json)
    folder.mkdir()
    merge(description, base, MergeSection(base="original", dtype="float32", prompts=1, new_tokens=1), tokenizer, folder)
    state_turn_end(folder, tokenizer)
    model = load_base(folder, ModelSection(dtype="float32", attn_implementation="sdpa", threads=1), None)
    answers = []
    for arguments in (recipe.prompt.chat_template_kwargs, {}):
        prompts = encode(tokenizer, [PROMPT], arguments)
        [answer] = generate(model, tokenizer, prompts, recipe.evaluate.sampling, batch_size=1, seed=0, progress="t")
        answers.append(answer.text)
    return answers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asset", "architecture", "before"),
    [("tiny", "causal", "Ada has 3 cups. "), ("tiny-mt5", "seq2seq", "Answer with 7. " * 9)],
)
def test_the_program_on_the_card_answers_as_the_evaluation_did(
    tmp_path: Path, asset: str, architecture: str, before: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(ROOT / f"assets/{asset}/model", base)
    defaults = json.loads((base / "generation_config.json").read_text())
    own = {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.3}  # many bases bring such
    write_json(base / "generation_config.json", defaults | own)
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").write_text("{{ before }}" + template)
    recipe = short(prompt={"chat_template_kwargs": {"before": before}})
    model_json = described(tmp_path, architecture, base)
    expected, without = merged_and_expected(base, model_json, recipe, tmp_path / "merged")
    assert expected != without  # or a program that forgets the template's arguments would pass

    text = card("merged", facts() | {"prompt": PROMPT} | programs(recipe, model_json, PROMPT))
    program = re.findall(r"With Transformers:\n\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "program.py").write_text(*program)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"], cwd=tmp_path / "merged", env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected + "\n"


def test_the_programs_load_the_repository_that_is_pushed_to_or_the_cards_own_folder(tmp_path: Path) -> None:
    model_json = described(tmp_path, "causal", tmp_path)
    for repository, place in (("somebody/model", "somebody/model-merged"), (None, ".")):
        made = programs(short(publish={"repository": repository}), model_json, PROMPT)
        text = card("merged", facts() | made)
        assert f'pipeline("text-generation", model="{place}")' in text and f'LLM(model="{place}")' in text
        assert ("Start them in this folder" in text) == (repository is None)
        assert "## Use" not in card("adapter", facts() | made)


def test_vllm_is_left_out_where_it_cannot_answer_so(tmp_path: Path) -> None:
    beams = short(evaluate={"sampling": {"max_new_tokens": 4, "num_beams": 2}})
    for recipe, architecture, shown in (
        (short(), "causal", True),
        (beams, "causal", False),
        (short(), "seq2seq", False),
    ):
        made = programs(recipe, described(tmp_path, architecture, tmp_path), PROMPT)
        assert ("With vLLM" in card("merged", facts() | made)) == shown
