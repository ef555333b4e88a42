"""What strangers write (completions, questions, solutions, recipes, source files) ends in a figure or in one sentence.

`make test` asks a few thousand cases, `make prove` a million. A case that once failed is a file in `corpus/`, of which
all cases are made.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fuzz.mutation import mutated
from support import ROOT

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_jsonl
from grpo_cot.data.kinds import read_any
from grpo_cot.grading.grade import read_completion, read_samples
from grpo_cot.grading.lengths import difficulty
from grpo_cot.grading.soundness import is_sound
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.params import load_params
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import PromptSection, load_recipe
from grpo_cot.reporting.pages import environment
from grpo_cot.rewards.registry import PUBLISHED_REWARDS, REWARDS
from grpo_cot.schema import sections

CORPUS = [path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parent / "corpus").glob("*.txt"))]
COMPLETIONS = [*CORPUS, *(row["text"] for row in read_jsonl(ROOT / "tests/grading/labelled.jsonl"))]
RECIPES = [path.read_text() for path in sorted((ROOT / "experiments").glob("tiny-*.yaml"))]
SOURCES = [path.read_text() for path in sorted((ROOT / "sources/datasets").glob("*.yaml"))]
SUITES = [path.read_text() for path in sorted((ROOT / "suites").glob("*.yaml"))]
SLOWEST = 2.0  # seconds of one case: a pattern that backtracks without end takes minutes
LOCALES = ("en", "vi")


def read(text: str, folder: Path) -> None:
    """Every reader, every figure that a row of predictions has, and every reward."""
    for locale in LOCALES:
        row = read_completion(text, "14", locale)
        assert row["format"] is (sections(text) is not None) and (row["format"] or row["strict"] is None)
        assert all(isinstance(row[name], bool) for name in ("strict_correct", "lenient_correct", "strict_match"))
        assert isinstance(read_samples([text, "14"], "14", locale)["majority"], bool)
    level = difficulty(text)
    assert level is None or level > 0
    assert is_sound(text, "12 + 2 = 14") in (True, False, None)


def pay(text: str, folder: Path) -> None:
    """Every reward that a recipe may name."""
    for reward in (REWARDS | PUBLISHED_REWARDS).values():
        [paid] = reward(
            prompts=["How many?"], completions=[text], gold=["14"], completion_ids=[[0] * 10], id=["1"],
            reasoning_tokens=[10],
        )  # fmt: skip
        assert math.isfinite(paid)


def show(text: str, folder: Path) -> None:
    """A page: no tag of a text is one of the page's."""
    page = environment().from_string("<p title='{{ text }}'>{{ text }}</p>").render(text=text)
    assert page.count("<") == page.count(">") == 2 and page.count("'") == 2


def prompt(text: str, folder: Path) -> None:
    """A question of a data set, and the solution with it: a prompt that has it whole, one that is left out as too long,
    or a sentence on the file."""
    file = folder / "rows.jsonl"
    file.write_text(json.dumps({"id": "a", "question": text, "gold": "14", "locale": "en", "solution": text}) + "\n")
    try:
        rows = read_jsonl(file)
    except InputError as error:
        assert str(file) in str(error)
        return
    section = PromptSection.model_validate({
        "system": "Think.", "examples": [], "also_with": [], "max_prompt_length": 200, "chat_template_kwargs": {},
        "thinking": "refuse",
    })  # fmt: skip
    kept, left_out = map_rows(rows, TOKENIZER, section)
    assert (len(kept), left_out) in ((1, []), (0, ["a"]))
    assert all(turns["messages"][-1]["content"] == text for turns in kept)


def recipe(text: str, folder: Path) -> None:
    """A recipe's file: its content, or one sentence."""
    sentence_or_content(load_recipe, text, folder)


def source(text: str, folder: Path) -> None:
    """A data set's source file."""
    sentence_or_content(read_any, text, folder)


def suite(text: str, folder: Path) -> None:
    """A suite, as params.yaml."""
    sentence_or_content(lambda path: load_params(path, ROOT), text, folder)


def sentence_or_content(load: Callable[[Path], Any], text: str, folder: Path) -> None:
    file = folder / "case.yaml"
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    try:
        load(file)
    except InputError as error:
        assert str(error).isprintable() and str(file) in str(error)


TOKENIZER = load_tokenizer(ROOT / "assets/tiny/model")
KINDS: dict[str, tuple[Callable[[str, Path], None], Sequence[str], int, int]] = {
    "completions": (read, COMPLETIONS, 1_500, 420_000),
    "rewards": (pay, COMPLETIONS, 1_500, 400_000),
    "pages": (show, COMPLETIONS, 500, 100_000),
    "questions": (prompt, COMPLETIONS, 300, 60_000),
    "recipes": (recipe, RECIPES, 40, 10_000),
    "sources": (source, SOURCES, 60, 6_000),
    "suites": (suite, SUITES, 60, 4_000),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.prove)], ids=["short", "whole"])
def test_what_strangers_write_ends_in_a_figure_or_a_sentence(kind: str, whole: bool, tmp_path: Path) -> None:
    ask, corpus, few, many = KINDS[kind]
    for text in mutated(corpus, many if whole else few, seed=1 if whole else 0):
        start = time.perf_counter()
        try:
            ask(text, tmp_path)
        except Exception as error:
            error.add_note(f"the case, for tests/fuzz/corpus: {json.dumps(text)}")
            raise
        assert time.perf_counter() - start < SLOWEST, json.dumps(text)


def test_a_whole_round_is_a_million_cases() -> None:
    assert sum(many for _, _, _, many in KINDS.values()) >= 1_000_000
