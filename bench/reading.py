"""Speed of the graders' readers on one core, and how their time grows with the length of hostile text.

Run it as `python bench/reading.py`. The first lines say how many completions of about 150 tokens a second are graded
as step grade does it: strict, lenient and numeric answer, and two comparisons with the gold. The table then doubles
the length of hostile texts: `growth` is the time at the last length over that at half of it, 2 where time is linear.
The lenient reader reads the end of a completion only, so that its time stops growing.
"""

import random
import time
from collections.abc import Callable

from grpo_cot.answers import same_answer, stated_value
from grpo_cot.grading.lenient import lenient_answer
from grpo_cot.numbers import numeric_value
from grpo_cot.schema import strict_answer, worked

COMPLETIONS = 5_000
REPEATS = 3
LENGTHS = (2_500, 5_000, 10_000, 20_000, 40_000, 80_000)
Read = Callable[[str], object]


def completions() -> dict[str, list[str]]:
    """Completions of about 600 characters by where their answer stands; the Vietnamese ones in that notation."""
    rng = random.Random(0)
    kinds: dict[str, list[str]] = {"schema": [], "####": [], "final statement": [], "Vietnamese": []}
    for _ in range(COMPLETIONS):
        steps = "\n".join(f"Then there are {rng.randint(1, 99)} + {rng.randint(1, 99)} apples." for _ in range(18))
        answer = rng.choice(("14", "$1,234", "-5", "18.0", "15 apples"))
        kinds["schema"].append(worked(steps, answer))
        kinds["####"].append(f"{steps}\n#### {answer}")
        kinds["final statement"].append(f"{steps}\nSo after 3 days, she has 12 + 2 = 14 apples for {answer}.")
        steps = "\n".join(f"Vậy có {rng.randint(1, 99)} + {rng.randint(1, 99)} quả táo." for _ in range(22))
        kinds["Vietnamese"].append(f"{steps}\nDo đó, số tiền còn lại sau 3 ngày là 70.000 đô la.")
    return kinds


def grade(completion: str, locale: str) -> None:
    """What step grade reads of one completion."""
    strict, lenient = strict_answer(completion), lenient_answer(completion, locale)
    if lenient is not None:
        stated_value(lenient, locale)
    same_answer(strict, "14", locale)
    same_answer(lenient, "14", locale)


def seconds(read: Read, text: str) -> float:
    """The best of several times, which is the one that other processes disturbed least."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        read(text)
        times.append(time.perf_counter() - start)
    return min(times)


def grading_seconds(texts: list[str], locale: str) -> float:
    """Seconds to read them all."""

    def read_all(_: str) -> None:
        for text in texts:
            grade(text, locale)

    return seconds(read_all, "")


READERS: dict[str, Read] = {
    "strict": strict_answer,
    "lenient, en": lenient_answer,
    "lenient, vi": lambda text: lenient_answer(text, "vi"),
    "numeric": numeric_value,
    "stated": stated_value,
    "stated, vi": lambda text: stated_value(text, "vi"),
    "same": lambda text: same_answer(text, text),
}
HOSTILE = (  # repeated to the length, between a start and an end that leave every pattern hoping until the end
    *(
        "<reasoning>",
        "</reasoning>",
        "<answer>",
        "<answer>1 ",
        "####",
        "#### 1. x ",
        "\\boxed{",
        "\\frac{1}",
        "\\text{1",
    ),
    *(
        "answer ",
        "answer is 1 or 2 ",
        "kết quả là 1 ",
        "wait ",
        "Q:\n",
        "\nq",
        "**",
        "*",
        "_",
        "`",
        "<<",
        "$",
        "-",
        "=",
    ),
    *(
        "1",
        "1,",
        "1.",
        ".1",
        "1,234,",
        "1 ",
        "1/",
        "1 1/",
        "1+",
        "1 x ",
        "1e",
        "1=",
        "x=1,",
        "x = 1 and ",
        "is 1 ",
        " (1",
    ),
    *(
        " (1+1)",
        "so 1, ",
        ", so ",
        "nên 1 ",
        "để ",
        "after ",
        "in 1, ",
        "because ",
        "not ",
        " ",
        "\n",
        ". ",
        "(",
        "}",
        "^2",
    ),
    *("1x10^", "1\u00d710\u00b2", "\uff11", "\u0661", "\u00bd", "a\u0301", "\ud800", "\u0130", "\U0001d7d8", "là 1 "),
)
ENDS = (("", ""), ("<reasoning>\n", "\n</answer>"), ("The answer is ", "st"), ("So in 1 ", " x1 ="), ("1 ", "th )"))


def main() -> None:
    """Print the speed and the table."""
    for kind, texts in completions().items():
        each = grading_seconds(texts, "vi" if kind == "Vietnamese" else "en") / len(texts)
        print(f"{kind:24}{1 / each:>10,.0f} completions/s{1e6 * each:>8.1f} microseconds each")
    print(f"\n{'ms, worst hostile text':24}" + "".join(f"{length:>9,}" for length in LENGTHS) + "   growth  text")
    for name, read in READERS.items():
        tables = {}
        for unit in HOSTILE:
            for start, end in ENDS:
                tables[start, unit, end] = [
                    seconds(read, start + unit * (length // len(unit)) + end) for length in LENGTHS
                ]
        worst = max(tables, key=lambda key: tables[key][-1])
        growth = tables[worst][-1] / tables[worst][-2]
        print(f"{name:24}" + "".join(f"{1000 * t:>9.2f}" for t in tables[worst]) + f"{growth:>9.1f}  {worst}")


if __name__ == "__main__":
    main()
