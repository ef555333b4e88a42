"""Kinds of values that several files have in common."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

# numpy takes no negative seed and none of more than 32 bits; processes and batches add small numbers to it.
Seed = Annotated[int, Field(ge=0, lt=2**31)]
# What becomes a folder's or a file's name and a word of a command.
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _repository(value: str) -> str:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    # The library `datasets` would read a folder of that name here, whatever commit is asked for.
    if value.startswith(("/", ".", "~")) or Path(value).is_dir():
        raise ValueError(
            "names a folder; expected a repository on the Hub, OWNER/NAME (files of this machine have another kind)"
        )
    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise ValueError(f"the Hub has no such name; expected OWNER/NAME ({str(error).split(': ')[0]})") from None
    return value


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("expected text that is not blank")
    return value


Text = Annotated[str, AfterValidator(_text)]
Repository = Annotated[str, AfterValidator(_repository)]
