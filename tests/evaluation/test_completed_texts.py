"""Texts that models complete: how likely both find each completion, and what the reward model takes the texts for."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from grpo_cot.common.files import Row, write_json, write_jsonl
from grpo_cot.recipes.recipe import EvaluateSection, Recipe, load_recipe
from grpo_cot.schema import whole_text

pytestmark = pytest.mark.slow
TINY = ROOT / "assets/tiny/model"
CLASSES = ["negative", "neutral", "positive"]
TEXTS = ["The lecturer explains too fast.", "Slides are fine.", "Good", "The exercises help me a lot, thanks."]
ROWS: list[Row] = [
    {
        "id": f"test-{number}", "messages": [{"role": "user", "content": " ".join(text.split()[:2])}], "gold": None,
        "locale": "en", "solution": None, "text": text, "label": CLASSES[number % 3], "wanted": "negative", "tokens": 9,
    }
    for number, text in enumerate(TEXTS)
]  # fmt: skip


def run_folder(folder: Path, *, reward_model: bool) -> Path:
    """The model.json of a training of two phases on the embedded model, each of which moved its weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    for name, moved in (("01-sft", 0.02), ("02-ppo", 0.06)):
        model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
        model.get_output_embeddings().weight.data += moved * torch.randn_like(model.get_output_embeddings().weight)
        model.save_pretrained(folder / name)
        write_json(folder / name / "configuration.json", {})
    if reward_model:
        tokenizer = AutoTokenizer.from_pretrained(TINY)
        tokenizer.model_max_length = 16
        tokenizer.save_pretrained(folder / "reward_model")
        sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer), intermediate_size=8, max_position_embeddings=32, initializer_range=1.0,
                id2label=dict(enumerate(CLASSES)), label2id={name: number for number, name in enumerate(CLASSES)},
                pad_token_id=tokenizer.pad_token_id, **sizes,
            )
        ).save_pretrained(folder / "reward_model")  # fmt: skip
    settings = {"dtype": "float32", "attn_implementation": "sdpa", "threads": 1}
    description = {"kind": "full", "architecture": "causal", "path": "02-ppo", "base": str(TINY), "model": settings}
    write_json(folder / "model.json", description | {"quantization": None})
    return folder / "model.json"


def recipe(before: int | None, **sampling: Any) -> Recipe:
    section = EvaluateSection(
        sets=["test"], before=before, sample=None, seed=0, engine="transformers", batch_size=3, samples=None,
        sampling={"do_sample": False, "max_new_tokens": 6, **sampling},
    )  # fmt: skip
    return load_recipe(ROOT / "tests/pipeline/short.yaml").model_copy(update={"evaluate": section})


def evaluated(folder: Path, asked: Recipe, *, reward_model: bool = True) -> list[Row]:
    from grpo_cot.evaluation.asking import answer_sets

    if not (folder / "train/model.json").is_file():
        run_folder(folder / "train", reward_model=reward_model)
        write_jsonl(folder / "prompts/eval-test.jsonl", ROWS)
    with answer_sets(asked, "recipe", folder / "prompts", folder / "train/model.json", folder / "scratch") as rows:
        return rows


def test_each_model_is_asked_how_likely_its_own_and_the_others_completions_are(tmp_path: Path) -> None:
    from grpo_cot.evaluation.likelihood import of_tokens
    from grpo_cot.models.generation import encode
    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.models.turns import answer_ids

    asked = recipe(before=1)
    rows = evaluated(tmp_path, asked)
    assert [row["before"] for row in rows] == ["01-sft"] * 4
    tokenizer = load_tokenizer(TINY)
    models = {
        name: load_base(tmp_path / "train" / folder, asked.model, None)
        for name, folder in (("base", "01-sft"), ("trained", "02-ppo"))
    }
    prompts = encode(tokenizer, [row["messages"] for row in ROWS], asked.prompt.chat_template_kwargs)
    for writer, other in (("base", "trained"), ("trained", "base")):
        texts = [row[writer]["completion"] for row in rows]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        ended = answer_ids(tokenizer, texts)
        ids = [cut if row[writer]["truncated"] else end for row, cut, end in zip(rows, ids, ended, strict=True)]
        for reader, field in ((writer, "own"), (other, "other")):
            found = of_tokens(models[reader], tokenizer, prompts, ids, batch_size=1, progress="test", finished={})
            assert [row[writer][f"{field}_log_likelihood"] for row in rows] == pytest.approx(
                [likelihood.log_likelihood for likelihood in found if likelihood], abs=1e-3
            )
        assert [row[writer]["own_tokens"] for row in rows] == [len(answer) for answer in ids]
    assert any(row["base"]["completion"] != row["trained"]["completion"] for row in rows)
    assert all(row["trained"]["gold_tokens"] for row in (*rows[:2], rows[3])) and not rows[2]["trained"]["gold_tokens"]


