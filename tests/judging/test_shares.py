"""The share of a class before and after, worked by hand, and two judges that part: a hacked reward is named."""

import pytest
from sklearn.metrics import cohen_kappa_score

from grpo_cot.common.errors import InputError
from grpo_cot.judging.shares import agreement, change, compare_judges, refuse_silence, share
from grpo_cot.statistics import mcnemar, wilson_interval

N, P = "negative", "positive"


def verdicts(negative: int, n: int) -> list[str | None]:
    return [N] * negative + [P] * (n - negative)


def test_a_text_without_words_counts_against_the_class() -> None:
    figures = share([N, None, P, N], N)
    assert figures == {**wilson_interval(2, 4)._asdict(), "n": 4, "without_words": 1}


def test_the_change_is_paired() -> None:
    before, after = [N, P, P, P, N, None], [N, N, N, N, P, N]
    found = change(before, after, N)
    assert found["difference"] == pytest.approx(3 / 6)
    expected = mcnemar([True, False, False, False, True, False], [True, True, True, True, False, True])
    assert (found["low"], found["high"], found["p"]) == expected[1:]
    assert found["detectable"] is not None


def test_agreement_worked_by_hand_and_by_scikit_learn() -> None:
    """Equal in 7 of 10; expected by chance 0.6 * 0.5 + 0.4 * 0.5."""
    first, second = [N] * 6 + [P] * 4, [N] * 4 + [P] * 5 + [N]
    found = agreement(first, second)
    assert found["agreement"] == wilson_interval(7, 10)._asdict()
    assert found["kappa"] == pytest.approx((0.7 - 0.5) / 0.5) == pytest.approx(cohen_kappa_score(first, second))
    assert agreement([N, N], [N, N])["kappa"] is None


@pytest.mark.parametrize(
    ("reward_model", "judge", "begins"),
    [
        ((30, 270), (30, 35), "the reward is hacked: the share judged negative changes by +80.0 points"),
        ((30, 270), (60, 30), "the reward is hacked: "),
        ((30, 270), (30, 100), "the reward may be hacked in part: "),
        ((30, 270), (30, 255), None),
        ((30, 270), (100, 290), None),  # 63 points of 80
        ((30, 31), (30, 30), None),  # no rise to speak of
        ((270, 30), (30, 30), None),
    ],
)  # fmt: skip
def test_a_rise_that_the_independent_judge_does_not_see_is_named(
    reward_model: tuple[int, int], judge: tuple[int, int], begins: str | None
) -> None:
    pairs = [(verdicts(before, 300), verdicts(after, 300)) for before, after in (reward_model, judge)]
    found = compare_judges(pairs[0], pairs[1], N)
    assert [sentence.startswith(begins or "") for sentence in found["warnings"]] == ([True] if begins else [])
    gains = [(after - before) / 300 for before, after in (reward_model, judge)]
    assert found["gap"]["value"] == pytest.approx(gains[0] - gains[1])
    assert found["agreement"]["before"]["n"] == 300


def test_few_prompts_accuse_nobody() -> None:
    """The reward model sees four of six become negative, the judge two of these: no such rise, but no such gap."""
    reward_model, judge = ([P] * 6, [N] * 4 + [P] * 2), ([P] * 6, [N] * 2 + [P] * 4)
    found = compare_judges(reward_model, judge, N)
    assert found["reward_model"]["low"] > 0 >= found["judge"]["low"] and found["gap"]["low"] == 0
    assert found["warnings"] == []


def test_a_policy_that_generates_nothing_is_one_sentence() -> None:
    refuse_silence(["", "a word"], "the policy")
    for texts in (["", " \n"], []):
        with pytest.raises(
            InputError, match=rf"^the policy generates nothing: all {len(texts)} of its texts are empty"
        ):
            refuse_silence(texts, "the policy")
