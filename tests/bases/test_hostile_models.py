"""A base from a stranger: nothing of it is run, whatever its files ask for."""

import io
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bases.made import pinned, write_folder, write_gguf, write_source

from grpo_cot.bases.examination import examine
from grpo_cot.bases.gguf import unpack
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json, write_json
from grpo_cot.memory.architecture import architecture

pytestmark = pytest.mark.slow


class Terminal(io.StringIO):
    """A user who says yes to everything."""

    def readline(self, *_: Any) -> str:
        return "y\n"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound base, before a stranger changes it, and a terminal that answers yes."""
    folder = tmp_path / "base"
    folder.mkdir()
    write_folder(folder)
    monkeypatch.setattr(sys, "stdin", Terminal())
    return folder


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def pickled(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))


def pickled_as_torch_does(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Payload(mark)}, folder / "pytorch_model.bin")


def configured(folder: Path, mark: Path, name: str = "config.json", **settings: Any) -> None:
    write_json(folder / name, read_json(folder / name) | settings)
    (folder / "own.py").write_text(f"import os\nos.system('touch {mark}')\nclass Own: pass\n")


def with_own_model(folder: Path, mark: Path) -> None:
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    configured(folder, mark, model_type="own", auto_map=own)


def with_own_tokenizer(folder: Path, mark: Path) -> None:
    own = {"AutoTokenizer": ["own.Own", "own.Own"]}
    configured(folder, mark, "tokenizer_config.json", tokenizer_class="Own", auto_map=own)


def with_template(text: str) -> Callable[[Path, Path], object]:
    def write(folder: Path, mark: Path) -> None:
        (folder / "chat_template.jinja").write_text(text.replace("MARK", str(mark)))

    return write


STRANGERS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "pickle": (pickled, "were not loaded: take a copy in safetensors"),
    "torch's pickle": (pickled_as_torch_does, "were not loaded: take a copy in safetensors"),
    "model of its own": (with_own_model, "No step runs a stranger's code"),
    "tokenizer of its own": (with_own_tokenizer, "has the tokenizer_class 'Own' (text), which Transformers does not"),
    "template reaches the classes": (with_template("{{ ''.__class__.__mro__[1].__subclasses__() }}"), "unsafe"),
    "template opens a process": (
        with_template("{{ cycler.__init__.__globals__.os.popen('touch MARK').read() }}"), "unsafe"
    ),
    "template takes a function's globals": (
        with_template("{{ lipsum.__globals__['os'].popen('touch MARK').read() }}"), "unsafe"
    ),
    "template formats its way out": (
        with_template("{{ '{0.__init__.__globals__}'.format(raise_exception) }}"), "fails on a question"
    ),
    "template changes the messages": (
        with_template("{% set _ = messages.append(messages[0]) %}{{ messages[0]['content'] }}"), "unsafe"
    ),
    "template reads a file": (with_template("{% include '/etc/passwd' %}"), "no loader"),
    "template does not end": (with_template("{% for i in range(10 ** 9) %}{% endfor %}"), "Range too big"),
    "template fills the memory": (with_template("{{ 'a' * 10 ** 13 }}"), "MemoryError"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_it_is_refused_in_one_sentence_and_runs_nothing(name: str, folder: Path, tmp_path: Path) -> None:
    make_it_so, words = STRANGERS[name]
    mark = tmp_path / "ran"
    make_it_so(folder, mark)
    with pytest.raises(InputError) as error:
        examine(folder)
    assert words in str(error.value) and "weights_only" not in str(error.value)
    assert not mark.exists()


def test_a_known_model_that_names_code_as_well_is_transformers_own(folder: Path, tmp_path: Path) -> None:
    configured(folder, tmp_path / "ran", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"})
    configured(folder, tmp_path / "ran", "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]})
    examine(folder)
    assert not (tmp_path / "ran").exists()


def test_a_check_before_the_step_runs_nothing_either(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_own_model(folder, tmp_path / "ran")
    source = tmp_path / "sources/bases/mine.yaml"
    source.parent.mkdir(parents=True)
    write_source(source, kind="folder", folder_variable="MODELS_DIR", sha256=pinned(folder))
    monkeypatch.setenv("MODELS_DIR", str(folder))
    with pytest.raises(InputError) as error:
        architecture(tmp_path, "mine")
    assert f"{source}: its config.json has the model_type 'own' (text)" in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cases", [40, pytest.param(2_000, marks=pytest.mark.prove)])
def test_changed_bytes_of_a_gguf_file_are_one_sentence_or_a_model(cases: int, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not installed: make anew the environment (make lint)")
    file, changed = tmp_path / "made.gguf", tmp_path / "changed.gguf"
    write_gguf(file)
    whole, draw = file.read_bytes(), random.Random(cases)
    for _ in range(cases):
        content, place = bytearray(whole), draw.randrange(len(whole) // 2)  # its metadata stand first
        match draw.randrange(3):
            case 0:
                content[place] ^= 1 << draw.randrange(8)
            case 1:  # a count, a length or an offset
                number = draw.choice([0, 2**20, 2**40, 2**64 - 1])
                content[place : place + 8] = number.to_bytes(8, "little")
            case _:
                content[place : place + draw.randrange(1, 9)] = draw.randbytes(draw.randrange(9))
        changed.write_bytes(content)
        try:
            unpack(changed, tmp_path / "model", "changed.gguf")
        except InputError as error:
            assert "\n" not in str(error) and "changed.gguf" in str(error)
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
