"""Pairs of a right and a wrong answer: the right one is right, and the wrong one has the one slip that it names."""

import itertools
import re
from collections import Counter
from fractions import Fraction

import pytest

from grpo_cot.data.generated import slips
from grpo_cot.data.generated.slips import SLIPS, Pair, pairs
from grpo_cot.problems.generators import GENERATORS, Generator, Problem
from grpo_cot.schema import sections


@pytest.fixture(scope="module", params=["basic", "harder"])
def drawn(request: pytest.FixtureRequest) -> list[Pair]:
    return list(itertools.islice(pairs(request.param, "train", 3), 1500))


def steps(completion: str) -> list[str]:
    parts = sections(completion)
    assert parts
    return parts[0].split("\n")


def holds(step: str) -> bool:
    left, right = step.split(" = ")
    first, *rest = left.split()
    value = Fraction(first)
    for sign, number in zip(rest[::2], rest[1::2], strict=True):
        value = {
            "+": value + int(number), "-": value - int(number), "*": value * int(number), "/": value / int(number)
        }[sign]  # fmt: skip
    return value == int(right)


def test_the_chosen_answer_is_right_and_the_rejected_one_is_not(drawn: list[Pair]) -> None:
    for pair in drawn:
        chosen, rejected = sections(pair.chosen), sections(pair.rejected)
        assert chosen and rejected
        assert chosen[1] == pair.gold == chosen[0].rpartition(" = ")[2]
        assert rejected[1] != pair.gold and rejected[1] == rejected[0].rpartition(" = ")[2]
        assert int(rejected[1]) >= 1
        assert all(map(holds, steps(pair.chosen)))


def test_a_wrong_answer_has_the_slip_that_it_names_and_no_other(drawn: list[Pair]) -> None:
    for pair in drawn:
        right, wrong = steps(pair.chosen), steps(pair.rejected)
        errors = sum(not holds(step) for step in wrong)
        signs = [[re.findall(r"[-+*/]", step) for step in side] for side in (right, wrong)]
        if pair.slip == "arithmetic":
            assert errors == 1 and signs[0] == signs[1], pair
        elif pair.slip == "operation":
            assert errors == 0 and sum(one != other for one, other in zip(*signs, strict=True)) == 1, pair
        else:
            assert errors == 0 and len(wrong) == len(right) - 1, pair
    counts = Counter(pair.slip for pair in drawn)
    assert min(counts[slip] for slip in SLIPS) > 300


def followed(problem: tuple[str, ...], at: int, changed: str | None) -> list[str]:
    parsed, other = (slips._steps(Problem("", "", "", lines, 0)) for lines in (problem, (changed or "1 + 1 = 2",)))
    result = slips._followed(parsed, at, other[0] if changed else None)
    return [slips._written(step) for step in result]


def test_what_comes_after_a_slip_follows_from_it() -> None:
    """Worked by hand."""
    chain = ("17 * 3 = 51", "51 - 15 = 36", "36 / 2 = 18")
    assert followed(chain, 1, "51 + 15 = 66") == ["17 * 3 = 51", "51 + 15 = 66", "66 / 2 = 33"]
    assert followed(chain, 0, "17 * 3 = 53") == ["17 * 3 = 53", "53 - 15 = 38", "38 / 2 = 19"]
    assert followed(chain, 2, None) == ["17 * 3 = 51", "51 - 15 = 36"]
    with pytest.raises(slips._Unfit):  # half of 51
        followed(chain, 1, None)


def test_what_a_percentage_is_of_changes_in_both_steps_that_show_it() -> None:
    percentage = ("100 * 2 = 200", "200 * 20 / 100 = 40", "200 + 40 = 240")
    assert followed(percentage, 0, None) == ["100 * 20 / 100 = 20", "100 + 20 = 120"]
    assert followed(percentage, 1, "200 * 20 / 100 = 41") == ["100 * 2 = 200", "200 * 20 / 100 = 41", "200 + 41 = 241"]


def test_a_number_of_the_question_that_equals_a_result_stays_as_it_is() -> None:
    assert followed(("10 / 2 = 5", "5 * 3 = 15", "15 + 15 = 30"), 1, "5 * 3 = 14")[-1] == "14 + 15 = 29"


def test_the_same_seed_gives_the_same_stream_and_each_question_is_one_of_its_split() -> None:
    kinds: tuple[Generator, ...] = ("basic", "harder")
    for problems in kinds:
        first, second, other = (list(itertools.islice(pairs(problems, "test", seed), 50)) for seed in (3, 3, 4))
        assert first == second != other
        questions = {problem.question for problem in itertools.islice(GENERATORS[problems]("test", 3), 200)}
        assert {pair.question for pair in first} <= questions
