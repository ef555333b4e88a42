"""The comparison's figures are those of their definitions, and tell a right merge from wrong ones at every size."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import ROOT

from grpo_cot.merging.parity import difference, loss
from grpo_cot.models.description import ModelDescription
from grpo_cot.recipes.recipe import MergeSection, ModelSection

pytestmark = pytest.mark.slow
TINY = ROOT / "assets/tiny/model"
CONVERSATIONS = [[{"role": "user", "content": text}] for text in ("How many?", "Ada has 3 cups. How many cups?", "5?")]
SECTION = MergeSection(base="dequantized", dtype="bfloat16", prompts=3, new_tokens=8)
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Adam moves a weight by about the rate each step: 5e-6 x 250 steps on a cosine, the reference recipe's, and more.
SIZES = (6e-4, 1e-2)


class Case(NamedTuple):
    """A base, the type that training computes in, whether it is on 4 bits, and the type of the merged model."""

    dtype: str
    quantized: bool
    stored: Any


def train(folder: Path, case: Case, size: float, base: Path = TINY, **lora: Any) -> ModelDescription:
    """An adapter whose second factor is of a size, beside a copy of its base; the description is in model.json."""
    import torch
    from peft import LoraConfig, get_peft_model

    from grpo_cot.models.loading import load_base

    settings = ModelSection(dtype=case.dtype, attn_implementation="sdpa", threads=1)
    quantization = NF4 | {"bnb_4bit_compute_dtype": case.dtype} if case.quantized else None
    shutil.copytree(base, folder / "base")
    configuration = LoraConfig(
        task_type="CAUSAL_LM", **({"r": 8, "lora_alpha": 8, "target_modules": PROJECTIONS} | lora)
    )
    torch.manual_seed(1)
    model = get_peft_model(load_base(folder / "base", settings, quantization), configuration)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            parameter.data += size * torch.randn_like(parameter)
    model.save_pretrained(folder / "adapter")
    description = ModelDescription(
        kind="adapter", architecture="causal", path="adapter", base=str(folder / "base"), model=settings,
        quantization=quantization,
    )  # fmt: skip
    (folder / "model.json").write_text(description.model_dump_json())
    return description


def merge(description: ModelDescription, adapter: Path, section: MergeSection, folder: Path) -> Path:
    from grpo_cot.merging.merge import merge
    from grpo_cot.models.tokenizers import load_tokenizer

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    merge(description, adapter, section, load_tokenizer(Path(description.base)), folder)
    return folder


def is_second(name: str, *parts: str) -> bool:
    return "lora_B" in name and all(part in name for part in parts)


# What the merge is given in place of the adapter: for each of its tensors another one.
WRONG: dict[str, Callable[[str, Any, Any], Any]] = {
    "dropped": lambda name, tensor, other: 0 * tensor if is_second(name) else tensor,
    "halved": lambda name, tensor, other: tensor / 2 if is_second(name) else tensor,
    "doubled": lambda name, tensor, other: tensor * 2 if is_second(name) else tensor,
    "of another step": lambda name, tensor, other: 0.9 * tensor + 0.1 * other if is_second(name) else tensor,
    "without a layer": lambda name, tensor, other: 0 * tensor if is_second(name, ".layers.1.") else tensor,
    "without a projection": lambda name, tensor, other: (
        0 * tensor if is_second(name, ".layers.1.", "k_proj") else tensor
    ),
    "with a factor transposed": lambda name, tensor, other: (
        tensor.reshape(tensor.shape[::-1]).T.contiguous() if "lora_A" in name and ".1.mlp.up" in name else tensor
    ),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "case",
    [
        Case("float32", False, "bfloat16"), Case("bfloat16", False, "bfloat16"), Case("bfloat16", True, "bfloat16"),
        Case("float32", True, "float16"), Case("float32", False, "float32"),
    ],
)  # fmt: skip
def test_the_gate_tells_a_right_merge_from_wrong_ones(tmp_path: Path, case: Case, size: float) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from grpo_cot.merging.comparison import compare, examine

    section = SECTION.model_copy(update={"dtype": case.stored})
    description = train(tmp_path, case, size)
    trained = examine(tmp_path / "model.json", CONVERSATIONS, {}, section)
    right = compare(trained, merge(description, tmp_path / "adapter", section, tmp_path / "merged"), section)
    assert difference(right, section.dtype) is None and right["misplaced"] == 0 and right["effect"] > 0
    if case.stored == "float32":
        assert right["kept"] == pytest.approx(1, abs=1e-3) and right["left_over"] < 0.01
        assert loss(right, "float32") is None
    elif size == SIZES[1]:
        assert right["weights_kept"] == pytest.approx(1, abs=0.01) and right["kept"] == pytest.approx(1, abs=0.1)
    adapter = load_file(tmp_path / "adapter/adapter_model.safetensors")
    torch.manual_seed(2)
    others = {name: size * torch.randn_like(tensor) for name, tensor in adapter.items()}
    wrong = shutil.copytree(tmp_path / "adapter", tmp_path / "wrong")
    for name, changed in WRONG.items():
        tensors = {key: changed(key, tensor, others[key]).contiguous() for key, tensor in adapter.items()}
        save_file(tensors, wrong / "adapter_model.safetensors", metadata={"format": "pt"})
        figures = compare(trained, merge(description, wrong, section, tmp_path / "merged"), section)
        assert figures["misplaced"] > 0.1 and "are not the" in str(difference(figures, section.dtype)), name
    base = tmp_path / "another"
    shutil.copytree(tmp_path / "base", base)
    tensors = load_file(base / "model.safetensors")
    save_file({key: tensor * 1.01 for key, tensor in tensors.items()}, base / "model.safetensors", {"format": "pt"})
    other = description.model_copy(update={"base": str(base)})
    figures = compare(trained, merge(other, tmp_path / "adapter", section, tmp_path / "merged"), section)
    assert "is not as training left it" in str(difference(figures, section.dtype))
