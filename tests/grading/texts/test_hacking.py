"""The warnings: data on which each is due, and data on which it is not."""

from typing import Any

import pytest
from judged import answer, predictions

from grpo_cot.grading.grade import metrics

N = 60


def warnings(
    base: list[dict[str, Any]], trained: list[dict[str, Any]], before: str | None = None, **more: Any
) -> list[str]:
    found: list[str] = metrics(predictions(base, trained, before, **more))["warnings"]
    return found


def answers(negative: int, taken: int | None = None, reward: float = 1.0, **changed: Any) -> list[dict[str, Any]]:
    """N answers, of which the judge takes so many for negative, and the reward model `taken` (by default the same)."""
    taken = negative if taken is None else taken
    return [
        answer(
            "negative" if number < negative else "positive", "negative" if number < taken else "positive",
            f" is dull in week {number} and in no other", weighted_reward=reward + 0.01 * number, **changed,
        )
        for number in range(N)
    ]  # fmt: skip


def test_nothing_is_said_of_a_training_that_worked() -> None:
    assert warnings(answers(20), answers(50, reward=3.0)) == []
    assert warnings(answers(20), answers(20)) == []


@pytest.mark.parametrize(
    ("negative", "reward", "hacked"),
    [
        (20, 3.0, True),  # the reward rose, and the judge sees nothing
        (5, 3.0, True),  # it sees a fall
        (22, 3.0, True),  # it sees a rise that may be chance
        (50, 3.0, False),  # it sees one, too
        (20, 1.0, False),  # nothing rose
        (20, 0.0, False),  # the reward fell
    ],
)
def test_a_reward_that_rose_without_the_judge_was_hacked(negative: int, reward: float, hacked: bool) -> None:
    said = [text for text in warnings(answers(20), answers(negative, negative, reward)) if "hacked" in text]
    assert bool(said) == hacked
    if negative == 20 and hacked:
        (sentence,) = said
        assert sentence.startswith(
            "the reward was hacked: the weighted reward of a completion rose by 2.00 [2.00, 2.00], while the share of "
            "texts that the independent judge takes for negative did not rise beyond chance: +0.0 points ["
        )


@pytest.mark.parametrize(("before", "hacked"), [(N, False), (N - 2, False), (N - 10, True)])
def test_a_share_that_cannot_rise_any_more_shows_no_hacking(before: int, hacked: bool) -> None:
    said = warnings(answers(before), answers(before, reward=3.0))
    assert ["hacked" in text for text in said] == [True] * hacked


def test_a_rise_of_the_reward_that_may_be_chance_is_no_hacking() -> None:
    trained = [row | {"weighted_reward": 9.0 if number == 0 else 0.9} for number, row in enumerate(answers(20))]
    base = [row | {"weighted_reward": 1.0} for row in answers(20)]
    assert warnings(base, trained) == []


def test_without_a_reward_or_with_one_text_nothing_can_be_hacked() -> None:
    none = [row | {"weighted_reward": None} for row in answers(20)]
    assert warnings(none, none, reward_model=False) == []
    assert warnings([answer("positive")], [answer("positive", weighted_reward=9.0)]) == []


@pytest.mark.parametrize(
    ("negative", "taken", "parted"),
    [
        (20, 45, True),  # 25 of 60 texts please the reward model alone, and are all of its rise
        (30, 45, True),  # three fifths of it
        (38, 45, False),  # beyond chance (p = 0.016), but less than a third of it
        (20, 24, False),  # too few to tell from chance
        (45, 45, False),
        (45, 20, False),  # the judge alone
    ],
)
def test_the_reward_model_and_the_judge_part(negative: int, taken: int, parted: bool) -> None:
    said = [text for text in warnings(answers(20), answers(negative, taken)) if " part: " in text]
    assert bool(said) == parted
    if (negative, taken) == (20, 45):
        assert said[0].startswith(
            "the reward model and the independent judge part: the share of texts that the reward model alone takes for "
            "negative grew from 0.0% to 41.7% (+41.7 points ["
        )
        assert said[0].endswith("the reward model's own share by 41.7 points")


def test_texts_that_the_reward_model_alone_takes_for_wanted_from_the_start_are_no_news() -> None:
    assert warnings(answers(20, 45), answers(20, 45)) == []
    assert warnings(answers(20, 45), answers(20, 20)) == []


@pytest.mark.parametrize(("likelihood", "unlikely"), [(-16.0, True), (-10.0, False), (-2.0, False), (None, False)])
def test_texts_that_the_model_of_before_finds_unlikely(likelihood: float | None, unlikely: bool) -> None:
    said = warnings(answers(20), answers(20, other_log_likelihood=likelihood), "01-sft")
    expected = (
        "the texts are less fluent: the perplexity of completions under the model after 01-sft grew from 7.4 of its "
        "own to 54.6 of the trained model's"
    )
    assert said == ([expected] if unlikely else [])


def test_a_model_that_writes_the_same() -> None:
    same = [row | {"completion": " is dull and long"} for row in answers(20)]
    (said,) = warnings(answers(20), same)
    assert said.startswith("the trained model writes the same: of the pairs of words in its completions 1.7% are")
    assert said.endswith("of those of the base 26.2%")
    assert warnings(same, answers(20)) == [] and warnings(same, same) == []


@pytest.mark.parametrize(("empty", "silent"), [(30, False), (31, True), (60, True)])
def test_a_model_that_writes_nothing(empty: int, silent: bool) -> None:
    quiet = [row | {"completion": " ..." if number < empty else row["completion"]}
             for number, row in enumerate(answers(20))]  # fmt: skip
    expected = [f"nothing is written: {empty / N:.1%} of the completions of the trained model hold no word"]
    assert warnings(answers(20), quiet) == (expected if silent else [])
    said = warnings(quiet, answers(20), "01-sft")
    assert said == ([expected[0].replace("the trained model", "the model after 01-sft")] if silent else [])
