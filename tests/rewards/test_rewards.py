"""Rewards pay what their names say, in both of TRL's forms; the published ones show the defects they are known for."""

import doctest
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_cot.rewards import ours as rewards
from grpo_cot.rewards import published as published_rewards
from grpo_cot.rewards.registry import PUBLISHED_REWARDS, REWARDS, reward_functions
from grpo_cot.schema import TAGS

ALL = REWARDS | PUBLISHED_REWARDS
SCHEMA = "<reasoning>\n{}\n</reasoning>\n<answer>\n{}\n</answer>"
RIGHT = SCHEMA.format("12 + 7 = 19\n19 - 5 = 14", "14")


def pay(name: str, completion: Any, gold: str = "14", tokens: int = 10) -> float:
    (reward,) = ALL[name](
        prompts=["How many?"], completions=[completion], gold=[gold], completion_ids=[[0] * tokens], id=["1"],
        reasoning_tokens=[tokens],
    )  # fmt: skip
    return reward


@pytest.mark.parametrize("module", [rewards, published_rewards])
def test_doctests(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", ALL)
def test_every_reward_is_a_plain_function(name: str) -> None:
    assert ALL[name].__name__ == name
    assert pickle.loads(pickle.dumps(ALL[name])) is ALL[name]
    assert pay(name, [{"role": "assistant", "content": RIGHT}]) == pay(name, RIGHT)


@pytest.mark.parametrize("name", ALL)
@given(text=st.text() | st.lists(st.sampled_from([*TAGS, "\n", "14", "-", " ", "x"])).map("".join))
def test_never_raises_and_is_finite(name: str, text: str) -> None:
    assert math.isfinite(pay(name, text))


@pytest.mark.parametrize("name", ["correctness", "correctness_in_schema"])
@pytest.mark.parametrize(
    ("answer", "gold", "reward"),
    [
        ("14", "14", 2.0),
        ("14.0", "14", 2.0),
        ("$14", "14", 2.0),
        ("1,234", "1234", 2.0),
        ("1234", "1,234", 2.0),
        ("\u22125", "-5", 2.0),
        ("5", "-5", 0.0),
        ("28/2", "14", 0.0),
        ("13 or 14", "14", 0.0),
        ("The answer is 14", "14", 2.0),
        ("fourteen", "14", 0.0),
    ],
)
def test_correctness_is_by_value(name: str, answer: str, gold: str, reward: float) -> None:
    assert pay(name, SCHEMA.format("x", answer), gold) == reward


@pytest.mark.parametrize("name", ["correctness", "correctness_in_schema", "length_cosine", "length_cosine_penalty"])
def test_each_row_is_read_in_its_locale(name: str) -> None:
    answers = {"70.000": "vi", "70.000 đồng": "vi", "88,000": "vi", "2,5": "vi", "70,000": "en", "2.5": "en"}
    completions = [SCHEMA.format("x", answer) for answer in answers]
    columns: dict[str, Any] = {"completion_ids": [[0]] * 6, "gold": ["70000", "70000", "88000", "2.5", "70000", "2.5"]}
    locales = list(answers.values())
    rewards = ALL[name](prompts=[""] * 6, completions=completions, locale=locales, **columns)
    assert min(rewards) > 1.9
    other = ALL[name](prompts=[""] * 6, completions=completions, locale=["vi", "en"][::-1] * 3, **columns)
    assert [reward > 1.9 for reward in other] == [False, True, True, True, True, True]


def test_a_whole_number_is_one_in_its_locale() -> None:
    completions = [SCHEMA.format("x", answer) for answer in ("2.500", "2,5", "2.500", "2,500")]
    rewards = REWARDS["integer_answer"]([""] * 4, completions, locale=["vi", "vi", "en", "en"])
    assert rewards == [0.5, 0.0, 0.0, 0.5]


@pytest.mark.parametrize("name", ["correctness", "correctness_in_schema", "integer_answer"])
def test_an_unknown_locale_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="unknown locale 'fr', expected one of en, vi"):
        ALL[name](prompts=[""], completions=[RIGHT], gold=["14"], locale=["fr"])


@pytest.mark.parametrize(
    ("completion", "anywhere", "gated"),
    [
        (RIGHT, 2.0, 2.0),
        ("<answer>14</answer>", 2.0, 0.0),
        ("Sure! " + RIGHT + " Done.", 2.0, 0.0),
        ("<answer>14</answer><answer>14</answer>", 0.0, 0.0),
        ("</answer>14<answer>", 0.0, 0.0),
        ("<answer>14", 0.0, 0.0),
        ("The answer is 14.", 0.0, 0.0),
    ],
)
def test_correctness_with_and_without_the_gate(completion: str, anywhere: float, gated: float) -> None:
    assert pay("correctness", completion) == anywhere
    assert pay("correctness_in_schema", completion) == gated


