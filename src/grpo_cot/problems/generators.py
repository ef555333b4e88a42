"""Two generators of GSM8K-shaped word problems: `basic`, of one to three arithmetic steps, and `harder`, of two to six.

A problem's *structure* is its operations and operands with the story taken away (`12+7*2`). Whether a structure is
held out for evaluation is decided by its hash, so no phrasing of an evaluation problem can be met in training,
whichever seed drew it. Of the basic ones, about 1,000 structures have one step, 40,000 two and more than a million
three. The harder ones tell of larger numbers (up to 9,999), rates, percentages and two people; their structure is an
expression in parentheses (`((12+7)*2)`).
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from grpo_cot.problems.phrasings import DIFFERENCE, PAIR_EVENTS, RELATIONS, SETTINGS, TOGETHER, TRANSFERS

Split = Literal["train", "test"]
Generator = Literal["basic", "harder"]

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


# What follows draws the harder problems.
LARGEST_HARDER_VALUE = 9999
HARDER_STEPS = (2, 3, 4, 5, 6)  # equally likely
PERCENTAGES = (5, 10, 20, 25, 30, 40, 50, 60, 75)
SCALES = (20, 100, 500, 2000)  # a number to add or take away is at most one of these
ATTEMPTS = 8  # at an event that fits, before the problem is drawn anew
# How many steps an opening, an event or a question takes.
COSTS = {
    "a": 0, "a*b": 1, "a*b*c": 2, "a*b+c*d": 3,
    "+a": 1, "-a": 1, "*a": 1, "/a": 1, "+a*b": 2, "-a*b": 2, "+p%": 2, "-p%": 2,
    "v": 0, "a-v": 1,
}  # fmt: skip


class _Unfit(Exception):
    """A number that is no whole one within 1..9,999."""


class _Term(NamedTuple):
    """A number and the expression that computes it."""

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

    def tell(self, phrasings: tuple[str, ...], **said: object) -> None:
        """Add a sentence; what it says of numbers and people is put in, name and items are left open."""
        sentence = self.rng.choice(phrasings)
        for name, value in said.items():
            sentence = sentence.replace(f"{{{name}}}", str(value))
        self.sentences.append(sentence)

    def compute(self, left: _Term, sign: str, right: _Term) -> _Term:
        """Add a step; the sign % takes that share.

        Raises:
            _Unfit: the result is no whole number within 1..9,999.
        """
        a, b = left.value, right.value
        numerator, denominator = {
            "+": (a + b, 1), "-": (a - b, 1), "*": (a * b, 1), "/": (a, b), "%": (a * b, 100),
        }[sign]  # fmt: skip
        value, rest = divmod(numerator, denominator)
        if rest or not 1 <= value <= LARGEST_HARDER_VALUE:
            raise _Unfit
        form = "{} * {} / 100" if sign == "%" else f"{{}} {sign} {{}}"
        self.steps.append(f"{form.format(a, b)} = {value}")
        return _Term(value, f"({form.format(left.text, right.text).replace(' ', '')})")

    def amount(self) -> int:
        """A number to add or to take away: small ones as often as large ones."""
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


def _product(story: _Story, letters: str = "ab") -> tuple[_Term, dict[str, int]]:
    said = {letters[0]: story.rng.randint(2, 12), letters[1]: story.rng.randint(2, 99)}
    return story.compute(_number(said[letters[0]]), "*", _number(said[letters[1]])), said


def _open(story: _Story, kind: str, phrasings: tuple[str, ...]) -> _Term:
    rng = story.rng
    if kind == "a":
        said = {"a": rng.randint(10, 3000)}
        value = _number(said["a"])
    elif kind == "a*b*c":
        said = {"a": rng.randint(2, 9), "b": rng.randint(2, 9), "c": rng.randint(2, 60)}
        value = story.compute(_number(said["a"]), "*", _number(said["b"]))
        value = story.compute(value, "*", _number(said["c"]))
    else:
        value, said = _product(story)
        if kind == "a*b+c*d":
            second, more = _product(story, "cd")
            value, said = story.compute(value, "+", second), said | more
    story.tell(phrasings, **said)
    return value


def _chosen(rng: random.Random, fitting: list[int]) -> int:
    if not fitting:
        raise _Unfit
    return rng.choice(fitting)


def _happen(story: _Story, kind: str, phrasings: tuple[str, ...], value: _Term) -> _Term:
    """One event; a story that it does not fit is left as it was.

    Raises:
        _Unfit: see `_Story.compute`.
    """
    rng, steps = story.rng, len(story.steps)
    sign = kind[0]
    said: dict[str, int]
    try:
        if kind.endswith("p%"):
            said = {"p": _chosen(rng, [p for p in PERCENTAGES if value.value * p % 100 == 0])}
            changed = story.compute(value, sign, story.compute(value, "%", _number(said["p"])))
        elif kind.endswith("a*b"):
            product, said = _product(story)
            changed = story.compute(value, sign, product)
        else:
            factors = [a for a in range(2, 10) if value.value % a == 0] if sign == "/" else [2, 3, 4, 5]
            said = {"a": story.amount() if sign in "+-" else _chosen(rng, factors)}
            changed = story.compute(value, sign, _number(said["a"]))
    except _Unfit:
        del story.steps[steps:]
        raise
    story.tell(phrasings, **said)
    return changed


def _single(story: _Story, count: int) -> _Term:
    """A story of one value in one of the settings, of `count` steps."""
    rng, setting = story.rng, story.rng.choice(SETTINGS)
    question = rng.choice([kind for kind in setting.questions if COSTS[kind] < count])
    left = count - COSTS[question]
    opening = rng.choice([kind for kind in setting.openings if COSTS[kind] <= left])
    left -= COSTS[opening]
    value = _open(story, opening, setting.openings[opening])
    attempts = 0
    while left:
        kind = rng.choice([kind for kind in setting.events if COSTS[kind] <= left])
        try:
            value = _happen(story, kind, setting.events[kind], value)
        except _Unfit:
            attempts += 1
            if attempts == ATTEMPTS:
                raise
            continue
        left -= COSTS[kind]
    if question == "a-v":
        whole = value.value + story.amount()
        value = story.compute(_number(whole), "-", value)
        story.tell(setting.questions[question], a=whole)
    else:
        story.tell(setting.questions[question])
    return value


def _pair(story: _Story, count: int) -> _Term:
    """A story of two people, of `count` steps."""
    rng = story.rng
    people = ["{name}", "{other}"]
    start = rng.randint(10, 2000)
    story.tell(("{who} has {a} {items}.", "There are {a} {items} in the bag of {who}."), who=people[0], a=start)
    relation = rng.choice(list(RELATIONS))
    amount = story.amount() if relation in "+-" else rng.randint(2, 5)
    values = [_number(start), story.compute(_number(start), relation, _number(amount))]
    story.tell(RELATIONS[relation], who=people[0], whom=people[1], a=amount)
    left = count - 2  # the last step answers the question
    while left:
        who = rng.randrange(2)
        whom = 1 - who
        sign = rng.choice(("+", "-", "*", "transfer") if left > 1 else ("+", "-", "*"))
        amount = rng.randint(2, 4) if sign == "*" else story.amount()
        if sign == "transfer":
            values[who] = story.compute(values[who], "-", _number(amount))
            values[whom] = story.compute(values[whom], "+", _number(amount))
            story.tell(TRANSFERS, who=people[who], whom=people[whom], a=amount)
        else:
            values[who] = story.compute(values[who], sign, _number(amount))
            story.tell(PAIR_EVENTS[sign], who=people[who], a=amount)
        left -= 2 if sign == "transfer" else 1
    if rng.random() < 0.5:
        story.tell(TOGETHER)
        return story.compute(values[0], "+", values[1])
    more = 0 if values[0].value > values[1].value else 1
    story.tell(DIFFERENCE, who=people[more], whom=people[1 - more])
    return story.compute(values[more], "-", values[1 - more])


def _draw_harder(rng: random.Random) -> Problem | None:
    """One problem, or None where the numbers drawn came to nothing."""
    story, count = _Story(rng), rng.choice(HARDER_STEPS)
    try:
        answer = (_pair if rng.randrange(len(SETTINGS) + 1) == 0 else _single)(story, count)
    except _Unfit:
        return None
    return story.problem(answer)


def problems(split: Split, seed: int | str) -> Iterator[Problem]:
    """An endless stream of basic problems of one split; the same seed gives the same stream."""
    return _stream(_draw, split, seed)


def harder_problems(split: Split, seed: int | str) -> Iterator[Problem]:
    """An endless stream of harder problems of one split; the same seed gives the same stream."""
    return _stream(_draw_harder, split, seed)


GENERATORS: dict[Generator, Callable[[Split, int | str], Iterator[Problem]]] = {
    "basic": problems,
    "harder": harder_problems,
}
LENGTHS: dict[Generator, tuple[int, ...]] = {"basic": tuple(STEPS), "harder": HARDER_STEPS}  # in steps


def _stream(draw: Callable[[random.Random], Problem | None], split: Split, seed: int | str) -> Iterator[Problem]:
    rng = random.Random(f"{split}-{seed}")
    while True:
        problem = draw(rng)
        if problem is not None and split_of(problem.structure) == split:
            yield problem
