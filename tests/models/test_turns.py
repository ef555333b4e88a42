"""The end of a turn is what the chat template writes after an answer: for sampling, targets, likelihoods, engines."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import folder_from
from models.families import FAMILIES, TINY, Family, tokenizer_of
from support import training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.models.opening import opening
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.models.turns import answer_ids, state_turn_end, stop_tokens, turn_end
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import PromptSection
from grpo_cot.schema import SYSTEM_PROMPT, worked

QUESTION, SYSTEM, WORKED = "What is 2 + 3?", "Think it over.", worked("2 + 3 = 5", "5")
ROWS = [{"id": "a", "question": QUESTION, "gold": "5", "locale": "en", "solution": "2 + 3 = 5"}]


def section(**changes: Any) -> PromptSection:
    values = {
        "system": None, "examples": [], "also_with": [], "max_prompt_length": 1000, "chat_template_kwargs": {},
        "thinking": "strip",
    }  # fmt: skip
    return PromptSection.model_validate(values | changes)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def tokenizer(family: Family, tmp_path: Path) -> Any:
    return tokenizer_of(family, tmp_path / "base")


def test_the_template_says_what_ends_a_turn_and_every_library_is_told(family: Family, tokenizer: Any) -> None:
    end = turn_end(tokenizer)
    assert end is not None and end.token == family.end
    assert tokenizer.eos_token == family.end  # what TRL, vLLM and Transformers ask
    number = tokenizer.convert_tokens_to_ids(family.end)
    assert number in stop_tokens([3, 7], tokenizer) and number in stop_tokens(None, tokenizer)
    assert tokenizer.pad_token_id is not None


def test_targets_are_what_the_template_writes_and_their_end_is_trained(family: Family, tokenizer: Any) -> None:
    from grpo_cot.training.examples import completion_dataset, encoder_decoder_dataset, preference_dataset

    number = tokenizer.convert_tokens_to_ids(family.end)
    prompts, _ = map_rows(ROWS, tokenizer, section())
    begun = opening(tokenizer, prompts[0]["messages"], section())
    assert begun.text == family.prompt
    row = prompts[0] | {"completion": begun.target(WORKED), "chosen": WORKED, "rejected": "No."}
    [target] = completion_dataset([row], tokenizer, {}, 1000)
    assert (target["input_ids"][-1], target["completion_mask"][-1]) == (number, 1)
    [pair] = preference_dataset([row], tokenizer, {}, 1000)
    assert pair["chosen_ids"][-1] == pair["rejected_ids"][-1] == number
    [encoded] = encoder_decoder_dataset([row], tokenizer, {})
    assert encoded["labels"][-1] == number
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": WORKED}]
    after = tokenizer.apply_chat_template(messages, tokenize=False).rpartition(WORKED)[2]
    if family.end in after:  # otherwise the template marks no end of the last turn
        assert (WORKED + after).startswith(tokenizer.decode(answer_ids(tokenizer, [WORKED])[0]))


def always_ending(tokenizer: Any) -> Any:
    """A decoder without content that gives its turn's end the logit 9 everywhere, and every other token 0."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=4, n_layer=1, n_head=1, n_positions=512, tie_word_embeddings=False,
            eos_token_id=None, bos_token_id=None,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.bias[0] = 1.0
        model.lm_head.weight[tokenizer.eos_token_id, 0] = 9.0
    return model


@pytest.mark.slow
def test_sampling_stops_at_the_turns_end_and_perplexity_counts_it(family: Family, tokenizer: Any) -> None:
    from grpo_cot.evaluation.likelihood import likelihoods
    from grpo_cot.models.generation import encode, generate

    model = always_ending(tokenizer)
    conversations = [[{"role": "user", "content": QUESTION}]]
    prompts = encode(tokenizer, conversations, {})
    greedy = {"do_sample": False, "max_new_tokens": 4}
    assert generate(model, tokenizer, prompts, greedy, batch_size=1, seed=0, progress="t") == [("", 0, False)]
    [found] = likelihoods(
        model, tokenizer, conversations, [WORKED], batch_size=1, chat_template_kwargs={}, progress="t", finished={}
    )
    assert found is not None
    total = math.log(math.exp(9) + len(tokenizer) - 1)
    assert found.log_likelihood == pytest.approx(9 - found.tokens * total, rel=1e-5)


def test_a_system_message_is_sent_or_refused_in_one_sentence(family: Family, tokenizer: Any) -> None:
    [without], _ = map_rows(ROWS, tokenizer, section())
    roles = [message["role"] for message in without["messages"]]
    assert roles == (["system", "user"] if family.system == "default" else ["user"])  # an empty one, against a default
    if family.system in ("refused", "left out"):
        said = "System role not supported" if family.system == "refused" else "leaves the message out"
        with pytest.raises(
            InputError, match=f"prompt.system is given.*{said}.*set prompt.system to null.*chat_template"
        ):
            map_rows(ROWS, tokenizer, section(system=SYSTEM))
        return
    [prompt], _ = map_rows(ROWS, tokenizer, section(system=SYSTEM))
    assert SYSTEM in tokenizer.apply_chat_template(prompt["messages"], tokenize=False)