@pytest.mark.parametrize("name", ["correctness", "correctness_in_schema", "length_cosine", "length_cosine_penalty"])
def test_an_unreadable_gold_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="expected a number in the column 'gold', found 'fourteen'"):
        pay(name, "no answer", gold="fourteen")


@pytest.mark.parametrize(
    ("completion", "strict", "soft"),
    [
        (RIGHT, 0.5, 0.5),
        (RIGHT + "\n", 0.5, 0.5),
        (RIGHT + " \n\n", 0.5, 0.5),
        ("\n" + RIGHT, 0.0, 0.5),
        (RIGHT.replace("\n", ""), 0.0, 0.5),
        (RIGHT.replace("</reasoning>\n", "</reasoning>\n\n"), 0.0, 0.5),
        (RIGHT + "\nDone.", 0.0, 0.0),
        (RIGHT + "\n" + RIGHT, 0.0, 0.0),
        (RIGHT.removesuffix("</answer>"), 0.0, 0.0),
        (SCHEMA.format("...", "14"), 0.0, 0.0),
        (SCHEMA.format("\u200b\u200d", "14"), 0.0, 0.0),
        (SCHEMA.format("...", "..."), 0.0, 0.0),
        ("14", 0.0, 0.0),
    ],
)
def test_format(completion: str, strict: float, soft: float) -> None:
    assert pay("strict_format", completion) == strict
    assert pay("soft_format", completion) == soft


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        (RIGHT, 0.5),
        (RIGHT + "\n\n", 0.5),
        (RIGHT + "\nDone.", 0.494),
        (RIGHT + "x" * 5000, 0.0),
        ("<reasoning>\n" + "x" * 5000, 0.125),
        ("</reasoning><answer><reasoning></answer>", 0.25),
        ("</answer>14<answer>", 0.115),
        ("<reasoning>x<answer>14</answer></reasoning>", 0.238),
        ("<answer>14</answer><reasoning>x</reasoning>", 0.226),
        ("<reasoning>x</reasoning><answer>14", 0.375),
        ("<reasoning><reasoning>x</reasoning><answer>14</answer>", 0.375),
        ("<reasoning>...</reasoning><answer>14</answer>", 0.25),
        ("<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>", 0.0),
        ("<reasoning>\u200b</reasoning><answer>\u3164</answer>", 0.0),
        (RIGHT + RIGHT, 0.0),
        ("", 0.0),
    ],
)
def test_xml_count(completion: str, reward: float) -> None:
    assert pay("xml_count", completion) == pytest.approx(reward)


@pytest.mark.parametrize("answer", ["-5", "18.0", "1,234", "$18", "18 apples", "\uff11\uff18"])
def test_integers(answer: str) -> None:
    assert pay("integer_answer", SCHEMA.format("x", answer)) == 0.5


@pytest.mark.parametrize("answer", ["\u00b2", "abc", "2.5", "36/2"])
def test_no_integers(answer: str) -> None:
    assert pay("integer_answer", SCHEMA.format("x", answer)) == 0.0


@pytest.mark.parametrize(("tokens", "cosine"), [(0, 5.0), (393, 5 / math.sqrt(2)), (786, 0.0), (2000, 0.0)])
def test_length_cosine(tokens: int, cosine: float) -> None:
    assert pay("length_cosine", RIGHT, tokens=tokens) == pytest.approx(cosine)
    assert pay("length_cosine", RIGHT, gold="15", tokens=tokens) == 0.0
    assert pay("length_cosine_penalty", RIGHT, tokens=tokens) == pytest.approx(cosine)
    assert pay("length_cosine_penalty", RIGHT, gold="15", tokens=tokens) == -5.0
    assert pay("published_length_cosine_penalty", RIGHT, tokens=tokens) == pytest.approx(cosine)
    assert pay("published_length_cosine_penalty", RIGHT, gold="15", tokens=tokens) == pytest.approx(-cosine)
    assert pay("published_length_cosine", RIGHT, tokens=tokens) == pytest.approx(cosine)
    assert pay("published_length_cosine", RIGHT, gold="15", tokens=tokens) == 0.0


