"""How the harder problems are told: sentences by what they do to the value of a story.

The letters a to d and p stand for the numbers told, `v` for the value; {who} and {whom} become {name} and {other}.
"""

from typing import NamedTuple


class Setting(NamedTuple):
    """What a story is about: sentences by what they do to the value `v`, in letters for the numbers that they tell."""

    openings: dict[str, tuple[str, ...]]
    events: dict[str, tuple[str, ...]]
    questions: dict[str, tuple[str, ...]]


COUNTS = (
    "How many {items} does {name} have now?",
    "How many {items} are there in the end?",
    "What is the number of {items} now?",
)
STOCK = Setting(
    {
        "a": (
            "{name} has {a} {items}.",
            "{name} starts the week with {a} {items}.",
            "There are {a} {items} in the shop of {name}.",
        ),
        "a*b": (
            "{name} has {a} boxes with {b} {items} in each.",
            "There are {a} shelves in the shop of {name}, and each holds {b} {items}.",
        ),
        "a*b*c": ("{name} has {a} crates; every crate holds {b} boxes of {c} {items}.",),
    },
    {
        "+a": (
            "{name} buys {a} more {items}.",
            "A friend gives {name} {a} {items}.",
            "A truck brings {a} more {items}.",
        ),
        "-a": ("{name} gives away {a} {items}.", "{name} sells {a} of the {items}.", "Then {a} {items} are lost."),
        "*a": (
            "Then the number of {items} grows to {a} times what it was.",
            "Soon there are {a} times as many {items}.",
        ),
        "/a": (
            "{name} divides the {items} into {a} equal parts and keeps one.",
            "The {items} are shared equally by {a} people, and {name} is one of them.",
        ),
        "+a*b": ("{name} buys {a} packs of {b} {items} each.", "Then {a} friends bring {b} {items} each."),
        "-a*b": ("{name} gives {b} {items} to each of {a} friends.", "{name} sells {a} bags of {b} {items} each."),
        "+p%": ("Then the number of {items} grows by {p}%.",),
        "-p%": ("Then {p}% of the {items} are lost.", "{name} sells {p}% of the {items}."),
    },
    {"v": COUNTS},
)
FACTORY = Setting(
    {
        "a*b": (
            "A machine of {name} makes {b} {items} a minute and runs for {a} minutes.",
            "{name} makes {b} {items} a day for {a} days.",
        ),
        "a*b*c": ("{name} has {a} machines, and each makes {c} {items} an hour for {b} hours.",),
        "a*b+c*d": (
            "One machine makes {b} {items} an hour for {a} hours, and another {d} {items} an hour for {c} hours.",
        ),
    },
    {
        "+a": ("{name} adds {a} {items} from the store.", "Another {a} {items} are made by hand."),
        "-a": ("Of the {items}, {a} are broken and thrown away.", "A buyer takes {a} {items}."),
        "*a": ("With new machines, {name} makes {a} times as many instead.",),
        "/a": ("The {items} go to {a} shops in equal parts, and we look at one shop.",),
        "+a*b": ("Then {a} trucks bring {b} {items} each.",),
        "-a*b": ("Then {a} trucks take away {b} {items} each.",),
        "-p%": ("Of the {items}, {p}% fail the test and are thrown away.",),
    },
    {"v": ("How many {items} are left?", "How many {items} are there in the end?")},
)
WAGES = Setting(
    {
        "a*b": (
            "{name} works {a} hours for {b} dollars an hour.",
            "{name} earns {b} dollars a day and works {a} days.",
        ),
        "a*b*c": ("{name} works {a} days, {b} hours a day, for {c} dollars an hour.",),
        "a*b+c*d": ("{name} works {a} hours for {b} dollars an hour, and {c} hours for {d} dollars an hour.",),
    },
    {
        "+a": ("{name} gets {a} dollars more as a gift.", "A bonus of {a} dollars is added."),
        "-a": ("{name} pays a rent of {a} dollars.", "{name} spends {a} dollars on food."),
        "/a": ("The money is shared equally by {a} people, and {name} is one of them.",),
        "+a*b": ("{name} sells {a} {items} for {b} dollars each.",),
        "-a*b": ("{name} buys {a} {items} for {b} dollars each.",),
        "+p%": ("In the bank, the money of {name} grows by {p}%.",),
        "-p%": ("{name} pays {p}% of the money as tax.", "{name} gives {p}% of the money to a friend."),
    },
    {"v": ("How many dollars does {name} have left?", "How much money does {name} have now, in dollars?")},
)
SHOP = Setting(
    {
        "a*b": (
            "{name} orders {a} {items} for {b} dollars each.",
            "The price of {a} {items} at {b} dollars each is due.",
        ),
        "a*b+c*d": ("{name} orders {a} {items} for {b} dollars each and {c} bags for {d} dollars each.",),
    },
    {
        "+a": ("The delivery costs {a} dollars more.", "A fee of {a} dollars is added."),
        "-a": ("A coupon takes {a} dollars off.",),
        "*a": ("The whole order is made {a} times.",),
        "/a": ("The price is shared equally by {a} people, and {name} is one of them.",),
        "+a*b": ("{name} adds {a} ribbons for {b} dollars each.",),
        "+p%": ("A tax of {p}% is added.",),
        "-p%": ("The shop takes {p}% off the price.",),
    },
    {
        "v": ("How many dollars does {name} pay?", "What is the price for {name} in the end, in dollars?"),
        "a-v": ("{name} pays with {a} dollars. How many dollars does {name} get back?",),
    },
)
JOURNEY = Setting(
    {
        "a*b": ("{name} drives {a} hours at {b} miles an hour.", "{name} rides {b} miles a day for {a} days."),
        "a*b+c*d": ("{name} drives {a} hours at {b} miles an hour, and {c} hours at {d} miles an hour.",),
    },
    {
        "+a": ("Then {name} goes {a} miles more.",),
        "*a": ("{name} makes this trip {a} times.",),
        "+a*b": ("Then a train takes {name} along for {a} hours at {b} miles an hour.",),
    },
    {
        "v": ("How many miles does {name} travel in all?",),
        "a-v": ("The whole way is {a} miles long. How many miles are left?",),
    },
)
SETTINGS = (STOCK, FACTORY, WAGES, SHOP, JOURNEY)
PAIR = "pair"  # the sixth kind of story: two people, and what they have together or the one more than the other
RELATIONS = {
    "+": ("{whom} has {a} more {items} than {who}.",),
    "-": ("{whom} has {a} fewer {items} than {who}.",),
    "*": ("{whom} has {a} times as many {items} as {who}.",),
    "/": ("{who} has {a} times as many {items} as {whom}.",),
}
TRANSFERS = ("{who} gives {a} {items} to {whom}.", "Then {whom} gets {a} {items} from {who}.")
PAIR_EVENTS = {
    "+": ("{who} buys {a} more {items}.", "Then {who} finds {a} {items}."),
    "-": ("{who} loses {a} {items}.", "{who} sells {a} {items}."),
    "*": ("Soon {who} has {a} times as many {items} as before.",),
}
TOGETHER = ("How many {items} do {name} and {other} have together?", "How many {items} is that for the two of them?")
DIFFERENCE = ("How many more {items} does {who} have than {whom}?",)
