"""The generator: its problems are right, repeatable, and split by structure."""

import importlib.util
import itertools
import re

from support import ROOT

from grpo_cot.problems import problems, split_of
from grpo_cot.schema import gold


def test_every_worked_answer_is_right_and_ends_in_its_gold() -> None:
    for problem in itertools.islice(problems("train", 1), 2000):
        value = int(re.match(r"\d+", problem.structure).group())  # type: ignore[union-attr]
        assert str(value) in problem.question
        for step, (sign, operand) in zip(problem.steps, re.findall(r"([-+*/])(\d+)", problem.structure), strict=True):
            left, right = step.split(" = ")
            assert left == f"{value} {sign} {operand}"
            value = {
                "+": value + int(operand),
                "-": value - int(operand),
                "*": value * int(operand),
                "/": value // int(operand),
            }[sign]
            assert right == str(value)
        assert gold(problem.answer) == str(problem.value) == str(value)
        assert 1 <= value <= 99


def test_the_same_seed_gives_the_same_stream() -> None:
    first, second, other = (list(itertools.islice(problems("test", seed), 50)) for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_a_structure_belongs_to_one_split_whatever_its_phrasing() -> None:
    train = list(itertools.islice(problems("train", 1), 5000))
    assert {split_of(problem.structure) for problem in train} == {"train"}
    share = sum(split_of(f"{a}+{b}") == "test" for a in range(100) for b in range(100)) / 10_000
    assert 0.08 < share < 0.12


def test_no_evaluation_problem_occurs_in_masked_form_in_the_pretraining_corpus_or_the_training_set() -> None:
    """Over the whole corpus that the embedded base saw, and the training and test sets of the default data set."""
    specification = importlib.util.spec_from_file_location("pretrain", ROOT / "assets/tiny/pretrain.py")
    assert specification and specification.loader
    pretrain = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(pretrain)
    seen_structures, seen_masked = set(), set()
    count = 0
    for shown, _ in itertools.islice(pretrain.corpus(pretrain.SEED), pretrain.STEPS * pretrain.BATCH):
        count += len(shown)
        seen_structures.update(problem.structure for problem in shown)
        seen_masked.update(problem.masked for problem in shown)
    assert count > 150_000
    for problem in itertools.islice(problems("train", 7), 4000):
        seen_structures.add(problem.structure)
        seen_masked.add(problem.masked)
    evaluation = list(itertools.islice(problems("test", 7), 1000))
    assert sum(problem.structure in seen_structures for problem in evaluation) == 0
    assert sum(problem.masked in seen_masked for problem in evaluation) == 0
