"""The promise of a reward: what it pays for, in a form that the audit can hold it to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

# Properties of the audit's golden completions. `strict`, `soft`: the schema with and without its line breaks. `tags`:
# each tag once and in order, around sections that say something, and nothing after the last. `integer`: a whole number
# in the schema. `correct`: the gold's value in the only `<answer>` pair, wherever it stands. `correct_in_schema`: the
# same, and the whole completion follows the schema. `nothing`: a placebo.
Property = Literal["strict", "soft", "tags", "integer", "correct", "correct_in_schema", "nothing"]
Reward = Callable[..., Sequence[float | None]]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Promise:
    """What a reward pays for: a property of golden completions, or completions of its author's own.

    `pays` and `never` are completions to a problem whose gold answer is 18. `in_parts`: less than the largest amount
    counts as not paid.
    """

    property: Property | None
    pays: tuple[str, ...]
    never: tuple[str, ...]
    in_parts: bool


def promises(
    what: Property | None = None, *, pays: Sequence[str] = (), never: Sequence[str] = (), in_parts: bool = False
) -> Callable[[Function], Function]:
    """Put a promise beside a reward (decorator): a property's name, or completions that it pays and never pays.

    Raises:
        ValueError: neither is given, or completions of one side alone, which any reward would keep.
    """
    if (what is None) == (not pays or not never):
        raise ValueError("a promise is the name of a property, or both `pays` and `never` with completions")

    def decorate(function: Function) -> Function:
        function.promise = Promise(what, tuple(pays), tuple(never), in_parts)  # type: ignore[attr-defined]
        return function

    return decorate


def promise_of(reward: Reward) -> Promise | None:
    """A reward's promise; None where it makes none."""
    return getattr(reward, "promise", None)
