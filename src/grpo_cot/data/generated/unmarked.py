"""Pairs of a worked answer in the schema and the same answer outside it: what they teach is the form alone.

The answer outside the schema is the steps with a sentence, or the number alone; both are right.
"""

import random
from collections.abc import Iterator

from grpo_cot.data.generated.slips import Pair
from grpo_cot.problems.generators import GENERATORS, Generator, Split
from grpo_cot.schema import worked


def unmarked_pairs(problems: Generator, split: Split, seed: int | str) -> Iterator[Pair]:
    """An endless stream of pairs, one a problem; the same seed gives the same stream."""
    rng = random.Random(f"unmarked-{problems}-{split}-{seed}")
    for problem in GENERATORS[problems](split, seed):
        steps, number = "\n".join(problem.steps), str(problem.value)
        rejected = rng.choice((f"{steps}\nThe answer is {number}.", number))
        yield Pair(problem.question, worked(steps, number), rejected, number, None)
