"""Completions: batching, stop strings and resuming change nothing of what a model says."""

from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from grpo_cot.schema import SYSTEM_PROMPT

pytestmark = pytest.mark.slow
TINY = ROOT / "assets/tiny/model"
QUESTIONS = (
    "Ben has 12 apples. A friend gives Ben 7 apples. Ben gives away 5. How many apples does Ben have now?",
    "Ada has 3 cups. Now there are twice as many cups. How many cups does Ada have now?",
    "Sam starts the day with 40 nuts. Sam sells 8 of the nuts. How many nuts does Sam have now?",
    "Uma has 9 rings.",
    "How many r's are in strawberry?",
)
CONVERSATIONS = [
    [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}] for question in QUESTIONS
]
GREEDY = {"do_sample": False, "max_new_tokens": 48, "stop_strings": ["</answer>"]}


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    """The embedded model and its tokenizer."""
    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.recipes.recipe import ModelSection

    settings = ModelSection(dtype="float32", attn_implementation="sdpa", threads=1)
    return load_base(TINY, settings, None), load_tokenizer(TINY)


@pytest.fixture(scope="module")
def sixteen(tiny: tuple[Any, Any]) -> tuple[Any, Any]:
    """The embedded model in bfloat16 with an adapter, and its tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model

    from grpo_cot.models.loading import load_base
    from grpo_cot.recipes.recipe import ModelSection

    model = load_base(TINY, ModelSection(dtype="bfloat16", attn_implementation="sdpa", threads=1), None)
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter) * 0.02
    return model.eval(), tiny[1]


@pytest.fixture(scope="module")
def encoder_decoder() -> Any:
    """A random encoder-decoder with absolute positions in which padding on the wrong side would show."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(0)
    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=593, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=512,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
            init_std=0.5,
        )
    )  # fmt: skip
    return model.eval()


def answers(model: Any, tokenizer: Any, sampling: dict[str, Any], batch_size: int, **more: Any) -> list[Any]:
    from grpo_cot.models.generation import encode, generate

    prompts = encode(tokenizer, more.pop("conversations", CONVERSATIONS), {})
    settings = {"seed": 1, "progress": "test"} | more
    return generate(model, tokenizer, prompts, sampling, batch_size=batch_size, **settings)


def test_a_completion_does_not_depend_on_its_batch(tiny: tuple[Any, Any]) -> None:
    # Of one conversation nothing is shared; of several, what all prompts begin with is read once.
    alone = [answers(*tiny, GREEDY, 1, conversations=[conversation])[0] for conversation in CONVERSATIONS]
    assert len({completion.text for completion in alone}) > 1
    for size in (1, 2, 3, 64):
        assert answers(*tiny, GREEDY, size) == alone


def test_a_completion_ends_with_its_stop_string_or_at_the_limit(tiny: tuple[Any, Any]) -> None:
    unlimited = answers(*tiny, GREEDY, 64)
    assert any(completion.text.endswith("</answer>") for completion in unlimited)
    assert not any(completion.truncated for completion in unlimited if "</answer>" in completion.text)
    for completion in answers(*tiny, GREEDY | {"max_new_tokens": 5}, 64):
        assert completion.tokens <= 5
        assert completion.truncated == (completion.tokens == 5 and "</answer>" not in completion.text)


def test_a_stop_string_in_the_prompt_stops_nothing(tiny: tuple[Any, Any]) -> None:
    asked = [[{"role": "user", "content": f"{QUESTIONS[0]} <answer>"}]]
    plain = answers(*tiny, {"do_sample": False, "max_new_tokens": 6}, 1, conversations=asked)
    stopping = {"do_sample": False, "max_new_tokens": 6, "stop_strings": ["assistant\n", "<answer>"]}
    assert answers(*tiny, stopping, 1, conversations=asked) == plain


