"""Rows of the training split that are held out for another purpose."""

import random
from collections import Counter

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.data.overlap import normalised
from grpo_cot.data.sources import HeldOut


def hold_out(rows: list[Row], field: str, purpose: str, held: HeldOut, name: str) -> tuple[list[Row], list[Row]]:
    """Training rows without those held out, and these: drawn among the rows whose text occurs once, in order.

    Args:
        rows: the training rows of the data set of that name.
        field: the one that holds a row's text.
        purpose: the split that the held-out rows become, for an error.
        held: how many, and the seed of the draw.

    Raises:
        InputError: no training row would be left.
    """
    texts = [normalised(row[field]) for row in rows]
    counts = Counter(texts)
    once = [position for position, text in enumerate(texts) if counts[text] == 1]
    if held.rows >= len(once):
        raise InputError(
            f"data set {name}: {purpose!r} holds out {held.rows} rows of {len(once)} different training {field}s; "
            "expected fewer"
        )
    positions = set(random.Random(held.seed).sample(once, held.rows))
    rest = [row for position, row in enumerate(rows) if position not in positions]
    return rest, [rows[position] for position in sorted(positions)]
