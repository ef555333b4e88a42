"""Right and wrong merges of adapters of several sizes, and what the merge step's gate says of each.

    python bench/merge_gate.py [--base FOLDER]

The base is the embedded model, or a folder with another one. Adam moves a weight by about the learning rate at each
step: 6e-4 is the size that the reference recipe reaches (5e-6 on a cosine, 250 steps), 5e-5 one that a
few steps make. The output is a Markdown table.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from grpo_cot.merging.comparison import Trained, compare, examine
from grpo_cot.merging.merge import merge
from grpo_cot.merging.parity import difference
from grpo_cot.models.description import ModelDescription
from grpo_cot.models.loading import load_base
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.recipe import MergeSection, ModelSection

TINY = Path(__file__).parents[1] / "assets/tiny/model"
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QUESTIONS = ("How many?", "Ada has 3 cups and buys 4 more. How many cups does she have?", "What is 12 + 30?")
CONVERSATIONS = [[{"role": "user", "content": text}] for text in QUESTIONS]
SIZES = (5e-5, 6e-4, 1e-2)


class Case(NamedTuple):
    """The type that training computes in, whether it is on 4 bits, and the type of the merged model."""

    dtype: str
    quantized: bool
    stored: str

    @property
    def section(self) -> MergeSection:
        """The recipe's section that merges so."""
        return MergeSection(base="dequantized", dtype=self.stored, prompts=len(CONVERSATIONS), new_tokens=8)  # type: ignore[arg-type]


CASES = (
    Case("float32", False, "bfloat16"),
    Case("bfloat16", False, "bfloat16"),
    Case("bfloat16", True, "bfloat16"),
    Case("float32", True, "float16"),
    Case("float32", False, "float32"),
)


def _second(name: str, *parts: str) -> bool:
    return "lora_B" in name and all(part in name for part in parts)


# What the merge is given in place of a tensor of the adapter: of its name, itself, and a random one of its size.
WRONG: dict[str, Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "adapter dropped": lambda name, tensor, other: 0 * tensor if _second(name) else tensor,
    "halved": lambda name, tensor, other: tensor / 2 if _second(name) else tensor,
    "doubled": lambda name, tensor, other: tensor * 2 if _second(name) else tensor,
    "from another step": lambda name, tensor, other: 0.9 * tensor + 0.1 * other if _second(name) else tensor,
    "one layer missing": lambda name, tensor, other: 0 * tensor if _second(name, ".layers.1.") else tensor,
    "one projection missing": lambda name, tensor, other: (
        0 * tensor if _second(name, ".layers.1.", "k_proj") else tensor
    ),
    "a factor transposed": lambda name, tensor, other: (
        tensor.reshape(tensor.shape[::-1]).T if "lora_A" in name and ".layers.1.mlp.up" in name else tensor
    ),
}


def train(folder: Path, case: Case, size: float, base: Path = TINY, **lora: Any) -> ModelDescription:
    """An adapter whose second factor is random and of a size, beside a copy of its base; described in model.json."""
    settings = ModelSection(dtype=case.dtype, attn_implementation="sdpa", threads=torch.get_num_threads())  # type: ignore[arg-type]
    quantization = NF4 | {"bnb_4bit_compute_dtype": case.dtype} if case.quantized else None
    shutil.copytree(base, folder / "base")
    options = {"r": 8, "lora_alpha": 8, "target_modules": PROJECTIONS} | lora
    torch.manual_seed(1)
    model = get_peft_model(
        load_base(folder / "base", settings, quantization), LoraConfig(task_type="CAUSAL_LM", **options)
    )
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


def merged(trained: Trained, description: ModelDescription, adapter: Path, case: Case, folder: Path) -> dict[str, Any]:
    """Merge this adapter into a new folder; the figures of the comparison with the trained model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    merge(description, adapter, case.section, load_tokenizer(Path(description.base)), folder)
    return compare(trained, folder, case.section)


def merges(
    folder: Path, case: Case, size: float, base: Path = TINY, **lora: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The right merge and wrong ones by name, each with its figures."""
    description = train(folder, case, size, base, **lora)
    trained = examine(folder / "model.json", CONVERSATIONS, {}, case.section)
    yield "right", merged(trained, description, folder / "adapter", case, folder / "merged")
    adapter = load_file(folder / "adapter/adapter_model.safetensors")
    torch.manual_seed(2)
    others = {name: size * torch.randn_like(tensor) for name, tensor in adapter.items()}
    wrong = shutil.copytree(folder / "adapter", folder / "wrong")
    for name, changed in WRONG.items():
        tensors = {key: changed(key, tensor, others[key]).contiguous() for key, tensor in adapter.items()}
        save_file(tensors, wrong / "adapter_model.safetensors", metadata={"format": "pt"})
        yield name, merged(trained, description, wrong, case, folder / "merged")
    another = shutil.copytree(folder / "base", folder / "another")
    tensors = load_file(another / "model.safetensors")
    save_file({key: tensor * 1.01 for key, tensor in tensors.items()}, another / "model.safetensors", {"format": "pt"})
    other = description.model_copy(update={"base": str(another)})
    yield "another base", merged(trained, other, folder / "adapter", case, folder / "merged")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=TINY)
    base = parser.parse_args().base
    print(
        "| computed in, stored in | adapter | merge | gate | weights off, worst layer | logits beyond rounding | "
        "effect kept: logits, weights |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        for size in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                for name, figures in merges(Path(folder), case, size, base):
                    verdict = "refused" if difference(figures, case.stored) else "accepted"
                    computed = f"{case.dtype}{', 4 bits' if case.quantized else ''}"
                    print(
                        f"| {computed}, {case.stored} | {size:g} | {name} | {verdict} | {figures['misplaced']:.1%} | "
                        f"{figures['beyond_rounding']:.2%} | "
                        f"{figures['kept']:.1%}, {figures['weights_kept']:.1%} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
