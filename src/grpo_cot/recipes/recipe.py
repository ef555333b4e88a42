"""Recipes (`experiments/NAME.yaml`): one complete file a recipe, no inheritance.

Every section is present in every recipe; one that does not apply is `null`. Sections that configure a library use that
library's own parameter names and are checked against it by `grpo_cot.library.settings`, which costs its import; this
module checks all the rest in milliseconds.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from grpo_cot.errors import validated
from grpo_cot.files import InputError, read_yaml
from grpo_cot.prompts import PromptSection

LibrarySettings = dict[str, Any]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # it becomes a folder's name and a word of a command


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, and text is never read as a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ModelSection(Section):
    """How the base is loaded, wherever it is loaded."""

    dtype: Literal["float32", "bfloat16", "float16"]
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"]
    threads: int = Field(
        gt=0
    )  # CPU threads of every step with weights: results depend on it, so the scheduler does not


class AuditSection(Section):
    """What the audit samples before training, and which broken rewards it lets pass."""

    allow: list[str]
    prompts: int = Field(gt=0)


class SamplesSection(Section):
    """Completions drawn from a model: of how many problems (null: of all), how many each, and how."""

    problems: int | None = Field(gt=0)
    count: int = Field(gt=1)
    sampling: LibrarySettings


class PhaseSection(Section):
    """What the phases share: `section` names the part that configures the method's trainer."""

    section: ClassVar[str]

    @property
    def settings(self) -> LibrarySettings:
        """The trainer's own settings."""
        settings: LibrarySettings = getattr(self, self.section)
        return settings


class OwnSamplesSection(SamplesSection):
    """What a phase draws from the model before it trains it; a batch's size decides what is drawn in it."""

    batch_size: int = Field(gt=0)


class RolloutsSection(Section):
    """How vLLM gets the weights that it samples with, and how far its log-probabilities may be from the trainer's.

    `merge`: the adapter merged into the base (TRL's way; only onto a base that is not quantized). `adapter`: it alone,
    as a LoRA request. `shared`: Unsloth's, one copy of the base for both. `log_probability_gap` is the largest
    mean absolute difference of a sampled token's log-probability, over a batch, that training goes on with.
    """

    sync: Literal["merge", "adapter", "shared"]
    log_probability_gap: float = Field(gt=0)


class GrpoPhase(PhaseSection):
    """Group relative policy optimisation on the recipe's rewards (Shao et al., 2024).

    `rollouts` is null where Transformers samples, and given with `grpo.use_vllm`.
    """

    section: ClassVar[str] = "grpo"

    method: Literal["grpo"]
    lora: LibrarySettings | None
    rollouts: RolloutsSection | None
    grpo: LibrarySettings


class SftPhase(PhaseSection):
    """Supervised fine-tuning on the data set's worked solutions, rewritten into the schema."""

    section: ClassVar[str] = "sft"

    method: Literal["sft"]
    lora: LibrarySettings | None
    sft: LibrarySettings


class RejectionSamplingPhase(PhaseSection):
    """Supervised fine-tuning on the model's own right completions (Yuan et al., 2023)."""

    section: ClassVar[str] = "sft"

    method: Literal["rejection_sampling"]
    lora: LibrarySettings | None
    samples: OwnSamplesSection
    sft: LibrarySettings


class DpoPhase(PhaseSection):
    """Direct preference optimisation on pairs of a right and a wrong completion of the model's own."""

    section: ClassVar[str] = "dpo"

    method: Literal["dpo"]
    lora: LibrarySettings | None
    samples: OwnSamplesSection
    dpo: LibrarySettings


class Seq2SeqPhase(PhaseSection):
    """Fine-tuning of an encoder-decoder, all of its weights, on the worked solutions in the schema."""

    section: ClassVar[str] = "seq2seq"

    method: Literal["seq2seq"]
    lora: None
    seq2seq: LibrarySettings


# One phase of training. `lora` of the first says what is trained (null: all weights); later ones continue it.
Phase = Annotated[
    GrpoPhase | SftPhase | RejectionSamplingPhase | DpoPhase | Seq2SeqPhase, Field(discriminator="method")
]


class CheckSection(Section):
    """Questions asked of the base and the trained model, side by side."""

    questions: list[str] = Field(min_length=1)
    sampling: LibrarySettings


