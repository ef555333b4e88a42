"""A file in `sources/bases/`: a base model, and the origin of one that is made here.

Six kinds: `embedded` (a folder of the repository), `folder` (one elsewhere on this machine), `hub` (a repository at a
commit), `gguf` (a GGUF file, from a package of the package index or from this machine), `scratch` (random weights) and
`pretrained` (random weights, trained in the pipeline on generated problems). A base may bring a second model, the
`scorer` that a reward model starts from.
"""

import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from grpo_cot.common.fields import Name, Seed, Sha256, Text
from grpo_cot.hub.licences import BaseLicence, Licence
from grpo_cot.hub.names import RepositoryId
from grpo_cot.problems.generators import LENGTHS, Generator

LibrarySettings = dict[str, Any]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Tokenizer(_Section):
    """The tokenizer of a base model that is made from scratch: an embedded folder, or a Hub repository at a commit."""

    path: Text | None = None
    id: RepositoryId | None = None
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")

    @model_validator(mode="after")
    def _one_place(self) -> "Tokenizer":
        if bool(self.path) == bool(self.id and self.revision):
            raise ValueError("a tokenizer needs 'path', or 'id' and 'revision' (a commit, so that it cannot change)")
        return self


class Wheel(_Section):
    """A package of the package index, as the one file that pip would install, of which no code ever runs."""

    package: str = Field(pattern=r"^[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?$")
    version: str = Field(pattern=r"^[A-Za-z0-9][\w.+!-]*$")
    sha256: Sha256


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or path.suffix != ".gguf":
        raise ValueError("expected the path of a .gguf file within its wheel or folder")
    return value


class GgufFile(_Section):
    """A GGUF file: its path within the wheel or the folder, and its sha256."""

    path: Annotated[str, AfterValidator(_inside)]
    sha256: Sha256


class Tokens(_Section):
    """Special tokens that a base names wrongly or not at all: the one that ends a turn, and the one that pads."""

    eos: Text | None = None
    pad: Text | None = None

    @model_validator(mode="after")
    def _one_at_least(self) -> "Tokens":
        if self.eos is None and self.pad is None:
            raise ValueError("names neither 'eos' nor 'pad'")
        return self


