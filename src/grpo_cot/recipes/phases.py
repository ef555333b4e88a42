"""The phases of a recipe: a class for each training method, which names the section that configures its trainer.

`grpo_cot.training.methods` has a file for each, which trains it. A new method is a class here, its name in `Phase`,
such a file, and that file's line in `grpo_cot.training.methods.registry`.
"""

import importlib
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

LibrarySettings = dict[str, Any]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, and text is never read as a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SamplesSection(Section):
    """Completions drawn from a model: of how many problems (null: of all), how many each, and how."""

    problems: int | None = Field(gt=0)
    count: int = Field(gt=1, le=10_000)
    sampling: LibrarySettings


class OwnSamplesSection(SamplesSection):
    """Completions that a phase draws from the model before it trains it; a batch's size decides the draw."""

    batch_size: int = Field(gt=0)


class PassRatesSection(OwnSamplesSection):
    """The prompts that a phase trains on: those that the model it starts from answers rightly in a share of draws from
    `low` to `high`. Of `problems` prompts (null: all) `count` completions are drawn each.

    `order`: `easiest_first` trains in the order of falling pass rates (a curriculum), null in a random one.
    """

    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    order: Literal["easiest_first"] | None


class DynamicSamplingSection(Section):
    """Groups without an advantage are replaced by groups of other prompts, in at most `rounds` further draws a step."""

    rounds: int = Field(gt=0)


class RolloutsSection(Section):
    """How vLLM gets the weights that it samples with, and how far its log-probabilities may be from the trainer's.

    `merge`: the adapter merged into the base (TRL's way; only onto a base that is not quantized). `adapter`: it alone,
    as a LoRA request. `shared`: Unsloth's, one copy of the base for both. `log_probability_gap` is the largest
    mean absolute difference of a sampled token's log-probability, over a batch, that training goes on with.
    """

    sync: Literal["merge", "adapter", "shared"]
    log_probability_gap: float = Field(gt=0)


class ValidationSection(Section):
    """Problems of the validation split that GRPO answers at each of its trainer's evaluations (`grpo.eval_steps`).

    `problems` of them (null: all). Training stops after `patience` evaluations without a gain, and earlier where the
    accuracy, the length or the entropy collapses; null: it never stops by itself.
    """

    problems: int | None = Field(gt=0)
    patience: int | None = Field(gt=0)


class TrainerSection(Section):
    """What is trained with a library's trainer: a phase, or the reward model.

    `section` names the part that configures the trainer, and `configuration` the library's class of that part.
    `required`: the libraries' defaults change, so a recipe states these settings; of names in one group it states one.
    `selects`: whether a validation split can choose the checkpoint.
    """

    section: ClassVar[str]
    configuration: ClassVar[str]
    required: ClassVar[tuple[tuple[str, ...], ...]]
    selects: ClassVar[bool] = False

    @classmethod
    def configuration_class(cls) -> Any:
        """The library's class that the section configures; its library is imported only now."""
        module, _, name = cls.configuration.rpartition(".")
        return getattr(importlib.import_module(module), name)

    @property
    def settings(self) -> LibrarySettings:
        """The trainer's own settings."""
        settings: LibrarySettings = getattr(self, self.section)
        return settings

    @property
    def implied(self) -> LibrarySettings:
        """Settings of the trainer's that follow from other parts of the section."""
        return {}


class PhaseSection(TrainerSection):
    """The common part of the phases; `architecture`: of the models that the method trains."""

    architecture: ClassVar[Literal["causal", "seq2seq"]] = "causal"

    method: str
    lora: LibrarySettings | None

    @property
    def group_size(self) -> int | None:
        """On how many completions to one prompt the audit compares the rewards; None where the phase has none."""
        return None

    @property
    def own_samples(self) -> OwnSamplesSection | None:
        """How the phase draws the completions that it learns from, if it learns from the model's own."""
        return getattr(self, "samples", None)

    @property
    def draws(self) -> dict[str, OwnSamplesSection]:
        """The sections by which the phase draws completions from the model that it starts from, by their names."""
        sections = {name: getattr(self, name, None) for name in ("samples", "pass_rates")}
        return {name: section for name, section in sections.items() if section is not None}


