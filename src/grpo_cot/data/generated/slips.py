"""Pairs of a right and a wrong worked answer to the generated word problems.

A wrong answer is the right one with one slip, and what follows from it: a step with another operation, a step left out,
or a result that is off by a little. It has the form of the right one, and another final number. Problems belong to the
splits of `grpo_cot.problems.generators`, so that no phrasing of a test question occurs in training.
"""

import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal, NamedTuple, get_args

from grpo_cot.problems.generators import GENERATORS, Generator, Problem, Split
from grpo_cot.schema import worked

Slip = Literal["operation", "skipped step", "arithmetic"]
SLIPS: tuple[Slip, ...] = get_args(Slip)
OFF_BY = (-10, -2, -1, 1, 2, 10)  # a carry forgotten, or a figure misread
_NUMBER = re.compile(r"\d+")


class Pair(NamedTuple):
    """A question with a chosen and a rejected answer, the right number, and the rejected one's slip if it has one."""

    question: str
    chosen: str
    rejected: str
    gold: str
    slip: Slip | None


class _Step(NamedTuple):
    """A step `12 + 7 = 19`: its numbers before the equals sign, what stands between them, and its result.

    `sources` holds, for each number, the position of the earlier step whose result it is, or None.
    """

    numbers: tuple[int, ...]
    signs: tuple[str, ...]
    result: int
    sources: tuple[int | None, ...]


class _Unfit(Exception):
    """A result that is no whole number above 0."""


def pairs(problems: Generator, split: Split, seed: int | str) -> Iterator[Pair]:
    """An endless stream of pairs, one a problem; the same seed gives the same stream.

    A problem to which no slip fits is left out: a problem of one step, for example, has none to leave out.
    """
    rng = random.Random(f"slips-{problems}-{split}-{seed}")
    for problem in GENERATORS[problems](split, seed):
        steps = _steps(problem)
        for slip in rng.sample(SLIPS, len(SLIPS)):
            wrong = _wrong(steps, slip, rng)
            if wrong and wrong[-1].result != problem.value:
                yield Pair(
                    problem.question, worked("\n".join(problem.steps), str(problem.value)),
                    worked("\n".join(map(_written, wrong)), str(wrong[-1].result)), str(problem.value), slip,
                )  # fmt: skip
                break


def _steps(problem: Problem) -> list[_Step]:
    """The steps of a problem's answer. A result is used once, by the first later step that shows its number; what a
    percentage is of is used again by the step that adds it or takes it away."""
    steps: list[_Step] = []
    unused: dict[int, int] = {}  # the step's position: its result
    for line in problem.steps:
        left, result = line.split(" = ")
        numbers = tuple(map(int, _NUMBER.findall(left)))
        sources: list[int | None] = []
        for number in numbers:
            source = next((at for at, value in reversed(unused.items()) if value == number), None)
            if source is not None and "/ 100" not in left:
                del unused[source]
            sources.append(source)
        unused[len(steps)] = int(result)
        steps.append(_Step(numbers, tuple(_NUMBER.sub(" ", left).split()), int(result), tuple(sources)))
    return steps


def _written(step: _Step) -> str:
    words = [str(step.numbers[0])]
    for sign, number in zip(step.signs, step.numbers[1:], strict=True):
        words += [sign, str(number)]
    return f"{' '.join(words)} = {step.result}"


def _computed(numbers: tuple[int, ...], signs: tuple[str, ...]) -> int:
    """The value of `48 / 2` or `200 * 20 / 100`, from left to right.

    Raises:
        _Unfit: it is no whole number above 0.
    """
    value = Fraction(numbers[0])
    for sign, number in zip(signs, numbers[1:], strict=True):
        if sign == "/" and not number:
            raise _Unfit
        value = {"+": value + number, "-": value - number, "*": value * number, "/": value / (number or 1)}[sign]
    if value.denominator > 1 or value < 1:
        raise _Unfit
    return int(value)


def _wrong(steps: list[_Step], slip: Slip, rng: random.Random) -> list[_Step]:
    """The steps with one slip of that kind and its consequences; none where it fits nowhere."""
    changes: list[tuple[int, _Step | None]] = []  # at a position, another step or none
    for at, step in enumerate(steps):
        changes += [(at, changed) for changed in _CHANGES[slip](step)]
    if len(steps) == 1:
        changes = [change for change in changes if change[1]]
    for at, changed in rng.sample(changes, len(changes)):
        try:
            return _followed(steps, at, changed)
        except _Unfit:
            continue
    return []


def _other_operations(step: _Step) -> list[_Step | None]:
    """The step with each other sign. A percentage, whose two signs belong together, has none."""
    changed: list[_Step | None] = []
    for sign in "+-*/" if len(step.signs) == 1 else "":
        try:
            if sign != step.signs[0]:
                changed.append(step._replace(signs=(sign,), result=_computed(step.numbers, (sign,))))
        except _Unfit:
            continue
    return changed


def _left_out(step: _Step) -> list[_Step | None]:
    return [None]


def _miscounted(step: _Step) -> list[_Step | None]:
    return [step._replace(result=step.result + off) for off in OFF_BY if step.result + off >= 1]


_CHANGES: dict[Slip, Callable[[_Step], list[_Step | None]]] = {
    "operation": _other_operations, "skipped step": _left_out, "arithmetic": _miscounted
}  # fmt: skip


def _followed(steps: list[_Step], at: int, changed: _Step | None) -> list[_Step]:
    """All steps with the one at that position changed, and every later one computed from what is before it now.

    Where the step is left out, its first number stands for its result.

    Raises:
        _Unfit: a later step has no whole result above 0.
    """
    results = {position: step.result for position, step in enumerate(steps)}
    results[at] = changed.result if changed else steps[at].numbers[0]
    followed = steps[:at] + ([changed] if changed else [])
    for position, step in enumerate(steps[at + 1 :], start=at + 1):
        numbers = tuple(
            number if source is None else results[source]
            for number, source in zip(step.numbers, step.sources, strict=True)
        )
        results[position] = _computed(numbers, step.signs)
        followed.append(step._replace(numbers=numbers, result=results[position]))
    return followed
