"""A base of a few thousand weights, in the Hub's layout, as a GGUF file, and in a wheel."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from grpo_cot.common.files import file_hash, read_json, write_json

END, START, PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
MEMBER = "made_base/made.Q8_0.gguf"


def vocabulary() -> list[str]:
    """The three special tokens, and one token for every byte. The end token is the first."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [END, START, PAD, *sorted(ByteLevel.alphabet())]


def write_folder(folder: Path) -> None:
    """A sound base. Its logits are all 0, so that a greedy answer is the token of the number 0, which is its end."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    words = {word: number for number, word in enumerate(vocabulary())}
    inner = Tokenizer(models.BPE(vocab=words, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, pad_token=PAD, additional_special_tokens=[START]
    )
    tokenizer.chat_template = TEMPLATE
    set_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(words), eos_token_id=0, pad_token_id=2, bos_token_id=None, **SIZES)
    )
    with torch.no_grad():
        model.lm_head.weight.zero_()
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def change(file: Path, **values: Any) -> None:
    """Other values in a JSON file."""
    write_json(file, read_json(file) | values)


def write_gguf(
    file: Path,
    words: list[str] | None = None,
    types: list[int] | None = None,
    merges: Iterable[str] = ("t h", "i n"),
    **said: Any,
) -> None:
    """The same kind of model as a GGUF file that names the wrong end token and none that pads.

    Other words than the usual ones are a tokenizer with its types and merges; what is `said` of it are the values of
    the keys tokenizer.ggml.NAME, or None for a key that is not there.
    """
    import gguf

    words, width = words or [*vocabulary(), "th", "in"], SIZES["hidden_size"]
    said = {"model": "gpt2", "pre": "gpt-2", "eos_token_id": 1, "bos_token_id": 1, "unknown_token_id": 2} | said
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(width // 2)
    writer.add_vocab_size(len(words))
    writer.add_token_list(words)
    writer.add_token_types(types or [3] * 3 + [1] * (len(words) - 3))
    writer.add_token_merges(list(merges))
    for name, value in said.items():
        if isinstance(value, str):
            writer.add_string(f"tokenizer.ggml.{name}", value)
        elif isinstance(value, bool):
            writer.add_bool(f"tokenizer.ggml.{name}", value)
        elif value is not None:
            writer.add_uint32(f"tokenizer.ggml.{name}", value)
    writer.add_chat_template(TEMPLATE)
    rows = np.random.default_rng(1)
    shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"), width)
    blocks = {f"blk.0.{name}.weight": (rows_of, width) for name, rows_of in shapes.items()}
    for name, shape in {"token_embd.weight": (len(words), width), **blocks}.items():
        quantized = gguf.quantize(rows.normal(size=shape).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(folder: Path, model: Path, member: str = MEMBER) -> Path:
    """A package that holds a file, and whose code must never run."""
    wheel = folder / "made_base-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: made-base\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(model, member)
        archive.writestr("made_base/__init__.py", "raise SystemExit('the code of the package ran')\n")
        archive.writestr("made_base-1.0.dist-info/METADATA", about)
        archive.writestr("made_base-1.0.dist-info/WHEEL", kind)
        archive.writestr("made_base-1.0.dist-info/RECORD", "")
    return wheel


def pinned(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a folder."""
    return {path.name: file_hash(path) for path in sorted(folder.iterdir())}


def write_source(path: Path, **content: Any) -> Path:
    """A source file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(json.loads(json.dumps({"licence": "mit", **content})), file)
    return path