class Styles(_Section):
    """The shares of the styles of the corpus's answers; the four add up to 1.

    `schema_steps`: the schema, with the steps as reasoning. `schema_guess`: the schema, with a phrase in their place.
    `steps`: the steps and the answer in a sentence. `bare`: the number alone.
    """

    schema_steps: float = Field(ge=0)
    schema_guess: float = Field(ge=0)
    steps: float = Field(ge=0)
    bare: float = Field(ge=0)

    @model_validator(mode="after")
    def _shares(self) -> "Styles":
        total = sum(self.model_dump().values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the four styles add up to {total:g}, expected 1")
        return self


class Pretraining(_Section):
    """How a base of kind `pretrained` is trained: on an endless stream of problems, answered in a mixture of styles.

    The mixture makes it a base: it can do the task, and does not know which style pays. `styles` goes by a problem's
    number of steps and holds under the schema's system prompt, which `system_prompt` of the examples carry;
    `earlier_exchange` of them show one more problem, answered in the same style, first. Every `save_steps` a checkpoint
    is kept, from which an interrupted training goes on.
    """

    problems: Generator
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)  # the highest: warmed up linearly, then down to 0 along a cosine
    warmup_steps: int = Field(ge=0)
    adam_beta2: float = Field(gt=0, lt=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    save_steps: int = Field(gt=0, multiple_of=10)  # as often as the loss is logged, or a multiple of it
    system_prompt: float = Field(ge=0, le=1)
    earlier_exchange: float = Field(ge=0, le=1)
    styles: dict[int, Styles]
    styles_without_system_prompt: Styles

    @model_validator(mode="after")
    def _every_length(self) -> "Pretraining":
        if set(self.styles) != set(LENGTHS[self.problems]):
            expected = ", ".join(map(str, LENGTHS[self.problems]))
            raise ValueError(
                f"'styles' is given for {', '.join(map(str, sorted(self.styles))) or 'nothing'}, expected one for each "
                f"number of steps of the {self.problems} problems: {expected}"
            )
        return self


class Source(_Section):
    """A model's place of origin.

    `embedded`: a folder of the repository. `folder`: one in the Hub's layout outside it (or in it, and not in git).
    `hub`: a repository at a commit. A folder is named by its path (`folder`) or by an environment variable that holds
    it (`folder_variable`). `scratch`: random weights, drawn with `seed` into the architecture that `config` describes
    in Transformers' own words (`model_type` and its sizes).

    `sha256` pins files; on the Hub the commit pins them already, and then it may name only some. `shape` is the sizes
    that a plan needs before anything is fetched, in the words of `config`: of a model from elsewhere all of them, of
    one made here the size of its tokenizer's vocabulary.
    """

    kind: str
    path: Text | None = None
    folder: Text | None = None
    folder_variable: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*$")
    id: RepositoryId | None = None
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    tokenizer: Tokenizer | None = None
    config: LibrarySettings | None = None
    seed: Seed | None = None
    shape: LibrarySettings | None = None
    licence: Licence
    sha256: dict[Name, Sha256] = {}

    @model_validator(mode="after")
    def _place_fits_kind(self) -> "Source":
        scratch = ("tokenizer", "config", "seed")
        needed = {
            "embedded": ("path", "sha256"), "folder": ("sha256",), "hub": ("id", "revision"), "gguf": ("file",),
            "scratch": scratch, "pretrained": (*scratch, "pretraining"),
        }  # fmt: skip
        places = {"folder": {"folder", "folder_variable"}, "gguf": {"folder", "folder_variable", "wheel"}}
        own = places.get(self.kind, set())
        given = {name for name, value in self if value not in (None, {})}
        for field in needed[self.kind]:
            if field not in given:
                because = " (a commit, so that it cannot change)" if field == "revision" else ""
                raise ValueError(f"a base of kind {self.kind!r} needs {field!r}{because}")
        if own and len(named := sorted(own & given)) != 1:
            names = " or ".join(map(repr, sorted(own)))
            found = f"found {' and '.join(map(repr, named))}" if named else "found none"
            raise ValueError(f"a base of kind {self.kind!r} needs one of {names}, {found}")
        if self.tokenizer and self.tokenizer.path and not self.sha256:
            raise ValueError("a tokenizer in the repository needs 'sha256', by which a change of it is noticed")
        if self.kind == "gguf" and self.sha256:
            raise ValueError("a base of kind 'gguf' has no 'sha256' of its own: 'file' and 'wheel' have one each")
        others = {field for fields in (*needed.values(), *places.values()) for field in fields} - {"sha256"}
        present = {name for name, value in self if value is not None}
        if foreign := sorted((others - own - {*needed[self.kind]}) & present):
            raise ValueError(f"a base of kind {self.kind!r} has no {foreign[0]!r}")
        if self.kind == "embedded" and self.shape is not None:
            raise ValueError("a base of kind 'embedded' has no 'shape': its config.json is there")
        return self


class Scorer(Source):
    """The model that a reward model starts from: an encoder of texts, or a decoder, without the layer that classifies.

    It needs no chat template, and its tokenizer is its own.
    """

    kind: Literal["embedded", "folder", "hub", "scratch"]


class Base(Source):
    """A base model's source file.

    The kinds of a source, and two more. `gguf`: a `file`, in a `wheel` or a folder, dequantized to bfloat16.
    `pretrained`: as `scratch`, then trained as `pretraining` says on a stream that `seed` decides as well.

    `tokens` and `chat_template` take the place of what the base brings. `licence` is of what is trained from the base
    as well, with what it asks of whoever publishes that. `scorer` is the model that a recipe's reward model starts
    from.
    """

    kind: Literal["embedded", "folder", "hub", "gguf", "scratch", "pretrained"]
    wheel: Wheel | None = None
    file: GgufFile | None = None
    pretraining: Pretraining | None = None
    tokens: Tokens | None = None
    chat_template: Text | None = None
    scorer: Scorer | None = None
    licence: BaseLicence

    @model_validator(mode="after")
    def _agreement_fits_kind(self) -> "Base":
        if self.licence.agreement and self.kind not in ("embedded", "folder", "hub"):
            raise ValueError(f"a base of kind {self.kind!r} has no file 'licence.agreement'")
        return self


def files_here(source: Source, root: Path) -> Path | None:
    """The folder of this machine that holds a model's files in the Hub's layout, where it is there.

    `root` is the repository's folder, to which paths in a source file are relative.
    """
    place = source.path
    if source.kind == "folder":
        place = os.environ.get(source.folder_variable, "") if source.folder_variable else source.folder
    return root / place if place and (root / place).is_dir() else None
