"""Licences as the Hub knows them: an id of its list, or `other` with a name and a link."""

import difflib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from grpo_cot.common.files import read_yaml

LIST = "https://huggingface.co/docs/hub/repositories-licenses"


@cache
def _known() -> dict[str, Any]:
    known: dict[str, Any] = read_yaml(Path(__file__).with_name("licences.yaml"))
    return known


def full_name(licence: dict[str, Any]) -> str:
    """A recorded licence as a reader knows it: `Llama 3.2 Community License Agreement`, or its own name.

    >>> full_name({"id": "mit"}), full_name({"id": "other", "name": "qwen-research"})
    ('MIT', 'qwen-research')
    """
    return str(licence.get("name") or _known()["listed"][licence["id"]])


class Licence(BaseModel):
    """The licence of data. A text alone is its id; capitals are accepted, as in SPDX's ids (`Apache-2.0`)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    name: str | None = Field(default=None, min_length=1)  # of a licence that is not in the list, whose id is other
    link: str | None = Field(default=None, pattern=r"^https?://[^\s/]+\.\S+$")

    @model_validator(mode="before")
    @classmethod
    def _text_is_an_id(cls, value: Any) -> Any:
        if not isinstance(value, str | dict):
            raise ValueError("expected an id of the Hub's list, or a section with 'id'")
        return {"id": value} if isinstance(value, str) else value

    @field_validator("id")
    @classmethod
    def _listed(cls, value: str) -> str:
        listed: dict[str, str] = _known()["listed"]
        if value.lower() in listed:
            return value.lower()
        ids = {name.lower(): key for key, name in listed.items()} | {key: key for key in listed}
        close = difflib.get_close_matches(value.lower(), ids, n=1)
        hint = f"did you mean {ids[close[0]]!r}? O" if close else "o"
        raise ValueError(f"not a licence of the Hub's list ({LIST}); {hint}f any other give id: other, name and link")

    @model_validator(mode="after")
    def _named_when_not_listed(self) -> "Licence":
        if self.id == "other" and not self.name:
            raise ValueError("a licence with id 'other' needs its 'name'")
        if self.id != "other" and self.name:
            raise ValueError(f"the Hub has its own name for {self.id!r}: 'name' is for a licence with id 'other'")
        return self


class BaseLicence(Licence):
    """The licence of a base model, with what it asks of whoever publishes a model that was trained from it."""

    agreement: str | None = Field(default=None, pattern=r"^\w[\w.-]*$")  # the base's file with its text, to be copied
    notice: str | None = Field(default=None, min_length=1)  # the text of the file Notice
    display: str | None = Field(default=None, min_length=1)  # words to display, Built with Llama
    name_prefix: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")  # of the model's name

    @field_validator("name")
    @classmethod
    def _fit_for_a_card(cls, value: str | None) -> str | None:
        if value is not None and not all(c in "abcdefghijklmnopqrstuvwxyz0123456789.-" for c in value):
            raise ValueError("expected a name as the Hub's ids are: small letters, digits, points and hyphens")
        return value

    @field_validator("agreement")
    @classmethod
    def _not_a_file_of_ours(cls, value: str | None) -> str | None:
        if value in ("README.md", "Notice"):  # the card, and the notice's own file
            raise ValueError("expected the file that holds the agreement alone, such as LICENSE")
        return value

    @model_validator(mode="after")
    def _complete(self) -> "BaseLicence":
        if self.id == "other" and not self.link:
            raise ValueError("a licence with id 'other' needs the 'link' to its text, which the card gives")
        called = self.name if self.id == "other" else self.id
        for field, expected in _known()["terms"].get(called, {}).items():
            value = getattr(self, field)
            if field == "agreement" and not value:
                raise ValueError(f"{called} asks for a copy of its text: give 'agreement', the base's file with it")
            if field != "agreement" and value != expected:
                raise ValueError(f"{called} asks for {field}: {expected}")
        return self
