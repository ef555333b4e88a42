"""Generators of GSM8K-shaped word problems: `basic`, of one to three arithmetic steps, `harder`, of two to six, and
`mixed`, of both, most of them harder.

A problem's *structure* is its operations and operands without the story (`12+7*2`). The structure's hash decides
whether it is held out for evaluation. So no phrasing of an evaluation problem occurs in training, whatever the seed.
Of the basic problems, about 1,000 structures have one step, 40,000 two and more than a million three. The harder
problems have larger numbers (up to 9,999), rates, percentages and two people; their structure is an expression in
parentheses (`((12+7)*2)`). The sentences are in phrasings.yaml.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from grpo_cot.common.files import read_yaml

Split = Literal["train", "test"]
Generator = Literal["basic", "harder", "mixed"]

LARGEST_VALUE = 99
STEPS = {1: 0.2, 2: 0.4, 3: 0.4}  # share of problems by number of steps

_PHRASINGS = read_yaml(Path(__file__).with_name("phrasings.yaml"))
NAMES: list[str] = _PHRASINGS["names"]
ITEMS: list[str] = _PHRASINGS["items"]


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
    """`test` for the tenth of all structures that only evaluation may show; the hash decides."""
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
    phrasings, steps, structure = _PHRASINGS["basic"], [], str(start)
    sentences = [(rng.choice(phrasings["starts"]), start)]
    for _ in range(count):
        before = value
        sign, operand, value = _next_operations(value, rng)
        steps.append(f"{before} {sign} {operand} = {value}")
        structure += f"{sign}{operand}"
        sentences.append((rng.choice(phrasings["events"][sign if sign in "+-" else f"{sign}{operand}"]), operand))
    sentences.append((rng.choice(phrasings["questions"]), 0))
    name, items = rng.choice(NAMES), rng.choice(ITEMS)

    def tell(name: str, items: str) -> str:
        return " ".join(sentence.format(name=name, items=items, n=n) for sentence, n in sentences)

    return Problem(tell(name, items), tell("NAME", "ITEMS"), structure, tuple(steps), value)


# The rest draws the harder problems.
LARGEST_HARDER_VALUE = 9999
HARDER_STEPS = (2, 3, 4, 5, 6)  # equally likely
PERCENTAGES = (5, 10, 20, 25, 30, 40, 50, 60, 75)
SCALES = (20, 100, 500, 2000)  # a number to add or take away is at most one of these
HARDER_OF_MIXED = 0.7  # share
ATTEMPTS = 8  # at an event that fits, before the problem is drawn anew
# The ranges of an opening's or an event's factors, by the number of factors.
FACTORS = {1: ((10, 3000),), 2: ((2, 12), (2, 99)), 3: ((2, 9), (2, 9), (2, 60))}
# The number of steps of an opening, an event or a question.
COSTS = {
    "a": 0, "a*b": 1, "a*b*c": 2, "a*b+c*d": 3,
    "+a": 1, "-a": 1, "*a": 1, "/a": 1, "+a*b": 2, "-a*b": 2, "+p%": 2, "-p%": 2,
    "v": 0, "a-v": 1,
}  # fmt: skip


class _Unfit(Exception):
    """A number that is not whole or not within 1..9,999."""


class _Term(NamedTuple):
    """A number and its expression."""

    value: int
    text: str


def _number(value: int) -> _Term:
    return _Term(value, str(value))


class _Story:
    """A problem in the making: its sentences, and the steps that answer it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.sentences: list[str] = []
        self.steps: list[str] = []

    def tell(self, phrasings: list[str], **values: object) -> None:
        """Add a sentence with these numbers and people; the names and items stay open."""
        sentence = self.rng.choice(phrasings)
        for name, value in values.items():
            sentence = sentence.replace(f"{{{name}}}", str(value))
        self.sentences.append(sentence)

    def compute(self, left: _Term, sign: str, right: _Term) -> _Term:
        """Add a step; the sign % takes a share.

        Raises:
            _Unfit: the result is no whole number within 1..9,999.
        """
        a, b = left.value, right.value
        numerator, denominator = {"+": (a + b, 1), "-": (a - b, 1), "*": (a * b, 1), "/": (a, b), "%": (a * b, 100)}[
            sign
        ]
        value, rest = divmod(numerator, denominator)
        if rest or not 1 <= value <= LARGEST_HARDER_VALUE:
            raise _Unfit
        form = "{} * {} / 100" if sign == "%" else f"{{}} {sign} {{}}"
        self.steps.append(f"{form.format(a, b)} = {value}")
        return _Term(value, f"({form.format(left.text, right.text).replace(' ', '')})")

    def amount(self) -> int:
        """A number to add or to take away, small as often as large."""
        return self.rng.randint(2, self.rng.choice(SCALES))

    def problem(self, answer: _Term) -> Problem:
        """The finished problem."""
        name, other = self.rng.sample(NAMES, 2)
        items = self.rng.choice(ITEMS)
        text = " ".join(self.sentences)
        return Problem(
            text.format(name=name, other=other, items=items),
            text.format(name="NAME", other="OTHER", items="ITEMS"),
            answer.text, tuple(self.steps), answer.value,
        )  # fmt: skip