class EvaluateSection(Section):
    """How both models answer the evaluation sets; `sample` takes that many problems of each set, drawn with `seed`.

    The first set is the main one: its figures stand first wherever figures stand.
    """

    sets: list[str] = Field(min_length=1)
    sample: int | None = Field(gt=0)
    seed: int
    engine: Literal["transformers", "vllm"]
    batch_size: int = Field(gt=0)
    sampling: LibrarySettings
    samples: SamplesSection | None  # for pass@k and majority@k, of each set's first problems


class MergeSection(Section):
    """The 16-bit model: which base the adapter is merged into, and the parity that it must keep."""

    base: Literal["dequantized", "original"]
    dtype: Literal["bfloat16", "float16"]
    prompts: int = Field(gt=0)
    new_tokens: int = Field(gt=0)
    token_agreement: float = Field(ge=0, le=1)  # at least this share of greedy tokens agrees
    logit_difference: float = Field(gt=0)  # at most this relative norm


class PublishSection(Section):
    """Where the result goes; without a repository it stays in a local folder in the Hub's layout."""

    repository: str | None = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    private: bool
    dry_run: bool
    accept_original_base: bool


class Recipe(Section):
    """A recipe file."""

    published_row: str | None  # the row of the published tables that a run's figures stand beside
    prompt: PromptSection
    rewards: dict[str, FiniteFloat]
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
    def _sections_agree(self) -> "Recipe":
        if len(set(self.evaluate.sets)) < len(self.evaluate.sets):
            raise ValueError("'evaluate.sets' names a set twice")
        if any(phase.method == "grpo" for phase in self.phases) and not any(self.rewards.values()):
            raise ValueError("'rewards' pays nothing: give at least one reward a weight other than 0")
        processes = 1 if self.accelerate is None else self.accelerate.get("num_processes")
        if type(processes) is not int or (self.accelerate is not None and processes < 2):
            raise ValueError(
                f"accelerate.num_processes is {processes!r}, expected a whole number above 1 (or null for the section)"
            )
        if unknown := set(self.audit.allow) - self.rewards.keys():
            raise ValueError(f"'audit.allow' names {sorted(unknown)[0]!r}, which 'rewards' does not list")
        for number, phase in enumerate(self.phases, start=1):
            where = f"phases.{number}"
            if phase.lora is None and number == 1 and self.quantization:
                raise ValueError(f"{where}.lora is null: a quantized base can only be trained through an adapter")
            if phase.lora is not None and number > 1:
                raise ValueError(f"{where}.lora must be null: a later phase continues what the first one trains")
            if phase.method == "grpo":
                _check_batch(phase.grpo, processes, f"{where}.grpo")
                _check_rollouts(self, phase, f"{where}.rollouts")
            if phase.method in ("rejection_sampling", "dpo") and self.accelerate is not None:
                raise ValueError(f"{where} draws samples from one copy of the model: 'accelerate' must be null")
        selecting = any(phase.settings.get("load_best_model_at_end") for phase in self.phases)
        if selecting and "validation" in self.evaluate.sets:
            raise ValueError("'evaluate.sets' reports 'validation', on which a phase chooses its checkpoint")
        if len({phase.method == "seq2seq" for phase in self.phases}) > 1:
            raise ValueError("'phases' mixes seq2seq with other methods, which train another kind of model")
        return self


def _check_batch(grpo: LibrarySettings, processes: int, where: str) -> None:
    """Refuse a batch that the groups do not divide, and checkpoints in the middle of a generation's reuse."""
    accumulation = grpo.get("gradient_accumulation_steps", 1)
    values = {
        "per_device_train_batch_size": grpo.get("per_device_train_batch_size"),
        "num_generations": grpo.get("num_generations"),
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": grpo.get("steps_per_generation", accumulation),
        "num_iterations": grpo.get("num_iterations", 1),
        "save_steps": grpo.get("save_steps", 500),
    }
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{where}.{name} is {value!r}, expected a whole number above 0")
    completions = values["per_device_train_batch_size"] * processes * values["steps_per_generation"]
    if completions % values["num_generations"]:
        factor = "accelerate.num_processes x " if processes > 1 else ""
        raise ValueError(
            f"{where}.num_generations is {values['num_generations']}, which does not divide the {completions} "
            f"completions of a step (per_device_train_batch_size x {factor}gradient_accumulation_steps)"
        )
    reuse = values["num_iterations"] * values["steps_per_generation"] // values["gradient_accumulation_steps"]
    if not reuse:
        raise ValueError(f"{where}.steps_per_generation is below gradient_accumulation_steps: no step would be whole")
    if grpo.get("save_strategy") != "no" and values["save_steps"] % reuse:
        raise ValueError(
            f"{where}.save_steps is {values['save_steps']}, no multiple of the {reuse} steps that share one "
            "generation: a resumed run would not repeat an uninterrupted one"
        )


