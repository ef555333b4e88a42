"""Names of rewards in a recipe: where each is looked for, what a wrong one is told, and what a promise must hold."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.rewards.promise import Promise, promise_of, promises
from grpo_cot.rewards.registry import (
    PUBLISHED_REWARDS,
    REWARDS,
    Measure,
    check_columns,
    check_golds,
    classes,
    reads_gold,
    reward_functions,
)

OWN = """\
from grpo_cot.rewards import promises

LIMIT = 120


@promises(pays=["18"], never=["18 " * 99])
def brevity(prompts, completions, **columns):
    return [float(len(completion) <= LIMIT) for completion in completions]


def unpromised(prompts, completions, **columns):
    return [0.0] * len(completions)


@promises(pays=["18"], never=["19"])
def correctness(prompts, completions, **columns):
    return [0.0] * len(completions)
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a checkout with rewards of its own, as the current one."""
    (tmp_path / "my_rewards.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    loaded = sys.modules.pop("my_rewards", None)
    yield tmp_path
    sys.modules.pop("my_rewards", None)
    if loaded is not None:
        sys.modules["my_rewards"] = loaded


def test_the_library_has_these_rewards() -> None:
    assert {
        "strict_format", "soft_format", "xml_count", "integer_answer", "correctness", "correctness_in_schema",
        "length_cosine", "length_cosine_penalty", "random",
    } <= REWARDS.keys()  # fmt: skip
    assert {name.removeprefix("published_") for name in PUBLISHED_REWARDS} == {
        "strict_format", "soft_format", "xml_count", "integer_answer", "correctness", "length_cosine",
        "length_cosine_penalty",
    }  # fmt: skip


def test_ones_own_reward_is_found_in_the_checkout_and_imported_once(checkout: Path) -> None:
    functions, weights = reward_functions({"my_rewards.brevity": 0.5, "xml_count": 0.0})
    assert [function.__name__ for function in functions] == ["brevity", "xml_count"] and weights == [0.5, 0.0]
    assert functions[0]([""], ["18"]) == [1.0]
    assert reward_functions({"my_rewards.brevity": 1.0})[0][0] is functions[0]
    # So that worker processes can unpickle it.
    assert sys.modules["my_rewards"].brevity is functions[0]


def test_another_checkouts_rewards_are_not_taken_for_this_ones(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [before], _ = reward_functions({"my_rewards.brevity": 1.0})
    other = checkout / "other"
    other.mkdir()
    (other / "my_rewards.py").write_text(OWN.replace("120", "1"))
    monkeypatch.chdir(other)
    [after], _ = reward_functions({"my_rewards.brevity": 1.0})
    assert (before([""], ["18"]), after([""], ["18"])) == ([1.0], [0.0])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("corectness", "^unknown reward 'corectness'; did you mean 'correctness'"),
        ("published_corectness", "did you mean 'published_correctness'"),
        ("somewhere.else.reward", r"^'somewhere.else.reward' is in somewhere.else, which no step tracks"),
        ("my_rewards.brevty", r"^my_rewards.py has no function 'brevty'; did you mean 'brevity'"),
        ("my_rewards.LIMIT", r"^my_rewards.py has no function 'LIMIT'"),
    ],
)
def test_a_name_that_is_no_reward_is_told_where_to_look(checkout: Path, name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        reward_functions({name: 1.0})


def test_two_rewards_of_one_name_cannot_be_logged_apart(checkout: Path) -> None:
    with pytest.raises(InputError, match=r"^two rewards are called 'correctness': rename the one in my_rewards.py"):
        reward_functions({"correctness": 1.0, "my_rewards.correctness": 1.0, "soft_format": 1.0})


def test_a_missing_file_of_rewards_is_one_sentence(checkout: Path) -> None:
    (checkout / "my_rewards.py").unlink()
    with pytest.raises(InputError, match=r"my_rewards.py does not exist"):
        reward_functions({"my_rewards.brevity": 1.0})


def test_a_file_of_rewards_that_cannot_be_imported_says_why_and_is_tried_again(checkout: Path) -> None:
    (checkout / "my_rewards.py").write_text("import sys\nassert sys.modules[__name__]\n1 / 0\n")
    for _ in range(2):
        with pytest.raises(InputError, match=r"my_rewards.py cannot be imported: ZeroDivisionError: division by zero"):
            reward_functions({"my_rewards.brevity": 1.0})
    (checkout / "my_rewards.py").write_text(OWN)
    assert reward_functions({"my_rewards.brevity": 1.0})[1] == [1.0]


def test_a_promise_is_kept_beside_the_function() -> None:
    def reward() -> None: ...

    assert promise_of(promises("tags", in_parts=True)(reward)) == Promise("tags", (), (), True)  # type: ignore[arg-type]
    assert promises(pays=["a", "b"], never=["c"])(reward) is reward
    assert promise_of(reward) == Promise(None, ("a", "b"), ("c",), False)  # type: ignore[arg-type]
    assert promise_of(lambda prompts, completions: [0.0]) is None
    with pytest.raises(AttributeError):  # what the audit holds a reward to is not changed by anybody later
        promise_of(reward).in_parts = True  # type: ignore[misc, union-attr, arg-type]


@pytest.mark.parametrize(
    ("what", "pays", "never"), [(None, [], []), (None, ["a"], []), (None, [], ["a"]), ("soft", ["a"], ["b"])]
)
def test_a_promise_of_nothing_of_one_side_or_of_both_kinds_is_an_error(
    what: None, pays: list[str], never: list[str]
) -> None:
    with pytest.raises(ValueError, match="the name of a property, or both `pays` and `never`"):
        promises(what, pays=pays, never=never)


def test_each_reward_promises_what_its_name_says() -> None:
    found = {name: promise_of(reward) for name, reward in (REWARDS | PUBLISHED_REWARDS).items()}
    expected = {
        "strict_format": "strict", "soft_format": "soft", "xml_count": "tags", "integer_answer": "integer",
        "correctness": "correct", "correctness_in_schema": "correct_in_schema", "length_cosine": "correct",
        "length_cosine_penalty": "correct", "random": "nothing",
    }  # fmt: skip
    for name, what in expected.items():
        for reward in {name, f"published_{name}"} & found.keys():
            assert found[reward] == Promise(what, (), (), in_parts=what == "tags")  # type: ignore[arg-type]


def letters(text: list[str], *, add_special_tokens: bool) -> dict[str, list[list[str]]]:
    """A tokenizer with a token a letter."""
    assert not add_special_tokens
    return {"input_ids": [list(part) for part in text]}


def test_a_reward_that_reads_it_gets_the_length_of_what_stands_before_the_answer() -> None:
    rewards = {"correctness": 1.0, "published_length_cosine": 0.5}
    (correctness, cosine), weights = reward_functions(rewards, measure=Measure(letters, 786))
    assert correctness is REWARDS["correctness"] and weights == [1.0, 0.5]
    assert cosine.__name__ == "published_length_cosine" and reads_gold(cosine) and promise_of(cosine) is not None
    texts = ["x" * 393 + "<answer>5</answer>" + "y" * 900, "x" * 786 + "<answer>5</answer>", "<answer>6</answer>", "5"]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    ids = [[0]] * 4  # the length of all that was written plays no part
    paid = cosine(prompts=[""] * 4, completions=completions, gold=["5"] * 4, completion_ids=ids)
    assert paid == pytest.approx([5 / 2**0.5, 0, 0, 0])
    (_, shorter), _ = reward_functions(rewards, measure=Measure(letters, 393))  # a phase of shorter completions
    assert shorter(prompts=[""], completions=completions[:1], gold=["5"]) == pytest.approx([0])
    with pytest.raises(TypeError, match="reasoning_tokens"):  # where there is no tokenizer it is named only
        reward_functions(rewards)[0][1](prompts=[""], completions=["5"], gold=["5"])


def test_prompts_without_a_final_answer_are_refused_where_rewards_compare_with_it() -> None:
    check_golds([{"id": "a", "gold": "7"}])
    with pytest.raises(InputError, match=r"row b has no final answer, which the rewards compare with; name its column"):
        check_golds([{"id": "a", "gold": "7"}, {"id": "b", "gold": None}])


def test_a_reward_that_is_trained_first_is_given_or_cannot_be_called() -> None:
    def judge(prompts: list[object], completions: list[object], wanted: list[str]) -> list[float]:
        return [2.5] * len(completions)

    functions, weights = reward_functions({"reward_model": 1.0, "random": 0.0}, judge)
    assert functions[0] is judge and weights == [1.0, 0.0]
    [untrained], _ = reward_functions({"reward_model": 1.0})
    assert untrained.__name__ == "reward_model" and promise_of(untrained) is None
    with pytest.raises(InputError, match="is trained in the step train and can judge nothing before"):
        untrained([""], ["18"])
    with pytest.raises(InputError, match="unknown reward 'reward_modle'; did you mean 'reward_model'"):
        reward_functions({"reward_modle": 1.0})


def test_golds_are_asked_for_where_a_named_reward_reads_them_and_nowhere_else(checkout: Path) -> None:
    assert {name for name, reward in REWARDS.items() if reads_gold(reward)} == {
        "correctness", "correctness_in_schema", "length_cosine", "length_cosine_penalty"
    }  # fmt: skip
    rows = [{"id": "a", "gold": None}]
    check_columns({"reward_model": 1.0, "soft_format": 1.0, "my_rewards.brevity": 1.0}, rows)
    with pytest.raises(InputError, match="row a has no final answer"):
        check_columns({"soft_format": 1.0, "correctness": 0.0}, rows)
    check_columns({"correctness": 1.0}, [{"id": "a", "gold": "7"}])


def text(label: str | None, name: str = "a") -> dict[str, str | None]:
    return {"id": name, "text": "So it is.", "label": label, "wanted": "bad"}


@pytest.mark.parametrize(
    ("rows", "others", "says"),
    [
        ([{"id": "a", "gold": "7"}], {}, "row a has no label, from which a reward model learns: name a data set of"),
        ([text("bad"), text(None, "b")], {}, "row b has no label"),
        ([text("bad"), text("bad")], {}, "all training rows have the label 'bad': a reward model needs at least two"),
        ([text("good"), text("so")], {}, "row a wants the class 'bad', which no training row has"),
        (
            [text("good"), text("bad")],
            {"eval-test": [text("bad"), text("mixed", "t")]},
            r"row t of eval-test has the label 'mixed', which no training row has \(bad, good\)",
        ),
        ([text("good"), text("bad")], {"eval-test": [{"id": "t"}]}, "row t has no label"),
    ],
)
def test_rows_that_no_reward_model_could_learn_from_are_refused(
    rows: list[Row], others: dict[str, list[Row]], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        classes(rows, others)


def test_the_classes_are_sorted_whatever_the_rows_order() -> None:
    rows = [text("so"), text("good"), text("bad"), text("good")]
    assert classes(rows, {"validation": [text("bad")]}) == ["bad", "good", "so"]
