"""Parity: its figures are those of the definition, it holds and fails where it must, and it runs in a fresh process."""

import re
import resource
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import ROOT

from grpo_cot.common.errors import InputError
from grpo_cot.merging import parity as module
from grpo_cot.merging.parity import gate, parity_process, peak_memory, resident_memory
from grpo_cot.models.description import ModelDescription
from grpo_cot.recipes.recipe import MergeSection, ModelSection

SECTION = MergeSection(
    base="dequantized", dtype="bfloat16", prompts=2, new_tokens=8, token_agreement=0.9, logit_difference=0.02
)
CONVERSATIONS = [[{"role": "user", "content": text}] for text in ("How many?", "Ada has 3 cups. How many cups?", "5?")]


@pytest.mark.parametrize(
    ("agreement", "difference", "holds"), [(0.9, 0.02, True), (0.89, 0.02, False), (0.9, 0.021, False), (0, 1, False)]
)
@pytest.mark.parametrize("base", ["dequantized", "original"])
@pytest.mark.parametrize("quantized", [True, False])
def test_parity_must_hold_but_on_the_original_base_of_a_quantized_training(
    agreement: float, difference: float, holds: bool, base: Any, quantized: bool
) -> None:
    figures = {"token_agreement": agreement, "logit_difference": difference}
    section = SECTION.model_copy(update={"base": base})
    if holds or (base == "original" and quantized):
        assert gate(figures, section, quantized) is holds
    else:
        with pytest.raises(InputError, match="the merged model is not the trained one"):
            gate(figures, section, quantized)


