"""Recipes (`experiments/NAME.yaml`): one complete file a recipe, no inheritance.

Every section is present in every recipe; one that does not apply is `null`. Sections that configure a library use that
library's own parameter names. This module says which keys there are and of which type. `grpo_cot.checks` says whether
a recipe can run.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, ValidationInfo, field_validator, model_validator

from grpo_cot.common.errors import validated
from grpo_cot.common.fields import Name, Seed, Text
from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.phases import LibrarySettings, Phase, SamplesSection, Section, TrainerSection


class Example(Section):
    """A worked exchange shown before the question (few-shot prompting)."""

    question: Text
    completion: Text


class PromptSection(Section):
    """How a question becomes a prompt, which shows all `examples` before it.

    For each k in `also_with` the step prepare also writes every evaluation set with the first k examples alone, as the
    set `SET-with-k`, and for `nothing` with the question alone, no system message and no example, as
    `SET-with-nothing`. `evaluate.sets` may name these sets.
    """

    system: str | None
    examples: list[Example]
    also_with: list[int | Literal["nothing"]]
    max_prompt_length: int = Field(gt=0)  # tokens, template included
    chat_template_kwargs: dict[str, Any]
    thinking: Literal["refuse", "strip"]  # of a <think> block before the answer

    @field_validator("also_with")
    @classmethod
    def _fewer(cls, counts: list[int | Literal["nothing"]], info: ValidationInfo) -> list[int | Literal["nothing"]]:
        if len(set(counts)) < len(counts):
            raise ValueError("names one twice")
        shown = len(info.data.get("examples", ()))
        if not all(count == "nothing" or 0 <= count < shown for count in counts):
            raise ValueError(f"expected 'nothing' and numbers from 0 on, below the number of examples ({shown})")
        if "nothing" in counts and info.data.get("system") is None and (not shown or 0 in counts):
            raise ValueError("names the question alone twice: without a system message 0 examples are nothing")
        return counts

    def variants(self, name: str) -> dict[str, "PromptSection"]:
        """The sets that are made of an evaluation set, with fewer examples: their names, and how they are asked.

        >>> section = {"system": None, "max_prompt_length": 9, "chat_template_kwargs": {}, "thinking": "refuse"}
        >>> examples = [{"question": "1 + 1?", "completion": "2"}] * 2
        >>> section = PromptSection.model_validate({**section, "examples": examples, "also_with": [0, 1]})
        >>> {name: len(variant.examples) for name, variant in section.variants("test").items()}
        {'test-with-0': 0, 'test-with-1': 1}
        """
        alone: dict[str, Any] = {"system": None, "examples": []}
        return {
            f"{name}-with-{count}": self.model_copy(
                update=alone if count == "nothing" else {"examples": self.examples[:count]}
            )
            for count in self.also_with
        }

    def questions_of(self, name: str) -> str:
        """The set of the data set whose questions a set of `evaluate.sets` asks: mostly itself."""
        ends = (f"-with-{count}" for count in self.also_with)
        return next((name.removesuffix(end) for end in ends if name.endswith(end)), name)


class ModelSection(Section):
    """How the base is loaded, wherever it is loaded."""

    dtype: Literal["float32", "bfloat16", "float16"]
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"]
    threads: int = Field(gt=0, le=1024)  # of the CPU, in every step with weights: results depend on them


class RewardModelSection(TrainerSection):
    """A classifier of texts, trained on the data set's labels before the phases, which `rewards` names `reward_model`.

    It starts from the second model of the base's source file (`scorer`) and reads `max_length` tokens with that one's
    tokenizer. `training` is Transformers' TrainingArguments.
    """

    section = "training"
    configuration = "transformers.TrainingArguments"
    required = (("max_steps", "num_train_epochs"), ("learning_rate",))
    selects = True

    max_length: int = Field(gt=0)
    training: LibrarySettings


class AuditSection(Section):
    """What the audit samples before training, and which broken rewards it lets pass."""

    allow: list[str]
    prompts: int = Field(gt=0)


class CheckSection(Section):
    """Questions asked of the base and the trained model, side by side."""

    questions: list[Text] = Field(min_length=1)
    sampling: LibrarySettings


class EvaluateSection(Section):
    """How both models answer the evaluation sets; `sample` takes that many problems of each set, drawn with `seed`.

    The first set is the main one: its figures stand first wherever figures stand. The trained model is compared with
    the one that the phase number `before` left, or with the base where that is null.
    """

    sets: list[Name] = Field(min_length=1)
    before: int | None = Field(gt=0)
    sample: int | None = Field(gt=0)
    seed: Seed
    engine: Literal["transformers", "vllm"]
    batch_size: int = Field(gt=0)
    sampling: LibrarySettings
    samples: SamplesSection | None  # for pass@k and majority@k, of each set's first problems

    @field_validator("sets")
    @classmethod
    def _distinct(cls, sets: list[str]) -> list[str]:
        if len(set(sets)) < len(sets):
            raise ValueError("names a set twice")
        return sets


class MergeSection(Section):
    """The merged model: which base the adapter is merged into, its type, and the texts that parity is measured on."""

    base: Literal["dequantized", "original"]
    dtype: Literal["bfloat16", "float16", "float32"]
    prompts: int = Field(gt=0)
    new_tokens: int = Field(gt=0)


class PublishSection(Section):
    """Where the result goes; without a repository it stays in a local folder in the Hub's layout.

    `overwrite`: push into a repository in which others have committed.
    """

    repository: str | None = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    private: bool
    dry_run: bool
    accept_original_base: bool
    overwrite: bool = False


class Recipe(Section):
    """A recipe file."""

    published_row: str | None  # the row of the published tables that a run's figures stand beside
    prompt: PromptSection
    rewards: dict[str, FiniteFloat]
    reward_model: RewardModelSection | None
    audit: AuditSection
    backend: Literal["transformers", "unsloth"]  # what trains: TRL on PEFT's and Transformers' classes, or on Unsloth's
    model: ModelSection
    quantization: LibrarySettings | None
    phases: list[Phase] = Field(min_length=1)
    accelerate: LibrarySettings | None
    check: CheckSection
    evaluate: EvaluateSection
    merge: MergeSection
    publish: PublishSection

    @model_validator(mode="after")
    def _main_set(self) -> "Recipe":
        main = self.evaluate.sets[0]
        if (whole := self.prompt.questions_of(main)) != main:
            raise ValueError(
                f"evaluate.sets begins with {main!r}, but the first set is the main one and is asked as training "
                f"asks, with all examples; name {whole!r} first"
            )
        return self

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.accelerate["num_processes"] if self.accelerate else 1


def load_recipe(path: Path, *sections: str) -> Recipe:
    """Read a recipe; with `sections`, the others are taken out of it.

    A step names the sections that dvc.yaml tracks for it. It cannot read another one: that attribute is not there.

    Raises:
        InputError: the file is missing, no YAML, or does not fit; the first problem is named.
    """
    recipe = validated(Recipe, read_yaml(path), path)
    for name in Recipe.model_fields.keys() - set(sections) if sections else ():
        delattr(recipe, name)
    return recipe
