"""A base that is pretrained in the pipeline: what its source file must say, and at a very small size that it is."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import ROOT

from grpo_cot.bases.sources import Base
from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.files import file_hashes, read_jsonl, read_yaml
from grpo_cot.problems.generators import ITEMS, NAMES, harder_problems

SOURCE = ROOT / "sources/bases/gpu-small.yaml"
SHORT = {"steps": 30, "batch_size": 16, "learning_rate": 2e-3, "warmup_steps": 5, "save_steps": 10}
CONFIG = {
    "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip


def source(**changed: Any) -> dict[str, Any]:
    return {**read_yaml(SOURCE), **changed}


def short(**changed: Any) -> dict[str, Any]:
    whole = source(config=CONFIG)
    return {**whole, "pretraining": {**whole["pretraining"], **SHORT}, **changed}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"pretraining": None}, "a base of kind 'pretrained' needs 'pretraining'"),
        ({"kind": "scratch"}, "a base of kind 'scratch' has no 'pretraining'"),
        ({"problems": "basic"}, "'styles' is given for 2, 3, 4, 5, 6, expected .* of the basic problems: 1, 2, 3"),
        ({"steps": None}, "pretraining.steps"),
        ({"bare": 0.5}, "the shares of the four styles add up to 1.3, expected 1"),
        ({"learning_rat": 1.0}, "unknown key 'pretraining.learning_rat'; did you mean 'learning_rate'?"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused(changed: dict[str, Any], says: str) -> None:
    whole = source()
    for key, value in changed.items():
        if key == "bare":
            whole["pretraining"]["styles"][2]["bare"] = value
        elif key in whole:
            whole[key] = value
        else:
            whole["pretraining"][key] = value
    with pytest.raises(InputError, match=says):
        validated(Base, whole, "x.yaml")


def make(folder: Path, name: str, content: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    path = folder / f"{name}.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(content, file)
    return subprocess.run(
        [sys.executable, "scripts/base.py", "--source", path, "--output", folder / name,
         "--provenance", folder / f"{name}.json", "--scratch", folder / f"scratch-{name}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


MT5 = {"model_type": "mt5", "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}


@pytest.mark.slow
@pytest.mark.prove
@pytest.mark.parametrize("config", [CONFIG, MT5])
def test_a_base_is_pretrained_the_same_to_the_byte_twice_and_its_loss_falls(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    from grpo_cot.models.loading import load_base
    from grpo_cot.recipes.recipe import ModelSection

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        done = make(tmp_path / name, "base", short(config=config))
        assert done.returncode == 0, done.stderr
        assert not list((tmp_path / name / "scratch-base").glob("*/*"))
    first, second = (tmp_path / name / "base" for name in ("one", "two"))
    assert file_hashes(first) == file_hashes(second)
    curve = read_jsonl(first / "pretraining.jsonl")
    assert [entry["step"] for entry in curve] == [10, 20, 30]
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    model = load_base(first, ModelSection(dtype="float32", attn_implementation="sdpa", threads=2), None)
    assert model.config.vocab_size == 784
    assert json.loads((first / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.slow
def test_a_size_that_needs_a_gpu_is_refused_without_one_before_anything_is_trained(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = make(tmp_path, "gpu-small", source())
    assert done.returncode == 1
    assert re.search(r"pretraining 5\d,\d{3},\d{3} parameters on 768,000 examples needs a GPU, .* none", done.stderr)
    assert not (tmp_path / "gpu-small").exists()


@pytest.mark.slow
def test_an_interrupted_pretraining_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config, Trainer, set_seed

    from grpo_cot.bases.pretraining import pretrain
    from grpo_cot.models.tokenizers import load_tokenizer

    settings = validated(Base, short(), "x.yaml").pretraining
    assert settings is not None
    tokenizer = load_tokenizer(ROOT / "assets/gpu-small/tokenizer")

    def trained(checkpoints: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
        set_seed(1)
        model = AutoModelForCausalLM.from_config(Qwen2Config(**{**CONFIG, "vocab_size": len(tokenizer)}))
        curve = pretrain(model, tokenizer, settings, 1, checkpoints)
        return model.state_dict(), curve

    try:
        whole, curve = trained(tmp_path / "whole")
        # What a kill after step 20 leaves: that checkpoint, and the next one without its last file.
        shutil.copytree(tmp_path / "whole", tmp_path / "killed")
        (tmp_path / "killed/checkpoint-30/trainer_state.json").unlink()
        killed = trained(tmp_path / "killed")
        with monkeypatch.context() as patch:
            step = Trainer.training_step

            def told_once(self: Trainer, *arguments: Any) -> Any:
                if self.state.global_step == 11:
                    os.kill(os.getpid(), signal.SIGTERM)
                return step(self, *arguments)

            patch.setattr(Trainer, "training_step", told_once)
            with pytest.raises(InputError, match=r"\(SIGTERM\): it did so after step 20 of 30 and left a checkpoint"):
                trained(tmp_path / "told")
        told = trained(tmp_path / "told")
    finally:
        torch.use_deterministic_algorithms(False)
    for resumed, its_curve in (killed, told):
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        assert curve == its_curve


@pytest.mark.slow
def test_the_corpus_is_answered_as_the_source_says_and_holds_no_test_problem_under_other_names() -> None:
    from grpo_cot.bases.pretraining import conversations
    from grpo_cot.schema import strict_answer

    base = validated(Base, source(), SOURCE)
    assert base.pretraining is not None and base.seed is not None
    names = re.compile("|".join(rf"\b{word}\b" for word in (*NAMES, *ITEMS)))
    seen, in_schema, total = set(), 0, 0
    for chunk in range(4):
        for messages in itertools.islice(conversations(base.pretraining, base.seed, chunk), 5000):
            seen.update(names.sub("X", message["content"]) for message in messages if message["role"] == "user")
            if messages[0]["role"] == "system":
                total += 1
                in_schema += strict_answer(messages[-1]["content"]) is not None
    # Of each number of steps a fifth: 0.6, 0.35, 0.35, 0.6 and 0.6 of the answers are in the schema.
    assert abs(in_schema / total - 0.5) < 0.02
    test = [names.sub("X", problem.question) for problem in itertools.islice(harder_problems("test", 7), 1000)]
    assert not seen.intersection(test)