def loaded(folder: Path, architecture: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    loader = AutoModelForSeq2SeqLM if architecture == "seq2seq" else AutoModelForCausalLM
    return loader.from_pretrained(folder, dtype="float32").eval()


def trained_and_other(folder: Path, asset: str, architecture: Any, dtype: str) -> tuple[Path, Path, Any]:
    """A description of full weights that are the asset's with noise, the asset itself, and the trained model."""
    import torch

    base = ROOT / "assets" / asset / "model"
    model = loaded(base, architecture)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.2 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 1 else 0
    model.save_pretrained(folder / "weights")
    description = ModelDescription(
        kind="full", architecture=architecture, path="weights", base=str(base), quantization=None,
        model=ModelSection(dtype=dtype, attn_implementation="sdpa", threads=1),
    )  # fmt: skip
    (folder / "model.json").write_text(description.model_dump_json())
    return folder / "model.json", base, model


@pytest.mark.slow
@pytest.mark.parametrize(("asset", "architecture"), [("tiny", "causal"), ("tiny-mt5", "seq2seq")])
def test_the_figures_are_those_of_both_models_on_the_trained_ones_greedy_answers(
    tmp_path: Path, asset: str, architecture: str
) -> None:
    """Each token's logits computed alone, from all that stands before it."""
    import torch

    from grpo_cot.models.tokenizers import load_tokenizer

    model_json, base, trained = trained_and_other(tmp_path, asset, architecture, "float32")
    other, tokenizer = loaded(base, architecture), load_tokenizer(base)
    agreeing, differences = [], []

    def next_logits(model: Any, prompt: list[int], begun: list[int]) -> Any:
        with torch.inference_mode():
            if architecture == "causal":
                return model(torch.tensor([prompt + begun])).logits[0, -1]
            start = [model.config.decoder_start_token_id]
            return model(torch.tensor([prompt]), decoder_input_ids=torch.tensor([start + begun])).logits[0, -1]

    for conversation in CONVERSATIONS:
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        written: list[int] = []
        while len(written) < SECTION.new_tokens and tokenizer.eos_token_id not in written:
            written.append(int(next_logits(trained, prompt, written).argmax()))
        spoken = tokenizer.decode(written, skip_special_tokens=True) + tokenizer.eos_token
        answer = tokenizer(spoken, add_special_tokens=False)["input_ids"]
        ours, theirs = (
            torch.stack([next_logits(model, prompt, answer[:place]) for place in range(len(answer))])
            for model in (trained, other)
        )
        agreeing += (ours.argmax(-1) == theirs.argmax(-1)).tolist()
        differences.append(float((theirs - ours).norm() / ours.norm()))
    figures = module.parity(model_json, base, CONVERSATIONS, {}, SECTION)
    assert figures["prompts"] == 3 and figures["tokens"] == len(agreeing)
    assert figures["token_agreement"] == pytest.approx(sum(agreeing) / len(agreeing)) and False in agreeing
    assert figures["logit_difference"] == pytest.approx(sum(differences) / 3, rel=1e-3)
    assert min(differences) > 0.01


@pytest.mark.slow
def test_both_models_compute_in_the_type_of_the_training(tmp_path: Path) -> None:
    """The same weights differ by nothing, though they are in another type on the disk."""
    model_json, _, _ = trained_and_other(tmp_path, "tiny", "causal", "bfloat16")
    figures = module.parity(model_json, tmp_path / "weights", CONVERSATIONS, {}, SECTION)
    assert (figures["token_agreement"], figures["logit_difference"]) == (1, 0)


@pytest.mark.slow
def test_the_templates_own_settings_reach_both_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.models import generation

    seen = []
    encode = generation.encode

    def watched(tokenizer: Any, conversations: Any, settings: Any) -> Any:
        seen.append((conversations, settings))
        return encode(tokenizer, conversations, settings)

    monkeypatch.setattr(generation, "encode", watched)
    model_json, base, _ = trained_and_other(tmp_path, "tiny", "causal", "float32")
    module.parity(model_json, base, CONVERSATIONS, {"enable_thinking": False}, SECTION)
    assert seen == [(CONVERSATIONS, {"enable_thinking": False})]


@pytest.mark.slow
def test_an_answer_is_read_without_the_start_token_that_some_tokenizers_put_before_every_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in the middle of the conversation, where neither model ever saw one."""
    from tokenizers.processors import TemplateProcessing

    from grpo_cot.models import loading

    model_json, base, _ = trained_and_other(tmp_path, "tiny", "causal", "float32")
    expected = module.parity(model_json, base, CONVERSATIONS, {}, SECTION)
    load = loading.load

    def starting(path: Path) -> Any:
        model, tokenizer, description = load(path)
        start = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        tokenizer.backend_tokenizer.post_processor = start
        assert tokenizer("5")["input_ids"][0] == 1
        return model, tokenizer, description

    monkeypatch.setattr(loading, "load", starting)
    assert module.parity(model_json, base, CONVERSATIONS, {}, SECTION) == expected


class Pool:
    """A process pool that runs what it gets here and now, or ends as a killed process does."""

    killed = False

    def __init__(self, processes: int, mp_context: Any) -> None:
        assert processes == 1 and mp_context.get_start_method() == "spawn"  # a fork would hold this process's memory
        self.work: list[Any] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def submit(self, work: Any, *arguments: Any) -> Any:
        self.work.append(work)
        if self.killed and arguments:
            raise BrokenProcessPool
        assert callable(work)
        result = work(*arguments)
        return SimpleNamespace(result=lambda: result)


def test_the_process_is_fresh_and_says_what_the_comparison_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    imported: list[str] = []
    monkeypatch.setattr(module, "_import", lambda: imported.append("before it is asked"))
    monkeypatch.setattr(module, "parity", lambda *arguments: {"of": arguments})
    monkeypatch.setattr(module, "resident_memory", lambda: 30)
    monkeypatch.setattr(module, "peak_memory", lambda: 100)
    with parity_process() as measured:
        assert imported == ["before it is asked"]
        assert measured("model.json", "merged") == ({"of": ("model.json", "merged")}, 70)


def test_a_process_that_the_system_ends_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(module, "_import", lambda: None)
    monkeypatch.setattr(Pool, "killed", True)
    with pytest.raises(InputError, match="was ended from outside"), parity_process() as measured:
        measured("model.json")


def test_memory_is_that_of_this_program_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("only Linux tells a program's memory apart from that of the one before it")
    held = bytearray(64 * 2**20)
    for page in range(0, len(held), 4096):
        held[page] = 1
    before = resident_memory()
    del held
    assert before - resident_memory() == pytest.approx(64 * 2**20, rel=0.1)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=7 + who))
    kilobytes = int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    assert 0.99 * before <= peak_memory() == pytest.approx(1024 * kilobytes, rel=0.01)
    monkeypatch.setattr(Path, "read_text", lambda path: "Name:\tpython\n")  # no such line
    assert peak_memory() == 7 * 1024
    monkeypatch.setattr(Path, "is_file", lambda path: False)  # no such file either
    monkeypatch.delattr(Path, "read_text")
    assert peak_memory() == 7 * 1024
    monkeypatch.setattr(sys, "platform", "darwin")  # which counts bytes
    assert peak_memory() == 7