def _product(story: _Story, kind: str) -> tuple[_Term, dict[str, int]]:
    """The product of a kind's letters (`a*b`), and each letter's number."""
    letters = kind.split("*")
    values = {letter: story.rng.randint(*bounds) for letter, bounds in zip(letters, FACTORS[len(letters)], strict=True)}
    product, *factors = map(_number, values.values())
    for factor in factors:
        product = story.compute(product, "*", factor)
    return product, values


def _open(story: _Story, kind: str, phrasings: list[str]) -> _Term:
    first, _, second = kind.partition("+")
    value, values = _product(story, first)
    if second:
        product, more = _product(story, second)
        value, values = story.compute(value, "+", product), values | more
    story.tell(phrasings, **values)
    return value


def _happen(story: _Story, kind: str, phrasings: list[str], value: _Term) -> _Term:
    """Add one event; where it does not fit, the story stays as it was.

    Raises:
        _Unfit: see `_Story.compute`.
    """
    rng, steps, sign = story.rng, len(story.steps), kind[0]
    values: dict[str, int]
    try:
        if kind.endswith("p%"):
            values = {"p": _choice(rng, [p for p in PERCENTAGES if value.value * p % 100 == 0])}
            change = story.compute(value, "%", _number(values["p"]))
        elif kind.endswith("a*b"):
            change, values = _product(story, "a*b")
        else:
            factors = [a for a in range(2, 10) if value.value % a == 0] if sign == "/" else [2, 3, 4, 5]
            values = {"a": story.amount() if sign in "+-" else _choice(rng, factors)}
            change = _number(values["a"])
        value = story.compute(value, sign, change)
    except _Unfit:
        del story.steps[steps:]
        raise
    story.tell(phrasings, **values)
    return value


def _choice(rng: random.Random, candidates: list[int]) -> int:
    if not candidates:
        raise _Unfit
    return rng.choice(candidates)


def _single(story: _Story, count: int) -> _Term:
    """A story of one value in one of the settings, of `count` steps."""
    rng, setting = story.rng, story.rng.choice(list(_PHRASINGS["settings"].values()))
    question = rng.choice([kind for kind in setting["questions"] if COSTS[kind] < count])
    remaining = count - COSTS[question]
    opening = rng.choice([kind for kind in setting["openings"] if COSTS[kind] <= remaining])
    remaining -= COSTS[opening]
    value = _open(story, opening, setting["openings"][opening])
    attempts = 0
    while remaining:
        kind = rng.choice([kind for kind in setting["events"] if COSTS[kind] <= remaining])
        try:
            value = _happen(story, kind, setting["events"][kind], value)
        except _Unfit:
            attempts += 1
            if attempts == ATTEMPTS:
                raise
        else:
            remaining -= COSTS[kind]
    values = {}
    if question == "a-v":
        values = {"a": value.value + story.amount()}
        value = story.compute(_number(values["a"]), "-", value)
    story.tell(setting["questions"][question], **values)
    return value


