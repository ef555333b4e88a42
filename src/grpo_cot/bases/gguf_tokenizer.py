"""The tokenizer of a GGUF file, built from the file's own metadata.

Transformers chooses its reader by the model's architecture, which says nothing about the tokenizer. To a llama with a
byte-level tokenizer it gives the settings of SentencePiece, and the first token as the last; of Qwen's special tokens
it knows three. The file itself says what kind of tokenizer it holds, and how it splits a text before merging.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_cot.common.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # of tokenizer.ggml.token_type
ROLES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
INSTEAD = "take the base from the Hub (kind: hub) or from a folder (kind: folder)"


def _words(digits: str) -> dict[str, Any]:
    """The splitting of Qwen2 and Llama 3, which differ in how many digits stay together."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _bytes(use_regex: bool) -> dict[str, Any]:
    """Every byte as a printable character; with GPT-2's own splitting or without."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [first, second]}


LLAMA_3 = {
    "pre_tokenizer": _both(_words(r"\p{N}{1,3}"), _bytes(False)), "ignore_merges": True, "add_bos": True,
}  # fmt: skip
# What tokenizer.ggml.pre names, in the words of the tokenizer.json of the model that llama.cpp took the name from
# (convert_hf_to_gguf_update.py): GPT-2, Qwen1.5, SmolLM, Meta-Llama-3. llama.cpp's own patterns, in its
# src/llama-vocab.cpp, are these or adapted from these. Its "default" is not here: a file has it whose converter did not
# know the tokenizer, and llama.cpp itself then warns of worse texts.
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": {"pre_tokenizer": _bytes(True)},
    "smollm": {"pre_tokenizer": _both({"type": "Digits", "individual_digits": True}, _bytes(True))},
    "qwen2": {"pre_tokenizer": _both(_words(r"\p{N}"), _bytes(False)), "normalizer": {"type": "NFC"}},
    "llama-bpe": LLAMA_3,
    "llama3": LLAMA_3,
    "llama-v3": LLAMA_3,
}


def read_tokenizer(file: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer as the file describes it, with its special tokens and its chat template.

    Raises:
        InputError: it is no byte-level BPE, splits texts in a way that is not known here, or the file says too little.
        Exception: the file is no GGUF file, or cut off: whatever its reader raises.
    """
    from gguf import GGUFReader
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    fields = {name: field for name, field in GGUFReader(file).fields.items() if name.startswith("tokenizer.")}
    pre = _pre_tokenizer(fields)
    tokens, types, merges = (_required(fields, name) for name in ("tokens", "token_type", "merges"))
    if len(types) != len(tokens) or len(set(tokens)) != len(tokens):
        raise InputError(f"its {len(tokens)} tokens have {len(types)} types, or one stands there twice; {INSTEAD}")
    inner = Tokenizer.from_str(json.dumps(_description(tokens, types, merges, PRE_TOKENIZERS[pre])))
    named = {
        f"{role}_token": tokens[fields[f"tokenizer.ggml.{name}_token_id"].contents()]
        for name, role in ROLES.items()
        if f"tokenizer.ggml.{name}_token_id" in fields
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        # The files call for a cleaning that is for other kinds of tokenizers; Transformers would say at each use that
        # it leaves it out.
        clean_up_tokenization_spaces=False,
        add_bos_token=_optional(fields, "ggml.add_bos_token", PRE_TOKENIZERS[pre].get("add_bos", False)),
        add_eos_token=_optional(fields, "ggml.add_eos_token", False),
        **named,
    )
    tokenizer.chat_template = _optional(fields, "chat_template", None)
    return tokenizer


def _optional(fields: dict[str, Any], name: str, otherwise: Any) -> Any:
    return fields[f"tokenizer.{name}"].contents() if f"tokenizer.{name}" in fields else otherwise


def _required(fields: dict[str, Any], name: str) -> list[Any]:
    if f"tokenizer.ggml.{name}" not in fields:
        raise InputError(f"it lacks tokenizer.ggml.{name}, without which its tokenizer is not known; {INSTEAD}")
    values: list[Any] = fields[f"tokenizer.ggml.{name}"].contents()
    return values


def _pre_tokenizer(fields: dict[str, Any]) -> str:
    """The name of how the file's tokenizer splits a text.

    Raises:
        InputError: it is another kind of tokenizer, names no way, or one that is not known here.
    """
    kind = _optional(fields, "ggml.model", None)
    if kind != "gpt2":
        raise InputError(
            f"its tokenizer is of the kind {kind!r} (tokenizer.ggml.model), and only byte-level BPE ('gpt2') is read "
            f"out of a GGUF file as it was; {INSTEAD}"
        )
    name = _optional(fields, "ggml.pre", None)
    if name in PRE_TOKENIZERS:
        return str(name)
    said = f"its tokenizer.ggml.pre is {name!r}" if name else "it has no tokenizer.ggml.pre"
    raise InputError(
        f"{said}, so that how its tokenizer splits a text is not known (known: {', '.join(sorted(PRE_TOKENIZERS))}); "
        f"{INSTEAD}"
    )


def _description(tokens: list[str], types: list[int], merges: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json.

    A token that a file calls unused fills a row of the embeddings and was in no tokenizer. Texts are searched for the
    special tokens, and for those that a user added, before they are split.
    """
    numbered = {token: number for number, token in enumerate(tokens) if types[number] != UNUSED}
    whole = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": settings.get("ignore_merges", False), "vocab": numbered,
        "merges": [merge.split(" ") for merge in merges],
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": number, "content": token, **whole, "special": types[number] == CONTROL}
            for token, number in numbered.items()
            if types[number] in (CONTROL, USER_DEFINED)
        ],
        "normalizer": settings.get("normalizer"), "pre_tokenizer": settings["pre_tokenizer"], "post_processor": None,
        "decoder": _bytes(True), "model": model,
    }  # fmt: skip