def test_a_refused_system_message_can_be_put_into_the_question_by_a_template_of_ones_own(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(FAMILIES["gemma2"], tmp_path)
    tokenizer.chat_template = FAMILIES["gemma3"].template
    [prompt], _ = map_rows(ROWS, tokenizer, section(system=SYSTEM))
    assert f"{SYSTEM}\n\n{QUESTION}" in tokenizer.apply_chat_template(prompt["messages"], tokenize=False)


def test_a_base_without_a_template_or_an_end_is_told_what_can_be_done(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(FAMILIES["plain"], tmp_path / "mine")
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"no chat template: write one into its source file, sources/bases/mine.yaml"):
        map_rows(ROWS, tokenizer, section())
    tokenizer.chat_template, tokenizer.eos_token = FAMILIES["plain"].template, None
    with pytest.raises(InputError, match="a token that ends an answer"):
        map_rows(ROWS, tokenizer, section())
    tokenizer.chat_template = {"default": FAMILIES["chatml"].template, "tool_use": "{{ raise_exception('tools') }}"}
    assert len(map_rows(ROWS, tokenizer, section())[0]) == 1  # one of several, by name
    tokenizer.chat_template = "{{ raise_exception('I need a date') }}"
    tokenizer.eos_token = "<|endoftext|>"
    for system in (None, SYSTEM):
        with pytest.raises(InputError, match=r"template fails \(I need a date\).*prompt.chat_template_kwargs"):
            map_rows(ROWS, tokenizer, section(system=system))


@pytest.mark.slow
def test_perplexity_is_that_of_what_the_template_taught(tmp_path: Path) -> None:
    """The embedded base with the tokenizer of a family whose end token ends documents: 1.09, and not 1.86."""
    from grpo_cot.evaluation.likelihood import likelihoods
    from grpo_cot.models.loading import load_base
    from grpo_cot.recipes.recipe import ModelSection

    base = tmp_path / "base"
    base.mkdir()
    for file in TINY.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    configuration = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(configuration | {"eos_token": "<|endoftext|>"}))
    model = load_base(base, ModelSection(dtype="float32", attn_implementation="sdpa", threads=2), None)
    rows = training_rows()
    conversations = [[{"role": "system", "content": SYSTEM_PROMPT}, *row["messages"]] for row in rows]
    found = likelihoods(
        model, load_tokenizer(base), conversations, [worked(row["solution"], row["gold"]) for row in rows],
        batch_size=16, chat_template_kwargs={}, progress="t", finished={},
    )  # fmt: skip
    assert math.exp(-sum(one.log_likelihood for one in found) / sum(one.tokens for one in found)) < 1.2  # type: ignore[union-attr]


def test_a_merged_models_generation_config_names_the_turns_end_and_keeps_the_rest(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(FAMILIES["gemma2"], tmp_path / "base")
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    file = tmp_path / "generation_config.json"
    for before, after in (
        ({"eos_token_id": 1, "temperature": 0.7}, {"eos_token_id": [1, end], "temperature": 0.7}),
        ({"eos_token_id": [1, end]}, {"eos_token_id": [1, end]}),
        ({"top_k": 5}, {"eos_token_id": end, "top_k": 5}),
    ):
        file.write_text(json.dumps(before))
        state_turn_end(tmp_path, tokenizer)
        assert json.loads(file.read_text()) == after
    file.unlink()
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 1}))
    state_turn_end(tmp_path, tokenizer)
    assert json.loads(file.read_text()) == {"eos_token_id": [1, end]}


def test_the_trainer_ends_completions_at_the_turns_end_and_tells_vllm(tmp_path: Path) -> None:
    from grpo_cot.training.rollouts import _stop_at_turn_ends

    trainer = SimpleNamespace(eos_token_ids=[9, 2], vllm_generation=SimpleNamespace(generation_kwargs=None))
    _stop_at_turn_ends(trainer)
    assert trainer.vllm_generation.generation_kwargs == {"stop_token_ids": [2, 9]}


@pytest.mark.parametrize("name", ["qwen2_5", "qwen2_5_training", "qwen3", "llama3_2"])
def test_the_public_templates_that_are_here_end_their_turns(name: str, tmp_path: Path) -> None:
    folder = folder_from("TOKENIZERS_DIR")
    if name.startswith("qwen"):
        tokenizer, end = load_tokenizer(folder / "qwen2.5"), "<|im_end|>"
    else:
        tokenizer, end = tokenizer_of(FAMILIES["llama3"], tmp_path), "<|eot_id|>"
    tokenizer.chat_template = (folder / f"chat_templates/{name}.jinja").read_text()
    kwargs = {"date_string": "26 Jul 2024"} if name == "llama3_2" else {}
    found = turn_end(tokenizer)
    assert found == (end, end)
    for system in (None, SYSTEM):
        [prompt], _ = map_rows(ROWS, tokenizer, section(system=system, chat_template_kwargs=kwargs))
        assert any(message["content"] == SYSTEM for message in prompt["messages"]) == (system is not None)
    assert tokenizer.decode(answer_ids(tokenizer, [WORKED])[0]) == WORKED + end


def test_a_model_of_plain_text_ends_in_its_tokenizers_end_token() -> None:
    folder = folder_from("TOKENIZERS_DIR") / "gpt2"
    from transformers import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    tokenizer.chat_template = FAMILIES["plain"].template
    assert turn_end(tokenizer) == ("<|endoftext|>", "<|endoftext|>")
    assert answer_ids(tokenizer, ["5"])[0][-1] == tokenizer.convert_tokens_to_ids("<|endoftext|>")
