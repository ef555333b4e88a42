"""The training methods by the name that a phase's `method` gives, and the trainer that one makes of a phase.

A method is a module with five functions: `configuration`, `dataset`, `trainer`, `workload` and `verdict`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from grpo_cot.common.errors import InputError
from grpo_cot.models.loading import DEVICE
from grpo_cot.recipes.phases import Phase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training import unsloth
from grpo_cot.training.faithful import compare_settings
from grpo_cot.training.methods import dpo, grpo, ppo, rejection_sampling, seq2seq, sft
from grpo_cot.training.methods.setup import Examples, Setup
from grpo_cot.training.workload import Workload, settings_with_defaults


class Method(Protocol):
    """The five functions of a method's module."""

    def configuration(self, recipe: Recipe, phase: Any) -> dict[str, Any]:
        """The settings that the pipeline adds to the phase's own."""

    def dataset(self, setup: Setup) -> Examples:
        """What the trainer trains on."""

    def trainer(self, setup: Setup, configuration: Any, model: Any, examples: Examples) -> Any:
        """The library's trainer."""

    def workload(self, recipe: Recipe, phase: Any, settings: Mapping[str, Any], *, fresh: bool) -> dict[str, Any]:
        """The fields of `grpo_cot.training.workload.Workload` that the method decides; `fresh`: with a new adapter."""

    def verdict(self, log: Sequence[Mapping[str, float]], phase: Any) -> list[str]:
        """Plain sentences on the trainer's log history: the outcome first, then what went wrong, if anything did."""


METHODS: dict[str, Method] = {
    "grpo": grpo,
    "sft": sft,
    "rejection_sampling": rejection_sampling,
    "dpo": dpo,
    "ppo": ppo,
    "seq2seq": seq2seq,
}


def workload(recipe: Recipe, number: int, *, on_gpu: bool) -> Workload:
    """The largest batch of the recipe's phase at that index: sequences as long as it allows; seq2seq targets are 0."""
    phase = recipe.phases[number]
    settings = settings_with_defaults(phase)
    common = Workload(
        rows=settings["per_device_train_batch_size"], drawn_prompt=recipe.prompt.max_prompt_length,
        optimiser=settings["optim"], autocast=settings["bf16"] or settings["fp16"],
        checkpointing=settings["gradient_checkpointing"], accumulates=settings["gradient_accumulation_steps"] > 1,
        on_gpu=on_gpu,
    )  # fmt: skip
    # Where the adapter is new, its reference is the base with the adapter switched off.
    fresh = number == 0 and phase.lora is not None
    return replace(common, **METHODS[phase.method].workload(recipe, phase, settings, fresh=fresh))


def trainer_configuration(recipe: Recipe, phase: Phase, checkpoints: Path, seed: int) -> Any:
    """The phase's settings as the library's own class, with what the pipeline sets itself.

    Raises:
        InputError: the library refuses them.
    """
    # What dashboards call it: the run, by the folder of its scratch folders, the phase, and letters of the scratch
    # folder, which is another one after a change: Trackio goes on with the curves of a name.
    phase_name, folder = checkpoints.name.removeprefix("checkpoints-"), checkpoints.parent.name[:6]
    name = f"{checkpoints.parents[1].name} {phase_name} {folder}"
    settings = {
        "output_dir": str(checkpoints), "seed": seed, "use_cpu": DEVICE == "cpu", "project": "grpo-cot",
        "run_name": name, **phase.settings,
    }  # fmt: skip
    settings |= METHODS[phase.method].configuration(recipe, phase)
    kind = phase.configuration_class()
    try:
        if recipe.backend == "transformers":
            return kind(**settings)
        expected = unsloth.library_class(kind)(**settings)
        configuration = kind(**unsloth.explicit(kind, settings))
    except (ValueError, TypeError) as error:
        raise _refused(error) from error
    compare_settings(recipe, phase, expected, configuration)
    return configuration


@contextmanager
def setting_up() -> Iterator[None]:
    """Turn a library's refusal of rows, or of model and settings together, into one sentence.

    Raises:
        InputError: it refuses.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, ImportError, OSError) as error:  # the last two: no vLLM, no answer of its server
        if isinstance(error, OSError) and error.errno:
            raise
        raise _refused(error) from error


def _refused(error: Exception) -> InputError:
    return InputError(f"the phase cannot be set up: {' '.join(str(error).split())}")