def test_where_all_are_wrong_the_published_penalty_pays_the_longer_one_more_and_ours_does_not() -> None:
    """The phantom advantage: a group without a right completion still has one that is better paid."""
    wrong = SCHEMA.format("x", "15")
    lengths = (10, 200, 700)
    amounts = {
        name: [pay(name, wrong, tokens=tokens) for tokens in lengths]
        for name in ("published_length_cosine_penalty", "published_length_cosine", "length_cosine_penalty")
    }
    published = amounts.pop("published_length_cosine_penalty")
    assert published == pytest.approx([-4.9990, -4.6059, -0.8551], abs=1e-3)
    assert published == sorted(published) and all(len(set(paid)) == 1 for paid in amounts.values())


@pytest.mark.parametrize("name", sorted(REWARDS.keys() - {"random"}))
def test_a_wrong_answer_is_worth_the_same_at_any_length(name: str) -> None:
    amounts = {
        pay(name, SCHEMA.format("x" * 10 * tokens, "15"), tokens=tokens) for tokens in (1, 10, 100, 785, 786, 5000)
    }
    assert len(amounts) == 1


def test_the_placebo_is_uniform_and_repeats() -> None:
    prompts = ["How many?"] * 4000
    drawn = REWARDS["random"](prompts, [RIGHT] * 4000, gold=["14"] * 4000)
    assert drawn == REWARDS["random"](prompts, [RIGHT] * 4000, gold=["15"] * 4000)
    assert len(set(drawn)) == 4000
    assert all(0 <= reward < 1 for reward in drawn)
    assert sum(drawn) / 4000 == pytest.approx(0.5, abs=0.02)
    assert REWARDS["random"]([[{"role": "user", "content": "How many?"}]], [RIGHT]) == drawn[:1]


def test_reward_functions_of_a_recipe() -> None:
    functions, weights = reward_functions({"correctness": 1.0, "published_integer_answer": 0.0})
    assert functions == [REWARDS["correctness"], PUBLISHED_REWARDS["published_integer_answer"]]
    assert weights == [1.0, 0.0]


def test_an_unknown_reward_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown reward 'corectness'; did you mean 'correctness'"):
        reward_functions({"soft_format": 1.0, "corectness": 1.0})


ONE_LINE = SCHEMA.format("x", "14")


@pytest.mark.parametrize(
    ("name", "completion", "reward"),
    [
        ("published_strict_format", ONE_LINE + "\n", 0.5),
        ("published_strict_format", ONE_LINE, 0.0),
        ("published_strict_format", RIGHT + "\n", 0.0),
        ("published_soft_format", "<reasoning>x</reasoning>\n<answer>14</answer> and more", 0.5),
        ("published_soft_format", ONE_LINE, 0.0),
        ("published_xml_count", ONE_LINE + "\n", 0.5),
        ("published_xml_count", ONE_LINE, 0.5 + 0.001 - 0.001 * len(ONE_LINE)),
        ("published_xml_count", SCHEMA.format("x" * 2000, "14"), 0.501 - 0.001 * (len(ONE_LINE) + 1999)),
        ("published_integer_answer", SCHEMA.format("x", "-5"), 0.0),
        ("published_integer_answer", SCHEMA.format("x", "18.0"), 0.0),
        ("published_integer_answer", SCHEMA.format("x", "1,234"), 0.0),
        ("published_integer_answer", SCHEMA.format("x", "\u00b2"), 0.5),
        ("published_integer_answer", SCHEMA.format("x", "\uff11\uff18"), 0.5),
        ("published_correctness", RIGHT, 2.0),
        ("published_correctness", SCHEMA.format("x", "14.0"), 0.0),
        ("published_correctness", SCHEMA.format("x", "$14"), 0.0),
        ("published_correctness", "14", 2.0),
    ],
)
def test_published_rewards_keep_their_defects(name: str, completion: str, reward: float) -> None:
    assert pay(name, completion) == pytest.approx(reward)


@pytest.mark.parametrize(
    "completion",
    [
        "<answer>14</answer></answer>",
        "<answer>14</answer> so <answer>",
        "<answer><answer>14</answer>",
        "</answer><answer>14</answer>",
        RIGHT + "</answer>",
        RIGHT.replace("<answer>", "<answer> <answer>"),
    ],
)
def test_a_tag_of_the_answer_that_comes_again_pays_nothing(completion: str) -> None:
    """Whoever writes a tag twice leaves open where the answer is."""
    assert pay("correctness", completion) == pay("correctness_in_schema", completion) == 0
    assert pay("length_cosine", completion) == 0 and pay("length_cosine_penalty", completion) < 0


