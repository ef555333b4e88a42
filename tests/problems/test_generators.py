"""The generators: their problems are right, repeatable, varied, and split by structure."""

import ast
import importlib.util
import itertools
import re
from collections import Counter
from fractions import Fraction

import pytest
from support import ROOT

from grpo_cot.problems.generators import GENERATORS, Generator, harder_problems, problems, split_of
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


def exact(expression: str) -> Fraction:
    """The value of an arithmetic expression, by Python's own parser and without rounding."""

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            return {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right, ast.Div: left / right}[
                type(node.op)  # type: ignore[index]
            ]
        assert isinstance(node, ast.Constant)
        return Fraction(node.value)  # type: ignore[arg-type]

    return value(ast.parse(expression, mode="eval").body)


def test_every_harder_problem_tells_its_numbers_and_its_steps_lead_to_their_expressions_value() -> None:
    for problem in itertools.islice(harder_problems("train", 1), 3000):
        assert exact(problem.structure) == problem.value
        for step in problem.steps:
            left, right = step.split(" = ")
            assert exact(left) == int(right)
            assert 1 <= int(right) <= 9999
        assert gold(problem.answer) == str(problem.value) == problem.steps[-1].split(" = ")[1]
        # Every number of the expression is told, but for the hundred of a percentage; and no other one is.
        told = set(re.findall(r"\d+", problem.question))
        assert told == set(re.findall(r"\d+", problem.structure.replace("/100)", ")")))
        assert not re.search(r"[{}]", problem.question)


def test_the_harder_problems_are_longer_larger_and_of_many_kinds() -> None:
    basic, harder = (list(itertools.islice(GENERATORS[name]("train", 5), 5000)) for name in ("basic", "harder"))
    lengths = Counter(len(problem.steps) for problem in harder)
    assert lengths.keys() == {2, 3, 4, 5, 6}
    assert min(lengths.values()) > 800
    for size in (lambda problem: len(problem.question.split()), lambda problem: problem.value):
        assert sum(map(size, harder)) > 1.2 * sum(map(size, basic))
    assert len({problem.masked for problem in harder}) > 0.98 * 5000
    for kind, least in ((r"\d%", 500), (r" / \d+ =", 500), ("OTHER", 500), ("an hour", 500), ("dollars", 500)):
        assert sum(bool(re.search(kind, " ".join((p.masked, *p.steps)))) for p in harder) > least, kind


def test_three_in_ten_of_the_mixed_problems_are_the_basic_ones() -> None:
    mixed = list(itertools.islice(GENERATORS["mixed"]("train", 5), 2000))
    basic = list(itertools.islice(problems("train", 5), 1000))
    shown = [problem for problem in mixed if problem in set(basic)]
    assert shown == basic[: len(shown)] and 0.25 < len(shown) / len(mixed) < 0.35


@pytest.mark.parametrize("generator", GENERATORS)
def test_the_same_seed_gives_the_same_stream(generator: Generator) -> None:
    stream = GENERATORS[generator]
    first, second, other = (list(itertools.islice(stream("test", seed), 50)) for seed in (3, 3, 4))
    assert first == second
    assert first != other


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_structure_belongs_to_one_split_whatever_its_phrasing(generator: Generator) -> None:
    train = list(itertools.islice(GENERATORS[generator]("train", 1), 5000))
    test = list(itertools.islice(GENERATORS[generator]("test", 1), 1000))
    assert {split_of(problem.structure) for problem in train} == {"train"}
    assert not {problem.masked for problem in train} & {problem.masked for problem in test}
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
