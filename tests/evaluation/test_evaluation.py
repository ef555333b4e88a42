"""The evaluation step's parts: likelihoods of gold solutions, both models alike, and what vLLM is asked for."""

import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rollout_recipes import NF4
from support import ROOT

from grpo_cot.common.errors import InputError

pytestmark = pytest.mark.slow
TINY = ROOT / "assets/tiny/model"
CONVERSATIONS = [
    [{"role": "user", "content": question}]
    for question in ("How many?", "Ben has 12 apples. Ben gives away 5. How many are left?", "Ada has 3 cups.")
]
TARGETS = ["<answer>\n7\n</answer>", "7", "<reasoning>\n12 - 5 = 7\n</reasoning>\n<answer>\n7\n</answer>"]


def tiny_models() -> dict[str, Any]:
    """The embedded model, and random ones with absolute positions, in which padding would show."""
    import torch
    from transformers import AutoModelForCausalLM, BartConfig, BartForConditionalGeneration, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokens: dict[str, Any] = {"vocab_size": 593, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    models = {
        "embedded": AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32),
        "gpt2": GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, initializer_range=0.5, **tokens)),
        "encoder-decoder": BartForConditionalGeneration(
            BartConfig(
                d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
                encoder_ffn_dim=64, decoder_ffn_dim=64, decoder_start_token_id=2, init_std=0.5, **tokens,
            )
        ),
    }  # fmt: skip
    return {name: model.eval() for name, model in models.items()}


@pytest.mark.parametrize("name", ["embedded", "gpt2", "encoder-decoder"])
def test_a_likelihood_is_the_sum_over_the_targets_tokens_and_the_end(name: str) -> None:
    import torch

    from grpo_cot.evaluation.likelihood import likelihoods
    from grpo_cot.models.tokenizers import load_tokenizer

    model, tokenizer = tiny_models()[name], load_tokenizer(TINY)
    expected = []
    for conversation, target in zip(CONVERSATIONS, TARGETS, strict=True):
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = [*tokenizer(target, add_special_tokens=False)["input_ids"], 2]
        total = 0.0
        for position, token in enumerate(answer):
            if name == "encoder-decoder":
                written = torch.tensor([[2, *answer[:position]]])
                logits = model(torch.tensor([prompt]), decoder_input_ids=written).logits
            else:
                logits = model(torch.tensor([prompt + answer[:position]])).logits
            total += logits[0, -1].log_softmax(-1)[token].item()
        expected.append((total, len(answer)))
    for size in (1, 2, 64):
        found = likelihoods(
            model, tokenizer, CONVERSATIONS, TARGETS, batch_size=size, chat_template_kwargs={}, progress="test",
            finished={},
        )  # fmt: skip
        assert [likelihood.tokens for likelihood in found] == [tokens for _, tokens in expected]
        assert [likelihood.log_likelihood for likelihood in found] == pytest.approx(
            [total for total, _ in expected], abs=1e-3
        )


def test_what_was_scored_is_not_scored_again() -> None:
    from grpo_cot.evaluation.likelihood import likelihoods
    from grpo_cot.models.tokenizers import load_tokenizer

    model, tokenizer = tiny_models()["embedded"], load_tokenizer(TINY)
    finished: dict[str, Any] = {}
    settings: dict[str, Any] = {"batch_size": 2, "chat_template_kwargs": {}, "progress": "test", "finished": finished}
    found = likelihoods(model, tokenizer, CONVERSATIONS, TARGETS, **settings)
    del finished["test 1"]
    finished["test 0"] = [[-1.0, 1], [-2.0, 2]]
    again = likelihoods(model, tokenizer, CONVERSATIONS, TARGETS, **settings)
    assert sum(before == after for before, after in zip(found, again, strict=True)) == 1


def described(folder: Path, kind: str, path: str) -> Path:
    """The model.json of a model whose base is the embedded one."""
    settings = {"dtype": "float32", "attn_implementation": "sdpa", "threads": 1}
    description = {"kind": kind, "architecture": "causal", "path": path, "base": str(TINY), "model": settings}
    (folder / "model.json").write_text(json.dumps(description | {"quantization": None}))
    return folder / "model.json"


