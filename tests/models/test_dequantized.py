"""A 4-bit layer whose weight was dequantized once computes what bitsandbytes computes at every call."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BASE = Path(__file__).parents[2] / "assets/tiny/model"


@pytest.mark.parametrize(
    ("held", "computed"), [("float32", "float32"), ("bfloat16", "float32"), ("float32", "bfloat16")]
)
def test_answers_and_gradients_are_the_same_to_the_byte(held: str, computed: str) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from grpo_cot.models.loading import load_base
    from grpo_cot.recipes.recipe import ModelSection

    quantization = {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": computed,
    }  # fmt: skip
    own = AutoModelForCausalLM.from_pretrained(
        BASE, dtype=getattr(torch, held), quantization_config=BitsAndBytesConfig(**quantization), device_map={"": "cpu"}
    )
    section = ModelSection(dtype=held, attn_implementation="sdpa", threads=2)  # type: ignore[arg-type]
    ours = load_base(BASE, section, quantization)
    ids = torch.arange(5, 45).reshape(2, 20)
    found = []
    for model in (own, ours):
        model.train()  # in evaluation mode bitsandbytes packs its weights anew, and computes otherwise
        for module in model.modules():
            if isinstance(module, Linear4bit):
                module.support_avx512bf16_for_cpu = False
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        logits = model(inputs_embeds=embedded).logits
        logits.float().square().sum().backward()
        found.append((logits, embedded.grad))
    assert torch.equal(found[0][0], found[1][0])
    if (
        held == "bfloat16"
    ):  # bitsandbytes rounds the weight to the base's type on the way back, and not on the way there
        torch.testing.assert_close(found[0][1], found[1][1], rtol=0.05, atol=0.05 * float(found[0][1].std()))
    else:
        assert torch.equal(found[0][1], found[1][1])
    calls = [name for name, module in ours.named_modules() if isinstance(module, Linear4bit)]
    assert calls and all("forward" in vars(ours.get_submodule(name)) for name in calls)


def test_a_bias_or_a_weight_that_is_changed_later_counts() -> None:
    """The merge gate sets biases to 0 for a moment; PEFT merges an adapter into a new packed weight."""
    import copy
    import pickle

    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    from grpo_cot.models.loading import _keep_dequantized

    torch.manual_seed(0)
    layer = Linear4bit(64, 64, compute_dtype=torch.float32).to("cpu")
    values = torch.randn(2, 64)
    layer(values)
    _keep_dequantized(layer)
    layer.bias.data.zero_()
    plain = layer(values)
    layer.bias.data += 1
    torch.testing.assert_close(layer(values), plain + 1)
    assert torch.equal(copy.deepcopy(layer)(values), layer(values))
    assert pickle.dumps(layer)
    layer.weight = Params4bit(torch.zeros(64, 64), requires_grad=False, quant_type="nf4").to("cpu")
    torch.testing.assert_close(layer(values), layer.bias.expand(2, -1))
