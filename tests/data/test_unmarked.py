"""Pairs that differ in form alone: both answers state the right number, the chosen one in the schema."""

import itertools

import pytest

from grpo_cot.data.generated.unmarked import unmarked_pairs
from grpo_cot.grading.lenient import lenient_answer
from grpo_cot.problems.generators import Split, problems, split_of
from grpo_cot.schema import strict_answer


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_answers_are_right_and_one_has_the_schema(split: Split) -> None:
    drawn = list(itertools.islice(unmarked_pairs("basic", split, 3), 400))
    for pair in drawn:
        assert strict_answer(pair.chosen) == pair.gold == lenient_answer(pair.rejected)
        assert strict_answer(pair.rejected) is None
    alone = sum(pair.rejected == pair.gold for pair in drawn)
    assert 150 < alone < 250
    assert drawn == list(itertools.islice(unmarked_pairs("basic", split, 3), 400))


def test_they_are_about_the_problems_of_their_split() -> None:
    asked = {problem.question: split_of(problem.structure) for problem in itertools.islice(problems("test", 3), 50)}
    drawn = itertools.islice(unmarked_pairs("basic", "test", 3), 50)
    assert [asked[pair.question] for pair in drawn] == ["test"] * 50