def test_the_base_is_the_model_without_its_adapter_and_the_adapter_is_back_afterwards(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from grpo_cot.evaluation.pairs import both

    plain = tiny_models()["embedded"]
    ids = torch.tensor([[5, 6, 7]])
    expected = plain(ids).logits
    adapted = get_peft_model(plain, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)).eval()
    trained = adapted(ids).logits
    adapted.save_pretrained(str(tmp_path / "01-sft"))
    models = dict(both(described(tmp_path, "adapter", "01-sft"), before=None))
    assert list(models) == ["base", "trained"] and models["base"] is models["trained"]
    logits = {name: asked(ids).logits for name, asked in both(tmp_path / "model.json", before=None)}
    assert torch.allclose(logits["base"], expected, atol=1e-5)
    assert torch.allclose(logits["trained"], trained, atol=1e-5)
    assert torch.allclose(models["trained"](ids).logits, trained, atol=1e-5)


@pytest.mark.parametrize("before", [None, "01-sft"])
@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_no_model_is_left_in_memory_when_both_were_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, before: str | None
) -> None:
    import gc
    import weakref

    import torch

    from grpo_cot.evaluation import pairs

    def loaded(*arguments: object) -> torch.nn.Module:
        model = torch.nn.Linear(1, 1)
        model.__dict__["disable_adapter"] = contextlib.nullcontext
        model.__dict__["ring"] = model  # as a quantized model holds itself
        return model

    monkeypatch.setattr(pairs, "load", lambda model_json: (loaded(), None, None))
    monkeypatch.setattr(pairs, "load_base", loaded)
    monkeypatch.setattr(pairs, "load_result", loaded)
    gone = []
    gc.disable()
    try:
        for _, current in pairs.both(described(tmp_path, kind, "02-ppo"), before and tmp_path / before):
            gone.append(weakref.ref(current))
            del current
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_model_is_compared_with_what_an_earlier_phase_left_and_one_is_in_memory_at_a_time(
    tmp_path: Path, kind: str
) -> None:
    import weakref

    import torch
    from peft import LoraConfig, get_peft_model

    from grpo_cot.evaluation.pairs import both, phase_folder

    ids, expected = torch.tensor([[5, 6, 7]]), {}
    for folder, seed in (("01-sft", 1), ("02-ppo", 2)):
        torch.manual_seed(seed)
        model = tiny_models()["embedded"]
        if kind == "adapter":
            torch.manual_seed(seed)
            model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)).eval()
        else:
            model.lm_head.weight.data += 0.1 * seed
        expected[folder] = model(ids).logits
        model.save_pretrained(str(tmp_path / folder))
        (tmp_path / folder / "configuration.json").write_text("{}")
    (tmp_path / "reward_model").mkdir()
    (tmp_path / "reward_model/configuration.json").write_text("{}")
    model_json = described(tmp_path, kind, "02-ppo")
    before = phase_folder(model_json, 1, "recipe")
    assert before == tmp_path / "01-sft"
    logits, gone = {}, []
    for name, current in both(model_json, before):
        logits[name] = current(ids).logits
        assert [reference() for reference in gone] == [None] * len(gone)
        gone.append(weakref.ref(current))
        del current
    assert torch.allclose(logits["base"], expected["01-sft"], atol=1e-5)
    assert torch.allclose(logits["trained"], expected["02-ppo"], atol=1e-5)
    assert not torch.allclose(expected["01-sft"], expected["02-ppo"], atol=1e-3)
    for number in (2, 3):
        with pytest.raises(
            InputError, match=rf"recipe: evaluate.before is {number}, .* \(the training left 01-sft, 02-ppo\)"
        ):
            phase_folder(model_json, number, "recipe")
    assert phase_folder(model_json, None, "recipe") is None


def test_sampling_in_vllms_words() -> None:
    from grpo_cot.vllm.arguments import sampling_parameters

    assert sampling_parameters({"do_sample": False, "max_new_tokens": 9, "temperature": 0.7, "top_p": 0.5}, "here") == {
        "temperature": 0.0,
        "max_tokens": 9,
    }
    # What Transformers would leave out is off here, too.
    assert sampling_parameters({"do_sample": True, "max_new_tokens": 9}, "here") == {
        "temperature": 1.0,
        "top_k": 0,
        "max_tokens": 9,
    }
    everything = {
        "do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1,
        "max_new_tokens": 200, "min_new_tokens": 2, "stop_strings": ["</answer>"], "num_beams": 1,
    }  # fmt: skip
    assert sampling_parameters(everything, "here") == {
        "temperature": 0.7, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "max_tokens": 200,
        "min_tokens": 2, "stop": ["</answer>"],
    }  # fmt: skip


