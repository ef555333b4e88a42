"""Prompts: what the templates do to them, what is dropped, and what leaks."""

from pathlib import Path

import pytest
from support import ROOT

from grpo_cot.files import InputError
from grpo_cot.prompts import Example, PromptSection, map_rows, overlap, system_messages
from grpo_cot.schema import SYSTEM_PROMPT
from grpo_cot.tokenization import load_tokenizer

ROWS = [
    {"id": "a", "question": "What is 2 + 3?", "answer": "#### 5", "gold": "5"},
    {"id": "b", "question": "What is " + " + ".join(["1"] * 200) + "?", "answer": "#### 200", "gold": "200"},
]


def section(**changes: object) -> PromptSection:
    values = {"system": "Think.", "example": None, "max_prompt_length": 100, "chat_template_kwargs": {}} | changes
    return PromptSection.model_validate(values)


def with_template(template: str):  # type: ignore[no-untyped-def]
    tokenizer = load_tokenizer(ROOT / "assets/tiny/model")
    tokenizer.chat_template = template
    return tokenizer


def test_long_prompts_are_dropped_by_id_and_lengths_include_the_template() -> None:
    tokenizer = load_tokenizer(ROOT / "assets/tiny/model")
    prompts, too_long = map_rows(ROWS, tokenizer, section())
    assert too_long == ["b"]
    assert prompts[0]["messages"] == [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "What is 2 + 3?"},
    ]
    rendered = tokenizer.apply_chat_template(
        prompts[0]["messages"], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert prompts[0]["tokens"] == len(rendered["input_ids"])


def test_one_shot_shows_the_example_before_the_question() -> None:
    tokenizer = load_tokenizer(ROOT / "assets/tiny/model")
    prompts, _ = map_rows(ROWS[:1], tokenizer, section(example={"question": "1 + 1?", "completion": "2"}))
    assert [message["content"] for message in prompts[0]["messages"]] == ["Think.", "1 + 1?", "2", "What is 2 + 3?"]
    assert Example(question="1 + 1?", completion="2")


def test_the_default_system_message_of_qwen2_5_is_kept_out(tokenizers_folder: Path) -> None:
    tokenizer = with_template((tokenizers_folder / "chat_templates/qwen2_5.jinja").read_text())
    prompts, _ = map_rows(ROWS[:1], tokenizer, section(system=None))
    assert prompts[0]["messages"][0] == {"role": "system", "content": ""}
    assert "You are Qwen" not in tokenizer.apply_chat_template(prompts[0]["messages"], tokenize=False)


def test_a_template_without_default_gets_no_system_message() -> None:
    assert system_messages(load_tokenizer(ROOT / "assets/tiny/model"), section(system=None)) == []


def test_todays_date_in_the_template_must_be_fixed(tokenizers_folder: Path) -> None:
    tokenizer = with_template((tokenizers_folder / "chat_templates/llama3_2.jinja").read_text())
    with pytest.raises(InputError, match=r"today's date.*date_string"):
        system_messages(tokenizer, section())
    fixed = section(max_prompt_length=1000, chat_template_kwargs={"date_string": "26 Jul 2024"})
    prompts, _ = map_rows(ROWS[:1], tokenizer, fixed)
    text = tokenizer.apply_chat_template(prompts[0]["messages"], tokenize=False, **fixed.chat_template_kwargs)
    assert "Today Date: 26 Jul 2024" in text


def test_overlap_ignores_case_spacing_and_punctuation() -> None:
    train = [{"id": "t", "question": "How many  R's, in total?"}]
    assert overlap(
        train, {"test": [{"id": "e", "question": "how many rs in total"}, {"id": "f", "question": "how many?"}]}
    ) == {"test": ["e"]}


def test_the_recipes_show_the_prompt_that_the_embedded_base_was_pretrained_with() -> None:
    from grpo_cot.recipes import load_recipe

    assert load_recipe(ROOT / "experiments/tiny-grpo.yaml").prompt.system == SYSTEM_PROMPT
