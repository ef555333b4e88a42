"""The audit: our rewards keep their promises, the published ones and forty near misses do not, and silence stops a run
only when total."""

import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from checks.broken_rewards import BROKEN

from grpo_cot.checks.audit import broken, judge, length_warnings
from grpo_cot.checks.golden import GOLDEN
from grpo_cot.common.errors import InputError
from grpo_cot.rewards import promises
from grpo_cot.rewards.groups import group_statistics, sample_warnings
from grpo_cot.rewards.promise import Property
from grpo_cot.rewards.registry import PUBLISHED_REWARDS, REWARDS
from grpo_cot.schema import SYSTEM_PROMPT


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
        ("published_correctness", "does not pay 0.0: a currency sign"),
        ("published_xml_count", "pays 0.4"),
        ("published_length_cosine_penalty", "for a wrong answer, and -3.27979 for the same one at length"),
    ],
)
def test_the_published_rewards_are_found_broken_for_their_known_defects(name: str, says: str) -> None:
    assert any(says in case for case in broken({name: 1.0})[name])


@pytest.mark.parametrize("name", BROKEN)
def test_a_reward_with_one_fault_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS, name, BROKEN[name])
    assert list(broken({name: 1.0, "correctness": 1.0})) == [name]


def test_a_copy_of_the_prompts_template_earns_nothing() -> None:
    template = SYSTEM_PROMPT.partition("form:\n")[2]
    assert template in [golden.completion for golden in GOLDEN]
    for name in REWARDS.keys() - {"random", "length_cosine_penalty"}:
        (paid,) = REWARDS[name](prompts=[""], completions=[template], gold=["18"], completion_ids=[[0]], locale=["en"])
        assert paid == 0, name


def test_every_published_reward_is_judged_and_one_keeps_its_promise() -> None:
    found = broken(dict.fromkeys(PUBLISHED_REWARDS, 1.0))
    assert PUBLISHED_REWARDS.keys() - found.keys() == {"published_length_cosine"}


def statistics_of(completions: list[str], rewards: dict[str, float]) -> dict[str, dict[str, float]]:
    prompts = [{"messages": [], "gold": "5", "locale": "en", "id": "a"}] * len(completions)
    return group_statistics(rewards, prompts, completions, [3] * len(completions), group=2)


RIGHT, WRONG = (f"<reasoning>\n2 + 3\n</reasoning>\n<answer>\n{value}\n</answer>" for value in (5, 6))


def test_groups_that_vary_are_counted_per_reward() -> None:
    found = statistics_of([RIGHT, WRONG, RIGHT, RIGHT], {"correctness": 1.0, "strict_format": 1.0})
    assert found["correctness"]["varies"] == 0.5
    assert found["strict_format"]["varies"] == 0
    assert found["weighted_sum"]["varies"] == 0.5


UNFORMATTED = "<answer>6</answer>"


def test_a_group_that_varies_without_a_right_completion_is_a_phantom() -> None:
    rewards = {"correctness_in_schema": 1.0, "strict_format": 0.5}
    # Varies by format, all wrong; varies, one right; varies by format, one right outside the schema; silent.
    groups = [WRONG, UNFORMATTED, RIGHT, WRONG, WRONG, "<answer>5</answer>", WRONG, WRONG]
    found = statistics_of(groups, rewards)
    assert found["weighted_sum"]["varies"] == 0.75
    assert found["weighted_sum"]["phantom"] == 0.25
    assert not any("have no right completion" in warning for warning in judge({}, found, []))


def test_mostly_phantom_groups_are_a_warning_that_says_what_they_teach() -> None:
    groups = [WRONG, UNFORMATTED, WRONG, UNFORMATTED, RIGHT, WRONG, WRONG, WRONG]
    (warning,) = judge({}, statistics_of(groups, {"correctness": 1.0, "strict_format": 1.0}), [])
    assert "vary in 75% of the groups of the base model's samples, and 67% of these have no right completion" in warning
    assert "the format, or something else than the answer" in warning


def test_rows_without_final_answers_have_no_phantoms_and_give_rewards_the_class_that_is_wanted() -> None:
    seen: list[Any] = []

    def reward_model(prompts: Any, completions: Any, wanted: list[str], **columns: Any) -> list[float]:
        seen.append((wanted, columns["gold"]))
        return [float(len(completion[0]["content"])) for completion in completions]

    rows = [{"messages": [], "gold": None, "locale": "en", "id": "a", "wanted": "negative"}] * 4
    texts = ["one", "two", "three", "four"]
    found = group_statistics({"reward_model": 1.0}, rows, texts, [3] * 4, 2, reward_model)
    assert seen == [(["negative"] * 4, [None] * 4)]
    assert found["reward_model"] == {"mean": 3.75, "largest": 5.0, "varies": 0.5}
    assert found["weighted_sum"]["phantom"] is None
    assert sample_warnings(found, "the base model's samples") == []


