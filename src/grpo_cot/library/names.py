"""What to say of a key that a library does not know."""

import difflib
from collections.abc import Iterable

from grpo_cot.common.errors import nearest

MOST_LISTED = 20  # more names in a sentence are no help


def hint(key: str, known: Iterable[str], owner: str) -> str:
    """The nearest name; where none is near, all of a few, and of many the nearest three and where the list stands.

    >>> names = [f"setting_{number}" for number in range(30)]
    >>> hint("rate", names, "trl.GRPOConfig")
    'expected a parameter of trl.GRPOConfig, whose documentation lists them'
    """
    names = sorted(known)
    if len(names) <= MOST_LISTED or difflib.get_close_matches(key, names, n=1):
        return nearest(key, names)
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.4)
    some = f" (nearest in spelling: {', '.join(map(repr, near))})" if near else ""
    return f"expected a parameter of {owner}, whose documentation lists them{some}"
