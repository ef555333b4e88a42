"""Kinds of values that several files have in common."""

from typing import Annotated

from pydantic import AfterValidator, Field

# numpy takes no negative seed and none of more than 32 bits; processes and batches add small numbers to it.
Seed = Annotated[int, Field(ge=0, lt=2**31)]
# What becomes a folder's or a file's name and a word of a command.
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("expected text that is not blank")
    return value


Text = Annotated[str, AfterValidator(_text)]