class GrpoPhase(PhaseSection):
    """Group relative policy optimisation on the recipe's rewards (Shao et al., 2024).

    `rollouts` is null where Transformers samples, and given with `grpo.use_vllm`; `validation` is given with
    `grpo.eval_strategy`. `pass_rates` null trains on all prompts, and `dynamic_sampling` null on groups without an
    advantage too. Every `show_completions` steps a table of completions goes to the dashboards of `grpo.report_to`.
    """

    section = "grpo"
    configuration = "trl.GRPOConfig"
    required = (
        ("max_steps",), ("learning_rate",), ("max_completion_length",), ("beta",), ("loss_type",), ("scale_rewards",),
        ("temperature",),
    )  # fmt: skip
    selects = True

    method: Literal["grpo"]
    rollouts: RolloutsSection | None
    validation: ValidationSection | None = None
    pass_rates: PassRatesSection | None = None
    dynamic_sampling: DynamicSamplingSection | None = None
    show_completions: int | None = Field(default=None, gt=0)
    grpo: LibrarySettings

    @property
    def group_size(self) -> int:
        """The phase's own groups."""
        return int(self.grpo["num_generations"])

    def prompts_at_once(self, processes: int) -> int:
        """How many prompts are asked at once, by all processes together."""
        batches = self.grpo.get("steps_per_generation") or self.grpo.get("gradient_accumulation_steps", 1)
        return int(self.grpo["per_device_train_batch_size"] * batches * processes // self.group_size)

    @property
    def implied(self) -> LibrarySettings:
        """A problem of the validation split is answered once, where TRL would ask for a group of answers."""
        return {"num_generations_eval": 1} if self.validation else {}


class SftPhase(PhaseSection):
    """Supervised fine-tuning on the data set's worked solutions, rewritten into the schema."""

    section = "sft"
    configuration = "trl.SFTConfig"
    required = (("max_steps", "num_train_epochs"), ("learning_rate",), ("max_length",), ("loss_type",))
    selects = True

    method: Literal["sft"]
    sft: LibrarySettings


class RejectionSamplingPhase(SftPhase):
    """Supervised fine-tuning on the model's own right completions (Yuan et al., 2023)."""

    method: Literal["rejection_sampling"]  # type: ignore[assignment]  # the tag by which pydantic tells them apart
    samples: OwnSamplesSection


class DpoPhase(PhaseSection):
    """Direct preference optimisation, on pairs of a right and a wrong completion of the model's own, or with `samples`
    null on the pairs of the data set (`rows: preference`)."""

    section = "dpo"
    configuration = "trl.DPOConfig"
    required = (("max_steps", "num_train_epochs"), ("learning_rate",), ("max_length",), ("loss_type",), ("beta",))

    method: Literal["dpo"]
    samples: OwnSamplesSection | None
    dpo: LibrarySettings


class PpoPhase(PhaseSection):
    """Proximal policy optimisation (Schulman et al., 2017) on the recipe's rewards, with a value head on the policy.

    It trains without dropout, its adapter's too.
    """

    section = "ppo"
    configuration = "grpo_cot.recipes.ppo.PpoConfig"
    required = (
        ("max_steps", "num_train_epochs"), ("learning_rate",), ("batch_size",), ("ppo_epochs",),
        ("max_completion_length",), ("init_kl_coef",), ("temperature",),
    )  # fmt: skip

    method: Literal["ppo"]
    ppo: LibrarySettings

    @property
    def group_size(self) -> int:
        """PPO compares no completions to one prompt; where these never differ, no choice of the policy pays."""
        return 8


class Seq2SeqPhase(PhaseSection):
    """Fine-tuning of an encoder-decoder, all of its weights, on the worked solutions in the schema."""

    section = "seq2seq"
    configuration = "transformers.Seq2SeqTrainingArguments"
    required = (("max_steps", "num_train_epochs"), ("learning_rate",))
    selects = True
    architecture = "seq2seq"

    method: Literal["seq2seq"]
    lora: None
    seq2seq: LibrarySettings


# One phase of training. `lora` of the first says what is trained (null: all weights); later ones continue it.
Phase = Annotated[
    GrpoPhase | SftPhase | RejectionSamplingPhase | DpoPhase | PpoPhase | Seq2SeqPhase, Field(discriminator="method")
]
PHASES: tuple[type[PhaseSection], ...] = get_args(get_args(Phase)[0])
