"""A generator of GSM8K-shaped word problems of one to three arithmetic steps.

A problem's *structure* is its operations and operands with the story taken away (`12+7*2`). Whether a structure is
held out for evaluation is decided by its hash, so no phrasing of an evaluation problem can be met in training,
whichever seed drew it. About 1,000 structures have one step, 40,000 two and more than a million three.
"""

import hashlib
import random
from collections.abc import Iterator
from typing import Literal, NamedTuple

Split = Literal["train", "test"]

LARGEST_VALUE = 99
STEPS = {1: 0.2, 2: 0.4, 3: 0.4}  # share of problems by number of steps

NAMES = tuple(
    "Ada Ben Cleo Dan Emma Finn Grace Hugo Iris Jack Kate Leo "
    "Mia Noah Olga Paul Rosa Sam Tara Uma Vera Will Yara Zoe".split(" ")
)
ITEMS = tuple(
    "apples balls beads books boxes cakes cards coins cups dolls eggs flowers "
    "hats kites lamps nuts pens plums rings shells stamps stones toys shirts".split(" ")
)
STARTS = (
    "{name} has {n} {items}.",
    "{name} starts the day with {n} {items}.",
    "There are {n} {items} in the room of {name}.",
    "{name} collected {n} {items}.",
)
EVENTS = {
    "+": (
        "{name} buys {n} more.",
        "A friend gives {name} {n} {items}.",
        "Then {name} finds {n} more {items}.",
        "After that, {n} {items} are added.",
    ),
    "-": (
        "{name} gives away {n}.",
        "Then {name} loses {n} {items}.",
        "{name} sells {n} of the {items}.",
        "After that, {n} {items} are taken away.",
    ),
    "*2": (
        "Then the number of {items} doubles.",
        "{name} gets as many {items} again.",
        "Now there are twice as many {items}.",
    ),
    "*3": (
        "Then the number of {items} triples.",
        "Now there are three times as many {items}.",
    ),
    "/2": (
        "{name} gives half of the {items} to a friend.",
        "Then half of the {items} are lost.",
    ),
}
QUESTIONS = (
    "How many {items} does {name} have now?",
    "How many {items} are there in the end?",
    "What is the number of {items} now?",
    "How many {items} are left at the end?",
)


class Problem(NamedTuple):
    """One problem. `masked` is the question without its name and items; `steps` are lines such as `12 + 7 = 19`."""

    question: str
    masked: str
    structure: str
    steps: tuple[str, ...]
    value: int

    @property
    def answer(self) -> str:
        """The worked answer in GSM8K's form, `#### value` on its last line."""
        return "\n".join((*self.steps, f"#### {self.value}"))


def split_of(structure: str) -> Split:
    """`test` for the tenth of all structures that only evaluation may show, chosen by hash."""
    return "test" if int.from_bytes(hashlib.sha256(structure.encode()).digest()[:8]) % 10 == 0 else "train"


def _next_operations(value: int, rng: random.Random) -> tuple[str, int, int]:
    """One operation that keeps the value a whole number within 1..99: its sign and operand, and the new value."""
    while True:
        sign = rng.choice(("+", "+", "+", "-", "-", "-", "*", "*", "/"))
        operand = rng.randint(2, 20) if sign in "+-" else 2 if sign == "/" else rng.randint(2, 3)
        if sign == "/" and value % 2:
            continue
        after = {"+": value + operand, "-": value - operand, "*": value * operand, "/": value // operand}[sign]
        if 1 <= after <= LARGEST_VALUE:
            return sign, operand, after


def _draw(rng: random.Random) -> Problem:
    count = rng.choices(list(STEPS), list(STEPS.values()))[0]
    start = value = rng.randint(2, 30)
    sentences, steps, structure = [(rng.choice(STARTS), start)], [], str(start)
    for _ in range(count):
        before = value
        sign, operand, value = _next_operations(value, rng)
        steps.append(f"{before} {sign} {operand} = {value}")
        structure += f"{sign}{operand}"
        sentences.append((rng.choice(EVENTS[sign if sign in "+-" else f"{sign}{operand}"]), operand))
    sentences.append((rng.choice(QUESTIONS), 0))
    name, items = rng.choice(NAMES), rng.choice(ITEMS)

    def tell(name: str, items: str) -> str:
        return " ".join(sentence.format(name=name, items=items, n=n) for sentence, n in sentences)

    return Problem(tell(name, items), tell("NAME", "ITEMS"), structure, tuple(steps), value)


def problems(split: Split, seed: int) -> Iterator[Problem]:
    """An endless stream of problems of one split; the same seed gives the same stream."""
    rng = random.Random(f"{split}-{seed}")
    while True:
        problem = _draw(rng)
        if split_of(problem.structure) == split:
            yield problem
