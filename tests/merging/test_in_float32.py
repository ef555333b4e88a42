"""A trained model in float32 has the values that training computed with."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BASE = Path(__file__).parents[2] / "assets/tiny/model"
NF4 = {
    "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}  # fmt: skip


def described(base: Path, quantization: dict[str, Any] | None, kind: Any = "adapter") -> Any:
    from grpo_cot.models.description import ModelDescription
    from grpo_cot.recipes.recipe import ModelSection

    section = ModelSection(dtype="bfloat16", attn_implementation="flash_attention_2", threads=2)
    return ModelDescription(
        kind=kind, architecture="causal", path="adapter", base=str(base), model=section, quantization=quantization
    )


def adapter(folder: Path) -> Path:
    """A saved adapter whose factors are all 0.5."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.fill_(0.5)
    model.save_pretrained(folder)
    return folder


def held_in_training(quantization: dict[str, Any] | None) -> dict[str, Any]:
    """The base's weights by name, as the layers of a model in training hold them."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = AutoModelForCausalLM.from_pretrained(
        BASE, dtype=torch.bfloat16, device_map={"": "cpu"},
        quantization_config=BitsAndBytesConfig(**quantization) if quantization else None,
    )  # fmt: skip
    return dict((model.dequantize() if quantization else model).float().named_parameters())


def values(model: Any) -> dict[str, Any]:
    return {name.replace(".base_layer", ""): tensor for name, tensor in model.named_parameters()}


@pytest.mark.parametrize(
    ("quantization", "safetensors"), [(None, True), (NF4, True), (NF4, False)], ids=["16 bits", "4 bits", "torch files"]
)
def test_an_adapter_lies_on_the_base_as_training_held_it(
    tmp_path: Path, quantization: dict[str, Any] | None, safetensors: bool
) -> None:
    """With flash attention asked for too, which computes in no float32."""
    import shutil

    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    from grpo_cot.merging.stored import in_float32, plain

    base = Path(shutil.copytree(BASE, tmp_path / "base"))
    if not safetensors:
        torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
        (base / "model.safetensors").unlink()
    model = in_float32(described(base, quantization), adapter(tmp_path / "adapter"))
    assert isinstance(model, PeftModel) and not model.training
    found, expected = values(plain(model)), held_in_training(quantization)
    factors = {name for name in found if "lora_" in name}
    assert factors and all(bool((found[name] == 0.5).all()) for name in factors)
    assert found.keys() - factors == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype is torch.float32 and torch.equal(found[name], tensor), name
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_full_weights_are_read_from_their_own_folder(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from grpo_cot.merging.stored import in_float32

    trained = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.bfloat16)
    for parameter in trained.parameters():
        parameter.data += 1
    trained.save_pretrained(tmp_path / "weights")
    model = in_float32(described(BASE, None, "full"), tmp_path / "weights")
    for name, parameter in model.named_parameters():
        assert parameter.dtype is torch.float32, name
        assert torch.equal(parameter, trained.get_parameter(name).float()), name
