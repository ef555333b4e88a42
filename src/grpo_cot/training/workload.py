"""What decides the memory that a phase of training needs: the largest batch that it ever holds, and its optimiser."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.phases import OwnSamplesSection, Phase, TrainerSection
from grpo_cot.recipes.recipe import Recipe

USABLE = 0.9  # of a card: the allocator's fragments take their part, and an estimate is no measurement
FLOAT32 = 4
OPTIMISER_BLOCK = 256  # state values that share a scale in bitsandbytes' 8-bit optimisers
SMALLEST_8BIT = 4096  # below that many values bitsandbytes keeps a state in float32

# What stands in for bfloat16 on GPUs before Ampere (T4, V100), which have none and only emulate it.
FLOAT16 = (
    "fp16: true and bf16: false, bnb_4bit_compute_dtype: float16, and model.dtype: float16, or float32 where all "
    "weights are trained"
)


@dataclass(frozen=True)
class Workload:
    """The largest batch of a phase in one process.

    `rows` and `length`: sequences of a batch, and tokens of each, padding included. `targets`: tokens of each whose
    logits are held, and that the decoder of an encoder-decoder reads. `drawn`: sequences that Transformers samples at
    once (0: none), from `drawn_prompt` tokens to `drawn_length` in all. `loss`: `usual` (cross-entropy of all logits),
    `chunked` (TRL's `chunked_nll`), `selected` (GRPO), `preference` (DPO) or `actor_critic` (PPO). `reference`:
    whether a copy of what is trained is held. `group`: sequences of a batch with the same prompt, which a model that
    can share it reads once.
    `on_gpu`: whether it runs on a GPU, where TRL's losses and torch's optimisers take other ways than on a CPU.
    """

    rows: int
    optimiser: str
    autocast: bool
    checkpointing: bool
    accumulates: bool
    on_gpu: bool
    drawn_prompt: int
    length: int = 0
    targets: int = 0
    drawn: int = 0
    drawn_length: int = 0
    loss: Literal["usual", "chunked", "selected", "preference", "actor_critic"] = "usual"
    temperature: float = 1.0
    reference: bool = False
    group: int = 1


def drawn_samples(recipe: Recipe, samples: OwnSamplesSection) -> dict[str, int]:
    """The fields of a workload for a phase that draws completions from the model first."""
    length = recipe.prompt.max_prompt_length + samples.sampling["max_new_tokens"]
    return {"drawn": samples.batch_size, "drawn_length": length}


def settings_with_defaults(part: TrainerSection) -> dict[str, Any]:
    """A trainer's settings over the installed library's defaults."""
    fields = dataclasses.fields(part.configuration_class())
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    settings = {**defaults, **part.settings}
    if settings["bf16"] is None:  # TRL's configurations decide it so
        settings["bf16"] = not settings["fp16"]
    return settings


def asks_for_bfloat16(recipe: Recipe, phase: Phase) -> list[str]:
    """The recipe's settings that have a phase compute in bfloat16, by their names."""
    found = {
        "model.dtype": recipe.model.dtype == "bfloat16",
        "quantization.bnb_4bit_compute_dtype": (recipe.quantization or {}).get("bnb_4bit_compute_dtype") == "bfloat16",
        f"{phase.section}.bf16": bool(settings_with_defaults(phase)["bf16"]),
    }
    return [name for name, asked in found.items() if asked]


def optimiser_state(name: str, shapes: Sequence[tuple[int, ...]], width: int) -> int:
    """Bytes of the state of an optimiser of parameters of these shapes, of `width` bytes a value.

    AdamW (Loshchilov and Hutter, 2019) keeps two values a parameter, in its dtype; in 8 bits (Dettmers et al., 2022)
    one byte each and a float32 scale for every 256; Adafactor (Shazeer and Stern, 2018) one float32 a row and one a
    column. Paged states are counted, though they can move to the host.

    Raises:
        InputError: no estimate is known for this optimiser.
    """
    values = [math.prod(shape) for shape in shapes]
    if name in ("adamw_torch", "adamw_torch_fused"):
        return 2 * width * sum(values)
    if name.removeprefix("paged_") in ("adamw_8bit", "adamw_bnb_8bit"):
        byte = 1 + FLOAT32 / OPTIMISER_BLOCK
        return round(sum(2 * count * (byte if count >= SMALLEST_8BIT else FLOAT32) for count in values))
    if name == "adafactor":
        return FLOAT32 * sum(sum(shape[-2:]) for shape in shapes)
    raise InputError(
        f"optim is {name!r}, whose memory cannot be estimated; expected adamw_torch, adamw_torch_fused, adamw_8bit, "
        "adamw_bnb_8bit, paged_adamw_8bit or adafactor"
    )


def optimiser_step(name: str, shapes: Sequence[tuple[int, ...]], width: int, *, on_gpu: bool) -> int:
    """Bytes that an optimiser makes for a moment during its step.

    torch's AdamW takes the root of the second moments: of all at once on a GPU, and of one parameter after the other,
    twice, on a CPU (torch/optim/adam.py, _multi_tensor_adam and _single_tensor_adam). Adafactor makes two float32
    matrices as large as the parameter that it is at. The fused and the 8-bit ones work in place.
    """
    values = [math.prod(shape) for shape in shapes]
    if name == "adamw_torch":
        return width * (sum(values) if on_gpu else 2 * max(values))
    return 2 * FLOAT32 * max(values) if name == "adafactor" else 0