def test_stop_strings_are_found_across_the_borders_of_tokens(tokenizers_folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    from grpo_cot.models.generation import StopText

    for tokenizer in (
        AutoTokenizer.from_pretrained(tokenizers_folder / "qwen2.5"),
        AutoTokenizer.from_pretrained(TINY),
    ):
        for stop in ("</answer>", "\n\nQ:", " xin chào", "₫"):
            prompt = tokenizer(f"{stop} before")["input_ids"]
            criterion = StopText([stop], tokenizer, len(prompt))
            text = f"Some words, then{stop} more"
            # Both the usual tokens and one piece a character, which splits the string into as many as there can be.
            pieces = [
                token for character in text for token in tokenizer(character, add_special_tokens=False)["input_ids"]
            ]
            for ids in (tokenizer(text, add_special_tokens=False)["input_ids"], pieces):
                if tokenizer.decode(ids) != text:
                    continue  # the small vocabulary lacks the characters
                heard = [bool(criterion(torch.tensor([prompt + ids[: end + 1]]), None)) for end in range(len(ids))]
                said = [stop in tokenizer.decode(ids[: end + 1]) for end in range(len(ids))]
                assert heard.index(True) == said.index(True)


@pytest.mark.parametrize("stops", [["</answer>"], ["e", "</reasoning>"]])
@pytest.mark.parametrize("count", [1, 5])
def test_greedy_answers_in_bfloat16_are_those_of_transformers_loop(
    sixteen: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, stops: list[str], count: int
) -> None:
    """Rows leave the batch when they end: a stop string counts for the row that has it."""
    from grpo_cot.models import generation

    model, tokenizer = sixteen
    sampling = GREEDY | {"stop_strings": stops}
    read: list[tuple[int, int]] = []
    hook = model.get_base_model().register_forward_pre_hook(
        lambda module, given, named: read.append(tuple((given or [named["input_ids"]])[0].shape)), with_kwargs=True
    )
    found = answers(model, tokenizer, sampling, 64, conversations=CONVERSATIONS[:count])
    hook.remove()
    sizes = [rows for rows, tokens in read if tokens == 1]
    assert min(sizes) < count or count == 1
    if count > 1:  # what all prompts begin with is read in one row
        assert read[0][0] == 1 and read[0][1] > 20 and max(tokens for _, tokens in read[1:]) < 50
    monkeypatch.setattr(generation, "draws", lambda *unused: False)
    assert answers(model, tokenizer, sampling, 64, conversations=CONVERSATIONS[:count]) == found


@pytest.mark.parametrize("sampling", [GREEDY, {"do_sample": True, "max_new_tokens": 4}])
def test_a_broken_model_is_refused_in_a_sentence(
    sixteen: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, sampling: dict[str, Any]
) -> None:
    import torch

    from grpo_cot.common.errors import InputError

    model, tokenizer = sixteen
    head = model.get_output_embeddings()
    monkeypatch.setattr(head, "forward", lambda states: torch.full((*states.shape[:-1], 593), torch.nan))
    with pytest.raises(InputError, match="no next token for 2 of 2 texts"):
        answers(model, tokenizer, sampling, 2)


@pytest.mark.parametrize("stop", [None, ["</answer>"]])
def test_float32_and_beams_keep_transformers_loop(
    tiny: tuple[Any, Any], sixteen: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, stop: list[str] | None
) -> None:
    from grpo_cot.models import generation

    monkeypatch.delattr(generation, "sample")
    greedy = {"do_sample": False, "max_new_tokens": 2, "stop_strings": stop}
    assert len(answers(*tiny, greedy, 64)) == len(answers(*sixteen, greedy | {"num_beams": 2}, 64)) == 5
    with pytest.raises(NameError):
        answers(*sixteen, greedy, 64)


def test_the_frozen_output_layer_is_not_copied_for_each_row(sixteen: tuple[Any, Any]) -> None:
    """Of 64 rows and 49,152 tokens the copies were 3.6 GB, and half of the time of an evaluation."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    model, _ = sixteen
    ids = torch.arange(5, 25).expand(8, -1)
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        model(input_ids=ids, logits_to_keep=3)
    shapes = [event.input_shapes for event in seen.events() if event.name == "aten::bmm"]  # products row by row
    assert not any(model.config.vocab_size in shape for given in shapes for shape in given)


def test_what_sampling_leaves_out_is_off(tiny: tuple[Any, Any]) -> None:
    # At this temperature every token is about as likely: the library's default of the 50 likeliest would show.
    asked = CONVERSATIONS[:1] * 400
    hot = {"do_sample": True, "temperature": 1000.0, "max_new_tokens": 1}
    assert len({completion.text for completion in answers(*tiny, hot, 400, conversations=asked)}) > 100


def test_a_resumed_run_says_what_an_uninterrupted_one_says(tiny: tuple[Any, Any]) -> None:
    sampling = {"do_sample": True, "temperature": 1.0, "max_new_tokens": 24}
    uninterrupted: dict[str, Any] = {}
    expected = answers(*tiny, sampling, 2, finished=uninterrupted)
    assert list(uninterrupted) == ["test 0", "test 1", "test 2"]
    kept = {"test 0": [list(completion) for completion in uninterrupted["test 0"]]}  # as JSON gives it back
    assert answers(*tiny, sampling, 2, finished=kept) == expected
    assert kept.keys() == uninterrupted.keys()
    assert answers(*tiny, sampling, 2, seed=2) != expected


def test_an_encoder_decoders_completion_holds_neither_prompt_nor_start(
    tiny: tuple[Any, Any], encoder_decoder: Any
) -> None:
    import torch

    _, tokenizer = tiny
    found = answers(encoder_decoder, tokenizer, {"do_sample": False, "max_new_tokens": 12}, 3)
    for conversation, completion in zip(CONVERSATIONS, found, strict=True):
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        source = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        written = [2]
        while len(written) < 13 and (len(written) == 1 or written[-1] != 2):
            logits = encoder_decoder(source, decoder_input_ids=torch.tensor([written])).logits
            written.append(int(logits[0, -1].argmax()))
        kept = [token for token in written[1:] if token != 2]
        assert completion == (tokenizer.decode(kept, skip_special_tokens=True), len(kept), len(kept) == 12)


def test_every_batch_draws_with_a_seed_of_its_own(tiny: tuple[Any, Any]) -> None:
    """One seed for all would let equal prompts have equal answers, batch after batch: samples that are none."""
    sampling = {"do_sample": True, "temperature": 1.0, "max_new_tokens": 24}
    drawn = [completion.text for completion in answers(*tiny, sampling, 2, conversations=CONVERSATIONS[:1] * 6)]
    assert len({tuple(drawn[start : start + 2]) for start in (0, 2, 4)}) == 3
    assert len(set(drawn)) > 3


def test_a_completion_ends_at_each_of_the_models_own_end_tokens(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chat models have several (<|im_end|>, <|endoftext|>), of which the tokenizer names one; some name none."""
    model, tokenizer = tiny
    asked = CONVERSATIONS[2:3]
    [whole] = answers(model, tokenizer, GREEDY, 1, conversations=asked)
    assert whole.tokens < GREEDY["max_new_tokens"] and "</answer>" not in whole.text  # it ended by its end token
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    assert answers(model, tokenizer, GREEDY, 1, conversations=asked) == [whole]  # by the tokenizer's
    written = tokenizer(whole.text, add_special_tokens=False)["input_ids"]
    end = next(token for place, token in enumerate(written) if place > 3 and token not in written[:place])
    kept = written[: written.index(end)]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [tokenizer.eos_token_id, end])
    assert answers(model, tokenizer, GREEDY, 1, conversations=asked) == [(tokenizer.decode(kept), len(kept), False)]
    assert answers(model, tokenizer, GREEDY, 1, conversations=CONVERSATIONS[:1])[0].text == "12"  # by the first of both
