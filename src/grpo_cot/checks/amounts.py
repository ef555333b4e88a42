"""Whether a recipe's numbers fit the vocabulary, the layers and the rows of what it runs on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.phases import GrpoPhase, LibrarySettings, PpoPhase
from grpo_cot.recipes.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# The settings of a generation that name tokens by their numbers.
TOKENS = ("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids")


def check_tokens(recipe: Recipe, vocabulary: int, base: str) -> None:
    """Check that the tokens that a generation's settings name are the base's: others are left out in silence, or fail.

    Raises:
        InputError: one is beyond its vocabulary.
    """
    for place, settings in _samplings(recipe):
        named = {name: list(_numbers(settings.get(name))) for name in TOKENS}
        biases = settings.get("sequence_bias")
        named["sequence_bias"] = [token for bias in biases or () for token in _numbers(bias[0])] if biases else []
        for name, tokens in named.items():
            if tokens and not 0 <= min(tokens) <= max(tokens) < vocabulary:
                wrong = next(token for token in tokens if not 0 <= token < vocabulary)
                raise InputError(
                    f"{place}.{name} names the token {wrong}, but the base {base!r} has the tokens 0 to "
                    f"{vocabulary - 1}; take it out"
                )


def check_experts(recipe: Recipe, configuration: "PreTrainedConfig", base: str) -> None:
    """Check that a loss of experts is asked of a model that has some: trainers refuse it after the base is loaded.

    Raises:
        InputError: it has none.
    """
    for number, phase in enumerate(recipe.phases, start=1):
        weight = phase.settings.get("router_aux_loss_coef")
        if weight and not hasattr(configuration.get_text_config(), "output_router_logits"):
            raise InputError(
                f"phases.{number}.{phase.section}.router_aux_loss_coef is {weight}, but the base {base!r} has no "
                "experts to route to; take it out"
            )


def check_rows(recipe: Recipe, rows: int, dataset: str) -> None:
    """Check that a data set of so many training rows has enough of them for what GRPO or PPO samples at once.

    Raises:
        InputError: it has fewer.
    """
    for number, phase in enumerate(recipe.phases, start=1):
        if isinstance(phase, PpoPhase) and phase.ppo["batch_size"] > rows:
            raise InputError(
                f"phases.{number}.ppo.batch_size is {phase.ppo['batch_size']}, the prompts of a rollout, but the data "
                f"set {dataset!r} has {rows} training rows; lower it"
            )
        if not isinstance(phase, GrpoPhase):
            continue
        groups, drawn = phase.prompts_at_once(recipe.processes), phase.pass_rates and phase.pass_rates.problems
        if drawn and groups > drawn:
            raise InputError(
                f"phases.{number}.pass_rates.problems is {drawn}, fewer than the {groups} prompts that are asked at "
                "once; raise it"
            )
        if groups > rows:
            raise InputError(
                f"phases.{number}.grpo samples {groups} prompts at once (per_device_train_batch_size x the batches of "
                f"a generation / num_generations), but the data set {dataset!r} has {rows} training rows; lower the "
                "batch"
            )


def _samplings(recipe: Recipe) -> Iterator[tuple[str, LibrarySettings]]:
    yield "check.sampling", recipe.check.sampling
    yield "evaluate.sampling", recipe.evaluate.sampling
    if recipe.evaluate.samples:
        yield "evaluate.samples.sampling", recipe.evaluate.samples.sampling
    for number, phase in enumerate(recipe.phases, start=1):
        for name, section in phase.draws.items():
            yield f"phases.{number}.{name}.sampling", section.sampling
        if extra := phase.settings.get("generation_kwargs"):
            yield f"phases.{number}.{phase.section}.generation_kwargs", extra


def _numbers(value: Any) -> Iterator[int]:
    """The whole numbers in a value, at any depth."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)