@pytest.mark.parametrize("name", ALL)
def test_columns_of_another_length_are_an_error_and_not_fewer_rewards(name: str) -> None:
    columns: dict[str, Any] = {
        "gold": ["14"] * 2, "completion_ids": [[0]] * 2, "locale": ["en"] * 2, "reasoning_tokens": [1, 1],
    }  # fmt: skip
    needs = {
        "integer_answer": ["locale"], "correctness": ["gold", "locale"], "correctness_in_schema": ["gold", "locale"],
        "length_cosine": ["gold", "completion_ids", "locale"],
        "length_cosine_penalty": ["gold", "completion_ids", "locale"], "published_correctness": ["gold"],
        "published_length_cosine": ["gold", "reasoning_tokens", "locale"],
        "published_length_cosine_penalty": ["gold", "reasoning_tokens", "locale"],
    }  # fmt: skip
    for column in needs.get(name, []):
        shorter = columns | {column: columns[column][:1]}
        with pytest.raises(ValueError, match="shorter"):
            ALL[name](prompts=[""] * 2, completions=[RIGHT] * 2, **shorter)
    assert len(ALL[name](prompts=[""] * 2, completions=[RIGHT] * 2, **columns)) == 2


def test_a_gold_is_english_whatever_the_locale_of_its_row() -> None:
    paid = REWARDS["correctness"]([""] * 2, ["<answer>2,5</answer>"] * 2, gold=["2.5", "2,500"], locale=["vi", "vi"])
    assert paid == [2.0, 0.0]


def test_the_placebo_is_the_same_in_every_process_and_knows_texts_apart() -> None:
    placebo = REWARDS["random"]
    assert placebo(["a", "b"], ["x", "x"]) == [0.47579121528910884, 0.03179155860839966]
    assert placebo([[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]], ["x"]) == [
        0.40670425990121906
    ]
    drawn = [placebo([prompt], [completion])[0] for prompt, completion in (("a", "bc"), ("ab", "c"), ("", "abc"))]
    assert len(set(drawn)) == 3
    assert 0 <= placebo(["a"], ["half a pair: \ud83d"])[0] < 1  # as a byte-level tokenizer may leave it
    with pytest.raises(ValueError, match="shorter"):
        placebo(["a", "b"], ["x"])


def test_an_error_on_a_gold_shows_its_beginning_only() -> None:
    with pytest.raises(ValueError, match=r"in the column 'gold', found 'x{60}'$"):
        pay("correctness", RIGHT, gold="x" * 1000)


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<answer>5</answer>", 0.25),
        ("</answer>", 0.125),
        ("</answer> ", 0.125),
        ("</answer> x", 0.123),
        ("x <answer>", 0.125),
        ("</answer>x</answer>y", 0.0),
        ("<reasoning>a</reasoning><answer>5</answer>x</answer>y", 0.374),
        (RIGHT + " " * 50 + "x", 0.449),
    ],
)
def test_xml_count_takes_from_what_follows_the_last_closing_tag(completion: str, reward: float) -> None:
    assert pay("xml_count", completion) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("name", "completion", "reward"),
    [
        ("published_xml_count", "<reasoning>\n", 0.125),
        ("published_xml_count", "\n</reasoning>\n", 0.125),
        ("published_xml_count", "\n<answer>\nx", 0.125 - 0.001 * 11),
        ("published_xml_count", "\n</answer>", 0.126),
        ("published_xml_count", "\n</answer>xyz", 0.125 - 0.001 * 2),
        ("published_xml_count", ONE_LINE + "\nxyz", 0.5 - 0.003 * 2),
        ("published_xml_count", ONE_LINE * 2, 0.0),
        ("published_soft_format", "x" + "<reasoning>x</reasoning><answer>14</answer>", 0.0),
        ("published_strict_format", "x" + ONE_LINE + "\n", 0.0),
        ("published_strict_format", ONE_LINE + "\nx\n", 0.0),
        ("published_correctness", "<answer>13</answer><answer> 14 </answer> so </answer>", 2.0),
        ("published_integer_answer", "<answer>x</answer><answer>14</answer>", 0.5),
    ],
)
def test_published_rewards_compute_what_the_circulating_code_does(name: str, completion: str, reward: float) -> None:
    assert pay(name, completion) == pytest.approx(reward)


@pytest.mark.parametrize("tag", ["<reasoning>\n", "\n</reasoning>", "</reasoning>\n", "<answer>\n", "\n</answer>"])
def test_strict_format_asks_for_each_line_break_and_soft_format_for_none(tag: str) -> None:
    text = RIGHT.replace(tag, tag.strip())
    assert (pay("strict_format", text), pay("soft_format", text)) == (0.0, 0.5)
