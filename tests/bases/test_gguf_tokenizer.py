"""A GGUF file's tokenizer makes the same numbers of a text as the one that the model was trained with."""

import json
import os
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from bases.made import END, PAD, START, vocabulary, write_gguf

from grpo_cot.bases.gguf import unpack
from grpo_cot.bases.gguf_tokenizer import read_tokenizer
from grpo_cot.common.errors import InputError
from grpo_cot.problems.generators import harder_problems, problems

pytestmark = pytest.mark.slow
pytest.importorskip("gguf", reason="the package gguf is not installed: make anew the environment (make lint)")

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
PARTS = [
    " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "0", "7", "12", "1234", "1,234.50", "2,5", "½", "٣", "x=",
    "'s", "'LL", "don't", "Ann", "bánh mì", "Lan có", "e\u0323\u0302", "một nghìn đồng", "😀", "👩‍👩‍👧", "中文", "▁",
    "é", "<think>", "</answer>", "$", "%", "...", "!?", "#### ", "\\frac{1}{2}", "<<3*4=12>>", "_", "Ω", "\u200b",
    "<0x0A>",
]  # fmt: skip


def texts(special: list[str]) -> list[str]:
    """Generated problems, parts put together at random, special tokens among them, and GSM8K's own rows."""
    rng = random.Random(13)
    parts = PARTS + special
    found = ["".join(rng.choices(parts, k=rng.randint(1, 12))) for _ in range(1500)]
    found += [problem.question for stream in (problems, harder_problems) for problem in islice(stream("train", 1), 300)]
    file = Path(os.environ.get("GSM8K_DIR", "")) / "test.jsonl"
    if file.is_file():
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found += [row[field] for row in rows for field in ("question", "answer")]
    return found


def qwen(folder: Path) -> tuple[Any, str, list[str]]:
    """Qwen2.5's tokenizer, the name that llama.cpp gives to it, its merges."""
    from tokenizers import Tokenizer

    content = json.loads((folder / "qwen2.5/tokenizer.json").read_text(encoding="utf-8"))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(content)), "qwen2", merges


