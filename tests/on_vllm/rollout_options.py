"""Each option of LoraConfig with which vLLM samples in training: it scores its tokens as the trainer does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rollout_recipes import BASE, recipe

from on_vllm.rollout_trainers import curve, trainer

pytestmark = pytest.mark.slow


def with_options(folder: Path, sync: str, lora: dict[str, Any], base: Path = BASE) -> Any:
    """A trainer in float32; dropout is off, as `make check` asks for it."""
    changes = {"model": {"dtype": "float32"}, "lora": lora}
    return trainer(folder, recipe(sync, changes, disable_dropout=True, vllm_enable_sleep_mode=False), base)


def tied(_: Path) -> Path:
    return BASE


def untied(folder: Path) -> Path:
    """The embedded model with an output matrix of its own, which is another one."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(BASE)
    head = model.lm_head.weight.detach().clone()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = type(model.lm_head.weight)(1.1 * head)
    return saved(model, folder)


def gpt2(folder: Path) -> Path:
    """A random model whose layers hold their weights the other way round."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 593, "bos_token_id": 2, "eos_token_id": 2}
    return saved(AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes)), folder)


def saved(model: Any, folder: Path) -> Path:
    from transformers import AutoTokenizer

    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": r".*\.(q_proj|v_proj|down_proj)", "use_rslora": True, "lora_dropout": 0.1},
        {"layers_to_transform": [1, 2], "layers_pattern": "layers", "init_lora_weights": False},
        {"target_modules": "all-linear", "exclude_modules": ["q_proj"], "init_lora_weights": "gaussian"},
    ],
)
def test_every_option_of_an_adapter_that_is_handed_over_is_sampled(
    tmp_path: Path, engines: list[Any], lora: dict[str, Any]
) -> None:
    trained = with_options(tmp_path, "adapter", lora)
    trained.train()
    gaps = curve(trained, "sync/log_probability_gap")
    assert len(gaps) == 3 and max(gaps) < 1e-5
    assert engines[0].events[-1] == "sample with sync-3"


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize(
    ("lora", "base"),
    [
        ({"use_dora": True, "use_rslora": True, "target_modules": "all-linear", "init_lora_weights": False}, tied),
        ({"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"v_proj": 3}, "init_lora_weights": False}, tied),
        ({"modules_to_save": ["norm"], "target_modules": "all-linear", "exclude_modules": ["q_proj"]}, tied),
        ({"target_modules": ["embed_tokens", "v_proj"], "init_lora_weights": False}, untied),
        ({"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, untied),
        ({"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, tied),
        ({"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "init_lora_weights": False}, gpt2),
    ],
)
def test_every_option_of_an_adapter_that_is_merged_is_sampled(
    tmp_path: Path, lora: dict[str, Any], base: Callable[[Path], Path]
) -> None:
    trained = with_options(tmp_path, "merge", lora, base(tmp_path / "base"))
    trained.train()
    gaps = curve(trained, "sync/log_probability_gap")
    assert len(gaps) == 3 and max(gaps) < 1e-5
    assert curve(trained, "sync/base_unchanged") == [1.0] * 3
