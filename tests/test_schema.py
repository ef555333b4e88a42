"""The schema: which completions follow it, what their answer is worth, and which golds are read."""

import doctest
import json
import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

from grpo_cot import schema
from grpo_cot.answers import stated_value
from grpo_cot.common.files import read_yaml
from grpo_cot.numbers import LONGEST_NUMBER
from grpo_cot.schema import SYSTEM_PROMPT, TAGS, gold, is_empty, sections, strict_answer, worked

FOLLOWS = "<reasoning>\n2 + 3 = 5\nSo 5.\n</reasoning>\n<answer>\n5\n</answer>"


def test_doctests() -> None:
    assert doctest.testmod(schema).failed == 0


@pytest.mark.parametrize("completion", [FOLLOWS, FOLLOWS + "\n", " " + FOLLOWS, FOLLOWS.replace("\n", "")])
def test_white_space_around_tags_is_free(completion: str) -> None:
    assert strict_answer(completion) == "5"


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "5",
        "Sure! " + FOLLOWS,
        FOLLOWS + " Done.",
        FOLLOWS + FOLLOWS,
        FOLLOWS.replace("</reasoning>", ""),
        FOLLOWS.removesuffix("</answer>"),
        FOLLOWS.replace("\n<answer>", " so <answer>"),
        FOLLOWS.replace("\n5\n", "\n \n"),
        "<reasoning></reasoning><answer>5</answer>",
        FOLLOWS.replace("2 + 3 = 5\nSo 5.", "..."),
        FOLLOWS.replace("2 + 3 = 5\nSo 5.", "\u200b\u200d\ufeff"),
        FOLLOWS.replace("2 + 3 = 5\nSo 5.", "\u3164\u115f"),
        FOLLOWS.replace("2 + 3 = 5\nSo 5.", "- - -\n!?"),
        FOLLOWS.replace("\n5\n", "\n...\n"),
        "<answer>5</answer><reasoning>2 + 3 = 5</reasoning>",
    ],
)
def test_what_does_not_follow_the_schema(completion: str) -> None:
    assert sections(completion) is None
    assert strict_answer(completion) is None


@given(st.decimals(-(10**7), 10**7, places=3), st.integers(0, 3), st.sampled_from(["en", "vi"]))
def test_the_target_states_the_gold_in_every_notation(value: Decimal, decimals: int, locale: str) -> None:
    expected = f"{value:.{decimals}f}"
    answer = strict_answer(worked("x", expected, locale))
    assert answer is not None and stated_value(answer, locale) == Fraction(expected)


def test_a_worked_solution_follows_the_schema() -> None:
    assert sections(worked("2 + 3 = 5\nSo 5.", "5")) == ("2 + 3 = 5\nSo 5.", "5")


@pytest.mark.parametrize("answer", ["18", "#### 18 #### 19", "#### eighteen", "####", "#### -", "#### 12,34"])
def test_unreadable_gold_is_an_error(answer: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        gold(answer)


@given(st.text() | st.lists(st.sampled_from([*TAGS, "\n", "5", "-", "$", " x"])).map("".join))
def test_never_raises(text: str) -> None:
    sections(text)
    strict_answer(text)
    stated_value(text)


@pytest.mark.parametrize(("split", "rows", "commas", "negatives"), [("train", 7473, 79, 3), ("test", 1319, 14, 2)])
def test_every_gsm8k_gold_is_read(split: str, rows: int, commas: int, negatives: int) -> None:
    if "GSM8K_DIR" not in os.environ:
        pytest.skip("set GSM8K_DIR to the folder that holds GSM8K's train.jsonl and test.jsonl")
    path = Path(os.environ["GSM8K_DIR"]) / f"{split}.jsonl"
    answers = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    golds = [gold(answer) for answer in answers]
    assert len(golds) == rows
    assert all(int(value) == stated_value(value) for value in golds)
    assert sum(value.startswith("-") for value in golds) == negatives
    assert sum("," in answer.rpartition("####")[2] for answer in answers) == commas


@pytest.mark.parametrize(
    "completion",
    [
        "<reasoning>2 + 3<answer></reasoning>5</answer>",  # every tag once, the inner two in the other order
        "<reasoning>2 + 3 <answer> so </reasoning> 5 </answer>",
        *(FOLLOWS.replace("So 5.", f"So {tag} 5.") for tag in TAGS),
        *(FOLLOWS.replace("\n5\n", f"\n5 {tag}\n") for tag in TAGS),
        *(FOLLOWS.replace(tag, "") for tag in TAGS),
        FOLLOWS.replace("2 + 3 = 5\nSo 5.", " \n"),
        "x" + FOLLOWS,
        FOLLOWS + "x",
    ],
)
def test_tags_in_another_order_again_or_missing_are_not_the_schema(completion: str) -> None:
    assert sections(completion) is None
    assert strict_answer(completion) is None


def test_the_recipes_ask_for_the_schema_that_the_readers_read() -> None:
    prompt = read_yaml(ROOT / "experiments/tiny-grpo.yaml")["prompt"]["system"]
    assert prompt.strip() == SYSTEM_PROMPT
    assert prompt.strip().endswith("\n".join(["<reasoning>", "...", "</reasoning>", "<answer>", "...", "</answer>"]))


def test_a_sections_text_is_whole() -> None:
    assert sections("<reasoning>12</reasoning><answer>34</answer>") == ("12", "34")
    assert not is_empty("X")


def test_a_whole_gold_has_no_decimals_in_vietnamese() -> None:
    assert strict_answer(worked("x", "2.000", "vi")) == "2"


def test_golds_have_a_sign_of_their_own_plain_digits_and_a_largest_length() -> None:
    assert gold("#### +5") == "5"
    assert gold("#### " + "7" * LONGEST_NUMBER) == "7" * LONGEST_NUMBER
    for text in ("7" * (LONGEST_NUMBER + 1), "\uff11\uff18"):
        with pytest.raises(ValueError, match="expected a number after"):
            gold(f"#### {text}")