def test_the_reward_model_judges_the_rows_own_texts_and_what_both_models_completed(tmp_path: Path) -> None:
    from grpo_cot.models.classifier import Classifier

    rows = evaluated(tmp_path, recipe(before=None))
    classifier = Classifier(tmp_path / "train/reward_model")
    assert [row["before"] for row in rows] == [None] * 4
    for row, expected in zip(rows, classifier.probabilities(TEXTS), strict=True):
        assert row["label_probabilities"] == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-6)
    for model in ("base", "trained"):
        texts = [
            whole_text(row["messages"], answer[model]["completion"]) for row, answer in zip(ROWS, rows, strict=True)
        ]
        logits = classifier.logits(texts)
        assert [row[model]["reward_model"] for row in rows] == pytest.approx(logits[:, 0].tolist(), abs=1e-5)
        for row, expected in zip(rows, logits.softmax(1).tolist(), strict=True):
            assert list(row[model]["probabilities"].values()) == pytest.approx(expected, abs=1e-6)


def test_without_a_reward_model_its_fields_are_null(tmp_path: Path) -> None:
    rows = evaluated(tmp_path, recipe(before=None), reward_model=False)
    assert {row["label_probabilities"] for row in rows} == {None}
    answers = [row[model] for row in rows for model in ("base", "trained")]
    assert {(answer["probabilities"], answer["reward_model"]) for answer in answers} == {(None, None)}
    assert all(row["trained"]["own_log_likelihood"] < 0 for row in rows)


def test_an_interrupted_evaluation_of_texts_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpo_cot.evaluation import likelihood
    from grpo_cot.models import generation
    from grpo_cot.models.classifier import Classifier

    expected = evaluated(tmp_path, recipe(before=1))
    calls: list[int] = []

    def dies(self: Any, texts: list[str]) -> Any:
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return logits(self, texts)

    logits = Classifier.logits
    monkeypatch.setattr(Classifier, "logits", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path, recipe(before=1))
    for module, work in ((generation, "_complete"), (likelihood, "_after_prompt")):
        monkeypatch.setattr(module, work, None)  # a second completion, or a second reading, would fail
    assert evaluated(tmp_path, recipe(before=1)) == expected
    assert calls == [3, 1, 3, 3, 1, 3, 1]  # own, base; and again from the third batch on


def test_only_an_end_that_was_written_counts(tmp_path: Path) -> None:
    from grpo_cot.evaluation.texts import written_ids
    from grpo_cot.models.generation import Completion
    from grpo_cot.models.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(TINY)
    end = tokenizer.eos_token_id
    completions = [
        Completion("a lot.", 3, truncated=False), Completion("a lot.", 3, truncated=True),
        Completion("a lot.", 3, truncated=False), Completion("", 0, truncated=False), Completion("", 1, truncated=True),
    ]  # fmt: skip
    ids = written_ids(tokenizer, completions, [])
    assert [answer[-1:] == [end] for answer in ids] == [True, False, True, True, False]
    assert ids[0][:-1] == ids[1] and ids[3] == [end] and ids[4] == []
    assert written_ids(tokenizer, completions, ["."])[2] == ids[1]  # a stop string ended it


def test_an_empty_completion_has_no_token_and_is_certain() -> None:
    from grpo_cot.evaluation.likelihood import of_tokens
    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer

    model = load_base(TINY, recipe(before=None).model, None)
    settings: dict[str, Any] = {"batch_size": 4, "progress": "test", "finished": {}}
    found = of_tokens(model, load_tokenizer(TINY), [[5, 6], [7, 8, 9]], [[], [6, 7]], **settings)
    assert found[0] == (0.0, 0) and found[1] is not None and found[1].log_likelihood < 0
    assert of_tokens(model, load_tokenizer(TINY), [[5, 6]], [[]], **settings) == [(0.0, 0)]


def test_what_is_in_the_reward_models_folder_decides_whether_an_evaluation_resumes(tmp_path: Path) -> None:
    from grpo_cot.evaluation.asking import decisive

    model_json = run_folder(tmp_path / "train", reward_model=True)
    write_jsonl(tmp_path / "prompts/eval-test.jsonl", ROWS)
    before = decisive(recipe(before=1), tmp_path / "prompts", model_json)["trained"]
    assert {"01-sft/model.safetensors", "02-ppo/model.safetensors", "reward_model/model.safetensors"} <= before.keys()
    shutil.copy(tmp_path / "train/02-ppo/model.safetensors", tmp_path / "train/01-sft/model.safetensors")
    assert decisive(recipe(before=1), tmp_path / "prompts", model_json)["trained"] != before
