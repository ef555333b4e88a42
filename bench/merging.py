"""Merging into a sharded base at full size: peak memory and time on both bases (`python bench/merging.py [BASE]`).

The base: layers of Qwen2.5-1.5B's shape with the embedded tokenizer's small vocabulary, random weights, over 2 GB in
bfloat16, in files of 500 MB at most. The adapter: r 64 on all seven projections, changing the weights by 1 %. The
merging is the step's own, `scripts/merge.py`: trained in 4 bits for the dequantized base, in 16 bits for the original
one, so that parity must hold on both. Fails when the merging process's peak above its imports exceeds 2.5 times the
largest file, or parity fails.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from grpo_cot.common.files import read_json, read_yaml, write_json, write_jsonl

ROOT = Path(__file__).parent.parent
TOKENIZER = ROOT / "assets/tiny/model"
LIMIT = 2.5  # times the largest file
LARGEST_FILE = 500 * 10**6  # bytes
LAYERS = 23
QUANTIZATION = {
    "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}  # fmt: skip
CHANGE = 0.01  # the adapter's norm over the weight's
LORA: dict[str, Any] = {
    "r": 64, "lora_alpha": 64,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}  # fmt: skip


def deviation(name: str) -> float:
    """The standard deviation of a weight's values.

    The embeddings as torch begins them, and what is added to them the smaller the deeper the model, as GPT-2 begins
    (Radford et al., 2019, section 2.3): else rounding errors grow from layer to layer as they do in no trained model.
    """
    if "embed_tokens" in name:
        return 1.0
    return 0.02 / math.sqrt(2 * LAYERS) if "o_proj" in name or "down_proj" in name else 0.02


def make_base(folder: Path) -> None:
    """Random weights, written one file at a time."""
    shutil.copytree(TOKENIZER, folder)
    (folder / "model.safetensors").unlink()
    settings = read_json(TOKENIZER / "config.json")
    configuration = Qwen2Config(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=LAYERS, num_attention_heads=12,
        num_key_value_heads=2, tie_word_embeddings=False, dtype="bfloat16", architectures=["Qwen2ForCausalLM"],
        **{name: settings[name] for name in ("vocab_size", "eos_token_id", "pad_token_id")},
    )  # fmt: skip
    configuration.save_pretrained(folder)
    with torch.device("meta"):
        model = Qwen2ForCausalLM._from_config(configuration, dtype=torch.bfloat16)
    files: list[dict[str, torch.Size]] = [{}]
    room = LARGEST_FILE
    for name, tensor in model.state_dict().items():
        if tensor.nbytes > room:
            files.append({})
            room = LARGEST_FILE
        files[-1][name] = tensor.shape
        room -= tensor.nbytes
    source = torch.Generator().manual_seed(1)
    index: dict[str, str] = {}
    for number, shapes in enumerate(files, start=1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        tensors = {
            name: torch.ones(shape, dtype=torch.bfloat16)
            if name.endswith("norm.weight")
            else torch.empty(shape, dtype=torch.bfloat16).normal_(std=deviation(name), generator=source)
            for name, shape in shapes.items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shapes, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})


def make_adapter(base: Path, folder: Path) -> None:
    """Random A and B, in float32 as training saves them."""
    with torch.device("meta"):
        model: Any = Qwen2ForCausalLM._from_config(Qwen2Config.from_pretrained(base))
    configuration = LoraConfig(task_type="CAUSAL_LM", **LORA)
    model = get_peft_model(model, configuration, low_cpu_mem_usage=True)
    source = torch.Generator().manual_seed(2)
    adapter = {
        name: torch.empty(tensor.shape).normal_(
            std=0.02 if "lora_A" in name else deviation(name) * CHANGE / (0.02 * math.sqrt(LORA["r"])), generator=source
        )
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    folder.mkdir()
    save_file(adapter, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    configuration.save_pretrained(folder)


def merge(folder: Path, base: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the step; its parity figures and its record."""
    recipe = read_yaml(ROOT / "experiments/tiny-grpo.yaml")
    recipe["model"] |= {"dtype": "bfloat16", "threads": os.cpu_count()}
    recipe["quantization"] = QUANTIZATION if base == "dequantized" else None
    recipe["merge"] |= {"base": base, "prompts": 4, "new_tokens": 8}
    write_json(folder / "recipe.yaml", recipe)  # JSON is YAML
    description = {
        "kind": "adapter", "architecture": "causal", "path": "adapter", "base": str(folder / "base"),
        "model": recipe["model"], "quantization": recipe["quantization"],
    }  # fmt: skip
    write_json(folder / "model.json", description)
    write_jsonl(
        folder / "prompts/eval-test.jsonl",
        [{"messages": [{"role": "user", "content": text}]} for text in recipe["check"]["questions"] + ["How many?"]],
    )
    subprocess.run(
        [
            sys.executable, ROOT / "scripts/merge.py", "--recipe", folder / "recipe.yaml", "--prompts",
            folder / "prompts", "--model", folder / "model.json", "--output", folder / "merged", "--figures",
            folder / "figures.json", "--record", folder / "record.json",
        ],
        check=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    shutil.rmtree(folder / "merged")
    return read_json(folder / "figures.json"), read_json(folder / "record.json")


def main() -> None:
    """Make base and adapter, merge on both bases, print and judge."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_base(folder / "base")
        make_adapter(folder / "base", folder / "adapter")
        sizes = [path.stat().st_size for path in (folder / "base").glob("*.safetensors")]
        adapter = (folder / "adapter/adapter_model.safetensors").stat().st_size
        print(
            f"base {sum(sizes) / 1e9:.2f} GB in {len(sizes)} files, the largest {max(sizes) / 2**20:.0f} MiB; "
            f"adapter {adapter / 2**20:.0f} MiB"
        )
        ratios = []
        for base in sys.argv[1:] or ("dequantized", "original"):
            try:
                figures, record = merge(folder, base)
            except subprocess.CalledProcessError:
                sys.exit(f"{base}: the step failed")
            ratios.append(record["merging_mib_above_imports"] * 2**20 / max(sizes))
            print(f"{base}: {ratios[-1]:.2f} times the largest file; {json.dumps(figures)}; {json.dumps(record)}")
            if not figures["parity_holds"]:
                sys.exit(f"{base}: parity fails")
    if max(ratios) > LIMIT:
        sys.exit(f"the peak is {max(ratios):.2f} times the largest file, expected {LIMIT} at most")


if __name__ == "__main__":
    main()