def gpt_2(folder: Path) -> tuple[Any, str, list[str]]:
    """GPT-2's, from its own two files."""
    from transformers import GPT2Tokenizer

    merges = (folder / "gpt2/merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    files = [str(folder / "gpt2" / name) for name in ("vocab.json", "merges.txt")]
    return GPT2Tokenizer(vocab=files[0], merges=files[1]).backend_tokenizer, "gpt-2", [line for line in merges if line]


def unpacked(tmp_path: Path, **written: Any) -> Any:
    """The tokenizer that anybody would load after the file is unpacked."""
    from transformers import AutoTokenizer

    write_gguf(tmp_path / "made.gguf", **written)
    (tmp_path / "made").mkdir()
    unpack(tmp_path / "made.gguf", tmp_path / "made", "made.gguf")
    return AutoTokenizer.from_pretrained(tmp_path / "made")


def alone(tmp_path: Path, **written: Any) -> Any:
    """The same without the model: Transformers reads a vocabulary of 150,000 three times, for half a minute."""
    from transformers import AutoTokenizer

    write_gguf(tmp_path / "made.gguf", **written)
    read_tokenizer(tmp_path / "made.gguf").save_pretrained(tmp_path / "made")
    return AutoTokenizer.from_pretrained(tmp_path / "made")


@pytest.mark.parametrize(("real", "made_of"), [(qwen, alone), (gpt_2, unpacked)])
def test_a_real_tokenizer_comes_out_of_a_gguf_file_as_it_went_in(
    real: Callable[[Path], tuple[Any, str, list[str]]],
    made_of: Callable[..., Any],
    tokenizers_folder: Path,
    tmp_path: Path,
) -> None:
    original, pre, merges = real(tokenizers_folder)
    added = original.get_added_tokens_decoder()
    words = [original.id_to_token(number) for number in range(original.get_vocab_size())]
    types = [
        (CONTROL if added[number].special else USER_DEFINED) if number in added else 1 for number in range(len(words))
    ]
    # A model has more embeddings than its tokenizer tokens; the converter fills the list up.
    words, types = [*words, "[PAD1]", "[PAD2]"], [*types, UNUSED, UNUSED]
    ids = {"bos_token_id": None, "eos_token_id": words.index(PAD), "unknown_token_id": None}
    made = made_of(tmp_path, words=words, types=types, merges=merges, pre=pre, **ids)
    special = [token.content for token in added.values()]
    tried = texts(special)
    assert len(tried) >= 2000
    encoded = made(tried, add_special_tokens=False).input_ids
    expected = [row.ids for row in original.encode_batch(tried, add_special_tokens=False)]
    assert [pair for pair in zip(tried, encoded, expected, strict=True) if pair[1] != pair[2]] == []
    assert [made.decode(ids) for ids in encoded] == original.decode_batch(expected, skip_special_tokens=False)
    assert len(made) == original.get_vocab_size()
    assert made.eos_token == PAD


def test_the_digits_of_smollm_and_llama_3_are_split_as_theirs(tmp_path: Path) -> None:
    """What each way of splitting leaves of a text whose merges know more than it lets them join."""
    merges = ["1 2", "12 3", "123 4", "Ġ 1", "Ġ Ġ"]
    words = [*vocabulary(), "12", "123", "1234", "Ġ1", "ĠĠ", "xyz"]
    text, pieces = "1234  1xyz", {}
    for pre in ("gpt-2", "qwen2", "smollm", "llama-bpe"):
        (tmp_path / pre).mkdir()
        made = unpacked(tmp_path / pre, words=words, merges=merges, pre=pre, bos_token_id=1, eos_token_id=0)
        pieces[pre] = made.convert_ids_to_tokens(made(text).input_ids)
        assert made.decode(made(text).input_ids, skip_special_tokens=True) == text
        assert (made.bos_token, made.eos_token) == (START, END)  # Transformers' reader takes the one for the other
    assert pieces == {
        "gpt-2": ["1234", "Ġ", "Ġ1", "x", "y", "z"],
        "qwen2": ["1", "2", "3", "4", "Ġ", "Ġ", "1", "x", "y", "z"],
        "smollm": ["1", "2", "3", "4", "ĠĠ", "1", "x", "y", "z"],
        "llama-bpe": [START, "123", "4", "Ġ", "Ġ", "1", "xyz"],  # a word of the vocabulary needs no merges
    }


def test_a_file_that_says_so_gets_no_first_token(tmp_path: Path) -> None:
    made = unpacked(tmp_path, pre="llama-bpe", add_bos_token=False)
    assert made.convert_ids_to_tokens(made("a").input_ids) == ["a"]


# What is written into the file, and a part of the sentence.
NOT_KNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "unknown splitting": ({"pre": "tekken"}, "its tokenizer.ggml.pre is 'tekken', so that how its tokenizer splits"),
    "splitting that its converter did not know": ({"pre": "default"}, "its tokenizer.ggml.pre is 'default'"),
    "no splitting": ({"pre": None}, "it has no tokenizer.ggml.pre, so that how its tokenizer splits a text is not"),
    "SentencePiece": ({"model": "llama"}, "its tokenizer is of the kind 'llama' (tokenizer.ggml.model), and only"),
    "types for some": ({"types": [1]}, "tokens have 1 types, or one stands there twice"),
    "token twice": ({"words": [*vocabulary(), PAD]}, "260 tokens have 260 types, or one stands there twice"),
}


@pytest.mark.parametrize("name", NOT_KNOWN)
def test_a_tokenizer_that_is_not_known_is_refused(name: str, tmp_path: Path) -> None:
    written, words = NOT_KNOWN[name]
    with pytest.raises(InputError) as error:
        unpacked(tmp_path, **written)
    assert words in str(error.value)
    assert str(error.value).startswith("made.gguf: it")
    assert "take the base from the Hub (kind: hub) or from a folder (kind: folder)" in str(error.value)
    assert list((tmp_path / "made").iterdir()) == []
