"""The gate: which figures it lets pass and which it stops, in words; and the fresh process of the comparison."""

import mmap
import re
import resource
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grpo_cot.common.errors import InputError
from grpo_cot.merging import parity as module
from grpo_cot.merging.parity import difference, gate, loss, parity_process, peak_memory, resident_memory
from grpo_cot.recipes.recipe import MergeSection

SECTION = MergeSection(base="dequantized", dtype="bfloat16", prompts=2, new_tokens=8)
RIGHT = {
    "kept": 0.95, "left_over": 0.1, "beyond_rounding": 0.0, "weights_kept": 0.97, "misplaced": 0.0, "layer": None,
    "layer_kept": None, "changed": None, "dequantized_otherwise": None,
}  # fmt: skip
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"misplaced": 0.011, "layer": "layers.3.up", "layer_kept": 0.0},
     r"of the weights of layers.3.up, 1% are not the bfloat16 nearest to the trained ones \(rounding explains 1%\) "
     r"and it keeps 0% of its adapter; see that"),
    ({"misplaced": 1.0, "layer": "layers.3.up"}, "of the weights of layers.3.up, 100% are not"),
    ({"changed": "norm.weight"}, "norm.weight is not as training left it"),
    ({"dequantized_otherwise": "layers.0.q"}, "the base's layers.0.q was dequantized otherwise than in training"),
    ({"beyond_rounding": 0.011, "kept": 0.79},
     r"its logits are off by 1.1% of the change that training made, beyond the rounding of the trained weights to "
     r"bfloat16 \(at most 1% is right\); they keep 79.0% of it; see that"),
    ({"beyond_rounding": float("nan"), "kept": float("nan")},
     "its logits are no finite numbers: a weight is larger than bfloat16 can hold"),
]  # fmt: skip


@pytest.mark.parametrize(("figures", "words"), WRONG)
@pytest.mark.parametrize("base", ["dequantized", "original"])
@pytest.mark.parametrize("quantized", [True, False])
def test_a_wrong_merge_is_refused_but_on_the_original_base_of_a_quantized_training(
    figures: dict[str, Any], words: str, base: Any, quantized: bool
) -> None:
    section = SECTION.model_copy(update={"base": base})
    if base == "original" and quantized:
        assert gate(RIGHT | figures, section, quantized) is False
    else:
        with pytest.raises(InputError, match=f"the merged model is not the trained one: {words}"):
            gate(RIGHT | figures, section, quantized)


@pytest.mark.parametrize(
    "figures",
    [
        {}, {"misplaced": 0.01, "layer": "layers.3.up"}, {"beyond_rounding": 0.01},
        {"kept": None, "left_over": None, "beyond_rounding": None},
        {"kept": 0.6, "weights_kept": 0.3, "left_over": 0.9},  # a small adapter, in 16 bits
    ],
)  # fmt: skip
def test_a_right_merge_passes_whatever_rounding_has_cost_it(figures: dict[str, Any]) -> None:
    assert difference(RIGHT | figures, "bfloat16") is None
    assert gate(RIGHT | figures, SECTION, quantized=False) is True
    assert gate(RIGHT | figures, SECTION.model_copy(update={"base": "original"}), quantized=True) is True


def test_a_type_that_loses_much_is_said_with_the_way_out() -> None:
    said = loss({"kept": 0.738}, "bfloat16")
    assert said == (
        "Stored in bfloat16, the model keeps 74% of the change that training made in its logits; merge.dtype float32 "
        "keeps all of it, and so does what training wrote"
    )
    assert loss({"kept": 0.899}, "bfloat16") and not loss({"kept": 0.9}, "bfloat16")
    assert loss({"kept": None}, "bfloat16") is None and loss({"kept": 0.5}, "float32") is None


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
    comparison = SimpleNamespace(parity=lambda *arguments: {"of": arguments})
    monkeypatch.setitem(sys.modules, "grpo_cot.merging.comparison", comparison)
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
    held = mmap.mmap(-1, 64 * 2**20)  # pages of its own: an allocator may keep what a variable held
    for page in range(0, len(held), 4096):
        held[page] = 1
    before = resident_memory()
    held.close()
    # A system that is short of memory takes some more of the program's pages meanwhile.
    assert 0.9 * 64 * 2**20 < before - resident_memory() < 4 * 64 * 2**20
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
