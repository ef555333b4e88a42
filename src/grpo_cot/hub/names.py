"""Names that the Hub accepts for repositories."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

PARTS = ("adapter", "merged")  # of a published model, each a repository of its own, OWNER/NAME-PART


def _refusal(name: str) -> str | None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return (
            "a name on the Hub has 1 to 96 letters (a to z), digits, '-', '_' or '.', none of '-' and '.' at its start "
            "or end, no '--' or '..', and no '.git' at its end"
        )
    return None


def _repository_id(value: str) -> str:
    # The library `datasets` would read a folder of that name here, whatever commit is asked for.
    if value.startswith(("/", ".", "~")) or Path(value).is_dir():
        raise ValueError(
            "names a folder; expected a repository on the Hub, OWNER/NAME (files of this machine have another kind)"
        )
    if refusal := _refusal(value):
        raise ValueError(f"not the id of a repository on the Hub, OWNER/NAME: {refusal}")
    return value


RepositoryId = Annotated[str, AfterValidator(_repository_id)]


def refused_repository(repository: str, prefix: str | None) -> str | None:
    """Why the Hub, or the base's licence, does not allow a model's parts to be called `REPOSITORY-PART`, or None.

    Args:
        repository: OWNER/NAME.
        prefix: How the licence asks the model's name to begin.

    >>> refused_repository("me/model", "Llama-")
    "the base's licence asks for a name that begins with 'Llama-', such as 'me/Llama-model'"
    """
    owner, _, name = repository.partition("/")
    for part in PARTS:
        if refusal := _refusal(f"{repository}-{part}"):
            return f"the part {part!r} would be {f'{repository}-{part}'!r}, but {refusal}"
    if prefix and not name.startswith(prefix):
        return f"the base's licence asks for a name that begins with {prefix!r}, such as '{owner}/{prefix}{name}'"
    return None
