"""model.json: the trained model's files, and how to load them. Reading it needs no torch."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from grpo_cot.common.errors import validated
from grpo_cot.common.files import read_json
from grpo_cot.recipes.recipe import ModelSection


class ModelDescription(BaseModel):
    """model.json: the files of a training phase, and how to load them.

    `path` is relative to the file's folder, `base` to the repository's. `model` and `quantization` are the recipe's
    sections that training used: a model loaded otherwise is another model.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["adapter", "full"]
    architecture: Literal["causal", "seq2seq"]
    path: str
    base: str
    model: ModelSection
    quantization: dict[str, Any] | None


def read_description(model_json: Path) -> ModelDescription:
    """model.json's content.

    Raises:
        InputError: the file is missing or does not fit.
    """
    return validated(ModelDescription, read_json(model_json), model_json)
