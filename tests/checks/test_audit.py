"""The audit: our rewards keep their promises, the published ones do not, and silence stops a run only when total."""

import pytest

from grpo_cot.checks.audit import GOLDEN, broken, group_statistics, judge
from grpo_cot.common.errors import InputError
from grpo_cot.rewards.registry import PUBLISHED_REWARDS, REWARDS


@pytest.mark.parametrize("name", REWARDS)
def test_our_rewards_pay_what_their_names_say(name: str) -> None:
    assert broken({name: 1.0}) == {}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("published_strict_format", "does not pay 0.0: reasoning on several lines, ending at </answer>"),
        ("published_soft_format", "does not pay 0.0: reasoning on several lines, ending at </answer>"),
        ("published_xml_count", "does not pay"),
        ("published_integer_answer", "does not pay 0.0: a negative answer"),
        ("published_correctness", "pays 2.0: a bare number"),
    ],
)
def test_the_published_rewards_are_found_broken_for_their_known_defects(name: str, says: str) -> None:
    assert any(says in case for case in broken({name: 1.0})[name])


def test_every_published_reward_is_judged() -> None:
    assert broken(dict.fromkeys(PUBLISHED_REWARDS, 1.0)).keys() == PUBLISHED_REWARDS.keys()


def statistics_of(completions: list[str], rewards: dict[str, float]) -> dict[str, dict[str, float]]:
    prompts = [{"messages": [], "gold": "5", "locale": "en", "id": "a"}] * len(completions)
    return group_statistics(rewards, prompts, completions, [3] * len(completions), group=2)


RIGHT, WRONG = (f"<reasoning>\n2 + 3\n</reasoning>\n<answer>\n{value}\n</answer>" for value in (5, 6))


def test_groups_that_vary_are_counted_per_reward() -> None:
    found = statistics_of([RIGHT, WRONG, RIGHT, RIGHT], {"correctness": 1.0, "strict_format": 1.0})
    assert found["correctness"]["varies"] == 0.5
    assert found["strict_format"]["varies"] == 0
    assert found["weighted_sum"]["varies"] == 0.5


def test_the_base_samples_are_judged_in_their_locale() -> None:
    completions = [f"<answer>{answer}</answer>" for answer in ("5.000", "5")]
    prompts = [{"messages": [], "gold": "5000", "locale": "vi", "id": "a"}] * 2
    assert group_statistics({"correctness": 1.0}, prompts, completions, [3, 3], group=2)["correctness"]["varies"] == 1


def test_a_silent_reward_is_a_warning_and_a_silent_sum_stops_the_run() -> None:
    found = statistics_of([RIGHT, WRONG, RIGHT, RIGHT], {"correctness": 1.0, "strict_format": 1.0})
    assert any("strict_format never varies" in warning for warning in judge({}, found, []))
    silent = statistics_of([WRONG] * 4, {"correctness": 1.0, "strict_format": 1.0})
    with pytest.raises(InputError, match="the rewards are silent"):
        judge({}, silent, [])


def test_a_reward_of_weight_0_does_not_make_up_for_silence() -> None:
    found = statistics_of([RIGHT, WRONG], {"correctness": 0.0, "strict_format": 1.0})
    with pytest.raises(InputError, match="the rewards are silent"):
        judge({}, found, [])


def test_a_broken_reward_stops_the_run_unless_it_is_allowed() -> None:
    failures = broken({"published_integer_answer": 1.0})
    found = statistics_of([RIGHT, WRONG], {"correctness": 1.0})
    with pytest.raises(InputError, match=r"'published_integer_answer' is broken.*audit\.allow"):
        judge(failures, found, [])
    assert "is broken and allowed" in judge(failures, found, ["published_integer_answer"])[0]


def test_the_golden_corpus_has_both_verdicts_for_every_property() -> None:
    for name in ("strict", "soft", "tags", "integer", "correct"):
        assert {True, False} <= {getattr(golden, name) for golden in GOLDEN}