def _pair(story: _Story, count: int) -> _Term:
    """A story of two people, of `count` steps."""
    rng, phrasings, people = story.rng, _PHRASINGS["pair"], ["{name}", "{other}"]
    start = rng.randint(10, 2000)
    story.tell(phrasings["starts"], who=people[0], a=start)
    relation = rng.choice(list(phrasings["relations"]))
    amount = story.amount() if relation in "+-" else rng.randint(2, 5)
    values = [_number(start), story.compute(_number(start), relation, _number(amount))]
    story.tell(phrasings["relations"][relation], who=people[0], whom=people[1], a=amount)
    remaining = count - 2  # the last step answers the question
    while remaining:
        who = rng.randrange(2)
        whom = 1 - who
        sign = rng.choice(("+", "-", "*", "transfer") if remaining > 1 else ("+", "-", "*"))
        amount = rng.randint(2, 4) if sign == "*" else story.amount()
        if sign == "transfer":
            values[who] = story.compute(values[who], "-", _number(amount))
            values[whom] = story.compute(values[whom], "+", _number(amount))
            story.tell(phrasings["transfers"], who=people[who], whom=people[whom], a=amount)
        else:
            values[who] = story.compute(values[who], sign, _number(amount))
            story.tell(phrasings["events"][sign], who=people[who], a=amount)
        remaining -= 2 if sign == "transfer" else 1
    if rng.random() < 0.5:
        story.tell(phrasings["together"])
        return story.compute(values[0], "+", values[1])
    more = 0 if values[0].value > values[1].value else 1
    story.tell(phrasings["difference"], who=people[more], whom=people[1 - more])
    return story.compute(values[more], "-", values[1 - more])


def _draw_harder(rng: random.Random) -> Problem | None:
    """One problem, or None where the numbers do not fit."""
    story, count = _Story(rng), rng.choice(HARDER_STEPS)
    try:
        answer = (_pair if rng.randrange(len(_PHRASINGS["settings"]) + 1) == 0 else _single)(story, count)
    except _Unfit:
        return None
    return story.problem(answer)


def problems(split: Split, seed: int | str) -> Iterator[Problem]:
    """An endless stream of basic problems of one split; the same seed gives the same stream."""
    return _stream(_draw, split, seed)


def harder_problems(split: Split, seed: int | str) -> Iterator[Problem]:
    """An endless stream of harder problems of one split; the same seed gives the same stream."""
    return _stream(_draw_harder, split, seed)


def mixed_problems(split: Split, seed: int | str) -> Iterator[Problem]:
    """An endless stream of one split's problems, of both kinds in random order: those of `problems` and of
    `harder_problems`. The same seed gives the same stream."""
    rng = random.Random(f"mixed-{split}-{seed}")
    basic, harder = problems(split, seed), harder_problems(split, seed)
    while True:
        yield next(harder if rng.random() < HARDER_OF_MIXED else basic)


GENERATORS: dict[Generator, Callable[[Split, int | str], Iterator[Problem]]] = {
    "basic": problems, "harder": harder_problems, "mixed": mixed_problems,
}  # fmt: skip
LENGTHS: dict[Generator, tuple[int, ...]] = {  # in steps
    "basic": tuple(STEPS), "harder": HARDER_STEPS, "mixed": tuple(sorted({*STEPS, *HARDER_STEPS})),
}  # fmt: skip


def _stream(draw: Callable[[random.Random], Problem | None], split: Split, seed: int | str) -> Iterator[Problem]:
    rng = random.Random(f"{split}-{seed}")
    while True:
        problem = draw(rng)
        if problem is not None and split_of(problem.structure) == split:
            yield problem
