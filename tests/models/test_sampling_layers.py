"""LoRA layers in few operations are PEFT's, but for rounding, and are PEFT's again afterwards."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BASE = Path(__file__).parents[2] / "assets/tiny/model"
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}


def adapted(dtype: str = "bfloat16", quantization: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The tiny model with an adapter in float32 that changes its answers a good deal."""
    import torch
    from peft import LoraConfig, get_peft_model

    from grpo_cot.models.loading import load_base
    from grpo_cot.recipes.recipe import ModelSection

    section = ModelSection(dtype=dtype, attn_implementation="sdpa", threads=2)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = get_peft_model(
        load_base(BASE, section, quantization),
        LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "down_proj"], **settings),
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter.data, dtype=torch.float32) * 0.1
    return model.eval()


def shortened(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if "lora_A" in dir(module) and "forward" in vars(module)]


@pytest.mark.parametrize("quantization", [None, NF4])
def test_log_probabilities_are_as_near_to_trainings_as_those_are_to_exact_ones(
    quantization: dict[str, Any] | None,
) -> None:
    import torch

    from grpo_cot.models.sampling_layers import in_few_operations

    model = adapted(quantization=quantization)
    exact = adapted("float32", quantization and quantization | {"bnb_4bit_compute_dtype": "float32"})
    own = dict(model.named_parameters())
    for name, parameter in exact.named_parameters():
        if quantization is None or "lora_" in name:
            parameter.data = own[name].data.float()
    ids = torch.randint(5, 500, (8, 40))
    with torch.no_grad():
        expected, trained = (each(ids).logits.float().log_softmax(-1) for each in (exact, model))
        with in_few_operations(model):
            assert len(shortened(model)) == 12
            sampled = model(ids).logits.float().log_softmax(-1)
        with model.disable_adapter():
            base = model(ids).logits.float().log_softmax(-1)
        again = model(ids).logits.float().log_softmax(-1)
    gap = (sampled - trained).abs().mean()
    assert 0 < gap <= (trained - expected).abs().mean()
    assert (sampled - expected).abs().mean() <= 1.2 * (trained - expected).abs().mean()
    assert gap < 0.1 * (trained - base).abs().mean()
    assert torch.equal(again, trained) and not shortened(model)


def test_an_adapter_that_a_merge_would_lose_keeps_its_effect() -> None:
    import torch
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    from grpo_cot.models.sampling_layers import in_few_operations

    torch.manual_seed(0)
    base = torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    base.weight.data.fill_(1)
    layer = Linear(base, "default", config=LoraConfig(r=4), r=4, lora_alpha=4)
    first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    first.data, second.data = torch.randn(4, 64), torch.randn(64, 4) * 1e-4
    values = torch.randn(8, 1, 32).bfloat16()
    values = torch.cat([values, -values], dim=-1)  # the base answers 0
    expected = values.float() @ (second @ first).T
    merged = (base.weight + (second @ first).bfloat16()).float()
    with torch.no_grad(), in_few_operations(layer):
        assert "forward" in vars(layer)
        found = layer(values).float()
    assert torch.equal(merged, torch.ones(64, 64))
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        ("float32", {}), ("bfloat16", {"use_dora": True}), ("bfloat16", {"lora_bias": True}),
        ("bfloat16", {"lora_dropout": 0.5}),
    ],
)  # fmt: skip
def test_other_layers_stay_pefts(dtype: str, settings: dict[str, Any]) -> None:
    from grpo_cot.models.sampling_layers import in_few_operations

    model = adapted(dtype, **settings).train()
    with in_few_operations(model):
        assert not shortened(model)


def test_several_adapters_merged_ones_and_disabled_ones_stay_pefts() -> None:
    from peft import LoraConfig

    from grpo_cot.models.sampling_layers import in_few_operations

    model = adapted()
    with model.disable_adapter(), in_few_operations(model):
        assert not shortened(model)
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"]))
    with in_few_operations(model):
        assert len(shortened(model)) == 12
    model.base_model.set_adapter(["default", "other"])
    with in_few_operations(model):
        assert not shortened(model)
    model.base_model.set_adapter("default")
    model.merge_adapter()
    with in_few_operations(model):
        assert not shortened(model)


def test_a_4_bit_layer_that_answers_from_its_packed_weight_stays_pefts() -> None:
    from bitsandbytes.nn import Linear4bit

    from grpo_cot.models.sampling_layers import in_few_operations

    model = adapted(quantization=NF4)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            vars(module).pop("forward", None)
    with in_few_operations(model):
        assert not shortened(model)


def test_an_error_and_a_change_of_the_adapter_leave_nothing_behind() -> None:
    import torch

    from grpo_cot.models.sampling_layers import in_few_operations

    model = adapted()
    with pytest.raises(ZeroDivisionError), in_few_operations(model):
        assert shortened(model)
        raise ZeroDivisionError
    assert not shortened(model)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        with in_few_operations(model):
            before = model(ids).logits
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data *= -1
        with in_few_operations(model):
            after = model(ids).logits
        trained = model(ids).logits
    assert (after - trained).abs().mean() < 0.1 * (before - trained).abs().mean()