@pytest.mark.parametrize("sampling", [{"num_beams": 4}, {"no_repeat_ngram_size": 3}, {"typical_p": 0.9}])
def test_sampling_without_a_counterpart_in_vllm_is_refused(sampling: dict[str, Any]) -> None:
    from grpo_cot.vllm.arguments import sampling_parameters

    with pytest.raises(InputError, match=f"evaluate.sampling.{next(iter(sampling))} has no counterpart in vLLM"):
        sampling_parameters({"max_new_tokens": 9, **sampling}, "evaluate.sampling")


def trained(folder: Path, **changes: Any) -> Path:
    """The model.json of an adapter of rank 20, changed."""
    description = {
        "kind": "adapter", "architecture": "causal", "path": "01-grpo", "base": str(TINY), "quantization": NF4,
        "model": {"dtype": "bfloat16", "attn_implementation": "sdpa", "threads": 2},
    }  # fmt: skip
    (folder / "01-grpo").mkdir()
    (folder / "01-grpo/adapter_config.json").write_text(json.dumps({"r": 20}))
    (folder / "model.json").write_text(json.dumps(description | changes))
    return folder / "model.json"


def ask(model_json: Path, finished: dict[str, Any]) -> Any:
    from grpo_cot.evaluation.pairs import Ask
    from grpo_cot.evaluation.vllm import answer_both

    asks = [Ask("greedy", CONVERSATIONS, {"do_sample": False, "max_new_tokens": 9, "stop_strings": ["</answer>"]})]
    return answer_both(model_json, asks, batch_size=64, chat_template_kwargs={}, seed=3, finished=finished)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "seq2seq"}, "runs no encoder-decoders"),
        ({"quantization": NF4 | {"bnb_4bit_quant_type": "fp4"}}, "quantization.bnb_4bit_quant_type is 'fp4'"),
        ({"quantization": NF4 | {"bnb_4bit_compute_dtype": "float32"}}, "quantization.bnb_4bit_compute_dtype"),
        ({"quantization": {"load_in_8bit": True}}, "quantization.load_in_4bit is None"),
        ({}, "which is not installed here: run in the image cuda"),
    ],
)
def test_what_vllm_cannot_do_is_refused_before_anything_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=said):
        ask(trained(tmp_path, **changes), {})


def test_a_fingerprint_can_be_made_where_vllm_is_not_so_that_its_absence_is_a_sentence() -> None:
    from grpo_cot.vllm.arguments import distributions

    assert distributions() == []


def test_vllm_without_a_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    elsewhere = SimpleNamespace(current_platform=SimpleNamespace(is_cpu=lambda: False))
    monkeypatch.setattr("importlib.import_module", lambda name: elsewhere)
    with pytest.raises(InputError, match="which needs a GPU; there is none"):
        ask(trained(tmp_path), {})


def test_vllm_draws_each_completion_with_its_own_seed_and_ends_at_every_end_token_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for vLLM remembers what it is asked; the real one is in tests/on_vllm."""
    from grpo_cot.evaluation import vllm as evaluation
    from grpo_cot.evaluation.pairs import Ask
    from grpo_cot.models.tokenizers import load_tokenizer

    asked: list[Any] = []

    class LLM:
        def __init__(self, **arguments: Any) -> None: ...

        def generate(self, inputs: Any, settings: Any, lora_request: Any) -> list[Any]:
            asked.extend(settings)
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[20, 21, 9, 22])]) for _ in inputs]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=SimpleNamespace))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", SimpleNamespace(LoRARequest=SimpleNamespace))
    monkeypatch.setattr(evaluation, "CHUNK", 2)
    tokenizer = load_tokenizer(TINY)
    for written, ends in ([2, 9], [2, 9]), (9, [2, 9]), (None, [2]):  # the tokenizer's own is 2
        asked.clear()
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": written}))
        engine = evaluation._Engine(tmp_path, {}, 4, seed=7)
        found = engine.complete(
            "base", Ask("samples", CONVERSATIONS[:1] * 5, {}), {"max_tokens": 4}, tokenizer, {}, None, {}
        )
        assert [settings.seed for settings in asked] == [7, 8, 9, 10, 11]
        assert all(settings.stop_token_ids == ends for settings in asked)
        assert {(completion.tokens, completion.truncated) for completion in found} == {
            (2, False) if 9 in ends else (4, True)
        }
