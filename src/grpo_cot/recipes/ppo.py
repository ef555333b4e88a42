"""The settings of a PPO phase. No library that is still maintained has such a class; the names are those of TRL's last
one for texts (0.11), where it had them."""

from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments


@dataclass
class PpoConfig(TrainingArguments):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Transformers' TrainingArguments, and what PPO adds.

    A step is a step of the optimiser, on `per_device_train_batch_size` x `gradient_accumulation_steps` completions
    (TRL's `mini_batch_size` is the first factor). `ppo_epochs` x `batch_size` / that many steps share one rollout.

    Raises:
        ValueError: the sizes do not divide each other, or a resumed run could not repeat an uninterrupted one.
    """

    batch_size: int = field(default=128, metadata={"help": "Completions of a rollout, one to each prompt."})
    ppo_epochs: int = field(default=4, metadata={"help": "How often each completion of a rollout is learnt from."})
    max_completion_length: int = field(default=256, metadata={"help": "Tokens of a completion, at most."})
    temperature: float = field(default=1.0, metadata={"help": "Of sampling, and of the log-probabilities as well."})
    generation_kwargs: dict[str, Any] | None = field(
        default=None, metadata={"help": "Other parameters of GenerationConfig. What cuts off tokens biases the KL."}
    )
    init_kl_coef: float = field(
        default=0.2, metadata={"help": "The KL's first coefficient. With 0 there is no reference, and no KL is known."}
    )
    adap_kl_ctrl: bool = field(default=True, metadata={"help": "Whether the coefficient follows the KL."})
    target: float = field(default=6.0, metadata={"help": "The KL of a completion, in nats, that it aims at."})
    horizon: float = field(default=10_000.0, metadata={"help": "Completions over which it adapts."})
    kl_penalty: Literal["kl", "abs", "mse"] = field(
        default="kl", metadata={"help": "How the KL of a token is estimated."}
    )
    gamma: float = field(default=1.0, metadata={"help": "Discount of a later token's reward."})
    lam: float = field(default=0.95, metadata={"help": "Discount of a later token's surprise in the advantages."})
    cliprange: float = field(default=0.2, metadata={"help": "How far the ratio to the old policy pays off."})
    cliprange_value: float = field(default=0.2, metadata={"help": "How far a change of a value pays off."})
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the values' loss."})
    whiten_rewards: bool = field(default=False, metadata={"help": "Whether tokens' rewards get variance 1."})
    score_clip: float | None = field(default=None, metadata={"help": "Scores beyond it count as it, either way."})
    ratio_threshold: float = field(
        default=10.0, metadata={"help": "A batch whose mean ratio to the old policy is above it teaches nothing."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Rewards read the rows' other columns."})

    def __post_init__(self) -> None:
        """Check the sizes against each other."""
        super().__post_init__()
        if self.batch_size % self.step_size:
            raise ValueError(
                f"batch_size is {self.batch_size}, no multiple of the {self.step_size} completions of a step "
                "(per_device_train_batch_size x gradient_accumulation_steps)"
            )
        if self.adap_kl_ctrl and self.horizon < 5 * self.batch_size:
            raise ValueError(
                f"horizon is {self.horizon:g}, less than five times the batch_size {self.batch_size}: one rollout "
                "could turn the KL's coefficient negative"
            )
        if self.save_strategy == "no":
            return
        for name, part in (("steps that share one rollout", self.rollout_steps), ("logging_steps", self.logging_steps)):
            if self.save_steps % part:
                raise ValueError(
                    f"save_steps is {self.save_steps:g}, no multiple of the {part:g} {name}: a resumed run would not "
                    "repeat an uninterrupted one"
                )

    @property
    def step_size(self) -> int:
        """Completions of a step of the optimiser."""
        return int(self.per_device_train_batch_size * self.gradient_accumulation_steps)

    @property
    def rollout_steps(self) -> int:
        """Steps of the optimiser that share one rollout."""
        return self.ppo_epochs * self.batch_size // self.step_size
