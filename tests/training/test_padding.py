"""Padding: under Unsloth no token of a text is one of padding, and no trainer changes the tokenizer in silence."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import ROOT
from unsloth_recipes import recipe

from grpo_cot.common.errors import InputError
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.training.unsloth import pad_apart

PROMPT = [{"role": "user", "content": "2 + 2?"}]


def tokenizer(folder: Path, *special: str) -> Any:
    """One that pads with its end token, as Llama 3.2's does, with more special tokens."""
    made = load_tokenizer(ROOT / "assets/tiny/model")
    made.add_special_tokens({"extra_special_tokens": list(special)})
    made.pad_token = made.eos_token
    made.save_pretrained(folder)
    return load_tokenizer(folder)


def prompt_lengths(made: Any) -> tuple[int, int]:
    """The tokens of a prompt of two turns, and those of them that are not found to be padding by their id."""
    ids = made.apply_chat_template(
        [*PROMPT, {"role": "assistant", "content": "4"}, *PROMPT], add_generation_prompt=True, return_dict=False
    )
    return len(ids), sum(number != made.pad_token_id for number in ids)


def test_an_end_token_that_pads_is_cut_out_of_prompts_until_padding_has_a_token_of_its_own(tmp_path: Path) -> None:
    made = tokenizer(tmp_path, "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>")
    before, end = prompt_lengths(made), made.eos_token
    assert before[1] < before[0]
    pad_apart(made, PROMPT, rows=len(made))
    assert made.pad_token == "<|finetune_right_pad_id|>" and made.eos_token == end
    assert prompt_lengths(made) == (before[0], before[0])


def test_a_spare_token_without_an_embedding_is_not_taken(tmp_path: Path) -> None:
    made = tokenizer(tmp_path, "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>")
    pad_apart(made, PROMPT, rows=len(made) - 1)
    assert made.pad_token == "<|reserved_special_token_0|>"


def test_a_tokenizer_without_a_spare_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"pads with '<\|im_end\|>', which its texts hold as well; the backend unsloth"
    ):
        pad_apart(tokenizer(tmp_path, "<|speaker|>"), PROMPT, rows=1000)


def test_padding_that_no_text_holds_stays() -> None:
    made = load_tokenizer(ROOT / "assets/tiny/model")
    pad_apart(made, PROMPT, rows=len(made))
    assert made.pad_token == "<|endoftext|>"


def test_a_trainer_that_changes_the_tokenizer_is_stopped() -> None:
    from grpo_cot.training.faithful import compare_tokenizer, tokenizer_facts

    wanted, made = recipe(), load_tokenizer(ROOT / "assets/tiny/model")
    trainer = SimpleNamespace(processing_class=made)
    given = tokenizer_facts(made)
    compare_tokenizer(wanted, wanted.phases[0], given, trainer)
    made.pad_token = made.eos_token
    with pytest.raises(InputError, match=r"the tokenizer's pad_token asked '<\|endoftext\|>', got '<\|im_end\|>'"):
        compare_tokenizer(wanted, wanted.phases[0], given, trainer)
