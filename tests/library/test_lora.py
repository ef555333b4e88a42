"""LoraConfig's options: carried from training to the merge, or refused by name before anything is trained."""

from dataclasses import fields
from typing import Any

import pytest

from grpo_cot.common.errors import InputError

pytestmark = pytest.mark.slow

REFUSED: list[tuple[dict[str, Any], str]] = [
    *(({"init_lora_weights": value}, "lora.init_lora_weights is .*; expected true, false or") for value in (
        "pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "mica", "eva", "orthogonal"
    )),
    ({"bias": "all"}, "lora.bias is 'all', which trains the base's own biases"),
    ({"bias": "lora_only"}, "lora.bias is 'lora_only', which trains the base's own biases"),
    ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "lora.target_parameters: this pipeline does not carry it"),
    ({"layer_replication": [[0, 4], [2, 5]]}, "lora.layer_replication: this pipeline does not carry it"),
    ({"lora_bias": True}, "lora.lora_bias: this pipeline does not carry it"),
    ({"use_qalora": True}, "lora.use_qalora: this pipeline does not carry it"),
    ({"alora_invocation_tokens": [5]}, "lora.alora_invocation_tokens: this pipeline does not carry it"),
    ({"megatron_config": {}}, "lora.megatron_config: this pipeline does not carry it"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_what_the_merge_or_the_comparison_with_the_base_would_get_wrong_is_refused(
    options: dict[str, Any], words: str
) -> None:
    from grpo_cot.library.lora import check_lora

    with pytest.raises(InputError, match=f"^r.yaml: phases.1.{words}"):
        check_lora({"r": 8} | options, "r.yaml: phases.1.lora")


def test_every_option_of_the_installed_peft_is_carried_or_refused() -> None:
    from peft import LoraConfig

    from grpo_cot.library.lora import CARRIED, KEEPING_THE_BASE, check_lora

    usual = LoraConfig()
    assert {field.name for field in fields(usual)} >= CARRIED | {"bias", "init_lora_weights"}
    check_lora({field.name: getattr(usual, field.name) for field in fields(usual)}, "lora")
    for value in KEEPING_THE_BASE:
        check_lora({"init_lora_weights": value}, "lora")
    for field in fields(usual):
        if field.name not in CARRIED | {"bias", "init_lora_weights"}:
            with pytest.raises(InputError, match=f"lora.{field.name}"):
                check_lora({field.name: "another value"}, "lora")


@pytest.mark.parametrize("value", [True, False, "gaussian"])
def test_an_adapter_that_starts_so_leaves_the_base_alone(value: Any) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from support import ROOT
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(ROOT / "assets/tiny/model")
    ids = torch.arange(5, 20)[None]
    with torch.inference_mode():
        expected = base(ids).logits
        adapted = get_peft_model(base, LoraConfig(target_modules="all-linear", r=4, init_lora_weights=value))
        with adapted.disable_adapter():
            assert torch.equal(adapted(ids).logits, expected)


def test_vllm_is_given_what_it_applies() -> None:
    from grpo_cot.library.lora import check_served

    check_served({"r": 8, "use_rslora": True, "init_lora_weights": "gaussian", "use_dora": False}, "lora", "merge")
    with pytest.raises(InputError, match=r"^lora\.use_dora is True, which vLLM cannot apply; take it out, or merge$"):
        check_served({"use_dora": True}, "lora", "merge")