def test_a_reward_of_weight_0_makes_no_phantom() -> None:
    found = statistics_of([WRONG, UNFORMATTED, RIGHT, WRONG], {"correctness": 1.0, "strict_format": 0.0})
    assert found["weighted_sum"]["phantom"] == 0


def test_a_completion_that_no_reward_judges_is_in_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    def right_alone(completions: list[Any], gold: list[str], **columns: Any) -> list[float | None]:
        texts = (completion[0]["content"] for completion in completions)
        return [1.0 if value in text else None for value, text in zip(gold, texts, strict=True)]

    def nothing(completions: list[Any], **columns: Any) -> list[None]:
        return [None] * len(completions)

    rewards = {"right_alone": right_alone, "nothing": nothing}
    monkeypatch.setattr(
        "grpo_cot.rewards.groups.reward_functions",
        lambda names, *_: ([rewards[name] for name in names], [*names.values()]),
    )
    found = statistics_of(["5", "6"], {"right_alone": 1.0, "nothing": 0.0})
    assert found["right_alone"] == {"mean": 1.0, "largest": 1.0, "varies": 0.0}
    assert found["weighted_sum"]["varies"] == 0  # so that the trainer gives neither completion an advantage
    assert found["nothing"] == {"mean": None, "largest": None, "varies": 0.0}
    assert "nothing judges none of the base model's samples" in sample_warnings(found, "the base model's samples")


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
    for name in set(get_args(Property)) - {"nothing"}:
        assert {True, False} <= {golden.verdict(name) for golden in GOLDEN}
    known = set(get_args(Property))
    assert all(set(golden.has.split()) | set(golden.unsure.split()) <= known for golden in GOLDEN)
    assert len({golden.title for golden in GOLDEN}) == len(GOLDEN)


OWN = """
from grpo_cot.rewards import completion_text, promises


@promises(pays=["<answer>18</answer>"], never=["18"])
def tagged(prompts, completions, **columns):
    return [float("<answer>" in completion_text(completion)) for completion in completions]
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('@promises(pays=["<answer>18</answer>"], never=["18"])\n', "", "makes no promise that the audit"),
        ("float(", "1 - float(", "'my_rewards.tagged' is broken: it does not pay 0.0: its own example"),
        ("def tagged", "def other", "my_rewards.py has no function 'tagged'; expected one of: other"),
        ("from grpo_cot", "from grpo_kot", "cannot be imported: ModuleNotFoundError: No module named 'grpo_kot'"),
        ("in completions]", "in completions[1:]]", "returns 1 amounts for 2 completions"),
        ("completion_text(completion)", "None", "fails on completions: TypeError"),
        ("tagged", "strict_format", "has no function 'tagged'"),
        (
            "in completion_text(completion))",
            "in completion_text(completion)) / 0.0**1e3 if 0 else float('nan')",
            "is not finite",
        ),
        # As the trainer hands it over, a completion is a list of one message.
        ('"<answer>" in completion_text(completion)', '"<answer>" in completion', "it does not pay 0.0"),
    ],
)
def test_a_reward_of_ones_own_that_cannot_be_trusted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python tells an edit by the size and the second
    (tmp_path / "my_rewards.py").write_text(OWN)
    assert broken({"my_rewards.tagged": 1.0}) == {}
    assert old in OWN
    (tmp_path / "my_rewards.py").write_text(OWN.replace(old, new))
    sys.modules.pop("my_rewards")
    with pytest.raises(ValueError, match=re.escape(says)):
        judge(broken({"my_rewards.tagged": 1.0}), {}, [])


BRIEF = """
from grpo_cot.rewards import completion_text, promises


@promises(pays=["<answer>18</answer>"], never=["18"])
def brief(prompts, completions, completion_ids, **columns):
    pairs = zip(completions, completion_ids)
    return [("<answer>" in completion_text(completion)) / (1 + len(ids)) for completion, ids in pairs]
"""


def test_a_reward_that_promises_by_examples_and_pays_for_length_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(BRIEF)
    sys.modules.pop("my_rewards", None)
    assert broken({"my_rewards.brief": 1.0}) == {}
    (warning,) = length_warnings(dict.fromkeys(REWARDS, 1.0) | {"my_rewards.brief": 1.0})
    assert warning.startswith("my_rewards.brief pays 0.0769231 for a wrong answer, and 0.00249377 for the same one")


def test_a_reward_of_another_module_is_not_tracked_and_refused() -> None:
    with pytest.raises(ValueError, match=r"'os.getcwd' is in os, which no step tracks: write .* into my_rewards.py"):
        broken({"os.getcwd": 1.0})


def test_a_promise_of_one_side_is_none() -> None:
    with pytest.raises(ValueError, match="both `pays` and `never`"):
        promises(pays=["a"])


def test_a_placebo_is_called_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(
        OWN.replace('pays=["<answer>18</answer>"], never=["18"]', '"nothing"').replace("float(", "no_such_name(")
    )
    sys.modules.pop("my_rewards", None)
    with pytest.raises(InputError, match="fails on completions: NameError"):
        broken({"my_rewards.tagged": 1.0})