def _check_rollouts(recipe: Recipe, phase: GrpoPhase, where: str) -> None:
    """Refuse a sync that would not give vLLM the trained model."""
    asked = bool(phase.grpo.get("use_vllm"))
    if asked != (phase.rollouts is not None):
        found, wanted = ("null", "give sync and log_probability_gap") if asked else ("given", "set it to null")
        raise ValueError(f"{where} is {found}, but grpo.use_vllm is {str(asked).lower()}; {wanted}")
    if phase.rollouts is None:
        return
    sync, mode = phase.rollouts.sync, phase.grpo.get("vllm_mode")
    if sync == "merge" and recipe.quantization:
        raise ValueError(
            f"{where}.sync is 'merge' on a quantized base: merging into 4 bits and back loses most of the adapter's "
            "effect, and moves the base; use 'adapter' (or 'shared' with the backend unsloth), or set quantization to "
            "null"
        )
    if (sync == "shared") != (recipe.backend == "unsloth"):
        other = "'shared'" if recipe.backend == "unsloth" else "'adapter' or 'merge'"
        raise ValueError(f"{where}.sync is {sync!r}, but the backend is {recipe.backend}; expected {other}")
    if sync != "merge" and mode != "colocate":
        raise ValueError(
            f"{where}.sync is {sync!r}, which needs vLLM in the trainer's own process: set grpo.vllm_mode to colocate, "
            "or sync to 'merge' on a base that is not quantized"
        )
    if sync != "merge" and recipe.phases[0].lora is None:
        raise ValueError(f"{where}.sync is {sync!r}, but phases.1.lora is null: there is no adapter; expected 'merge'")


Image = Literal["cpu", "cuda"]


class Run(Section):
    """One line of params.yaml's `runs`."""

    recipe: str
    dataset: str
    base: str
    image: Image
    seed: int


class Comparison(Section):
    """One line of params.yaml's `comparisons`: two runs, paired on the ids of their evaluation rows."""

    a: str
    b: str


class Params(Section):
    """params.yaml: what `dvc repro` builds. Each base has the image that it is fetched, drawn or pretrained in."""

    runs: dict[Name, Run]
    datasets: list[Name]
    bases: dict[Name, Image]
    comparisons: dict[Name, Comparison]


def load_recipe(path: Path) -> Recipe:
    """Read a recipe and check everything that needs no library.

    Raises:
        InputError: the file is missing, no YAML, or does not fit; the first problem is named.
    """
    return validated(Recipe, read_yaml(path), path)


def load_params(path: Path, root: Path) -> Params:
    """Read params.yaml, or another file of its form, and check that every name in it has its file under `root`.

    Raises:
        InputError: a run, data set, base model or comparison names something that does not exist.
    """
    params = validated(Params, read_yaml(path), path)
    for name, run in params.runs.items():
        for field, value, folder in (
            ("recipe", run.recipe, "experiments"),
            ("dataset", run.dataset, "sources/datasets"),
            ("base", run.base, "sources/bases"),
        ):
            file = root / folder / f"{value}.yaml"
            if not file.is_file():
                present = sorted(other.stem for other in (root / folder).glob("*.yaml"))
                raise InputError(
                    f"{path}: runs.{name}.{field} is {value!r}, but {folder}/{value}.yaml does not exist; "
                    f"expected one of: {', '.join(present)}"
                )
        for field, value, listed in (("dataset", run.dataset, params.datasets), ("base", run.base, params.bases)):
            if value not in listed:
                raise InputError(f"{path}: runs.{name}.{field} is {value!r}, which '{field}s' lacks; add it there")
    for field, names in (("datasets", params.datasets), ("bases", params.bases)):
        for value in names:
            if not (root / "sources" / field / f"{value}.yaml").is_file():
                raise InputError(f"{path}: '{field}' lists {value!r}, but sources/{field}/{value}.yaml does not exist")
    for name, comparison in params.comparisons.items():
        for field, run_name in (("a", comparison.a), ("b", comparison.b)):
            if run_name not in params.runs:
                raise InputError(f"{path}: comparisons.{name}.{field} is {run_name!r}, which 'runs' lacks")
    return params
