"""The settings that would keep vLLM from sampling what GRPO trains."""

from grpo_cot.common.errors import InputError
from grpo_cot.library.lora import check_served
from grpo_cot.recipes.phases import GrpoPhase, LibrarySettings, RolloutsSection
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.vllm.arguments import ROLLOUTS_INSTEAD, rollout_arguments

# What would make vLLM draw from another distribution than the one that the trainer scores, unless it has this value.
WHOLE_DISTRIBUTION = {
    "top_p": (1.0,), "top_k": (0,), "min_p": (None, 0.0), "repetition_penalty": (1.0,), "generation_kwargs": (None,),
    "vllm_structured_outputs_regex": (None,), "vllm_importance_sampling_correction": (True,),
}  # fmt: skip


def check_rollouts(recipe: Recipe, phase: GrpoPhase, where: str) -> None:
    """Refuse the settings that would keep vLLM from sampling what is trained.

    `where` is the phase's place in the recipe.

    Raises:
        InputError: the phase's sampling, its adapter or the base's format does not fit.
    """
    if phase.rollouts is None:
        return
    for key, fitting in WHOLE_DISTRIBUTION.items():
        if (value := phase.grpo.get(key, fitting[0])) not in fitting:
            raise InputError(
                f"{where}.grpo.{key} is {value!r}, with which the log-probabilities of vLLM and of the trainer cannot "
                f"be compared; take it out, or {ROLLOUTS_INSTEAD}"
            )
    longest = recipe.prompt.max_prompt_length + phase.grpo["max_completion_length"]
    if (room := phase.grpo.get("vllm_max_model_length")) is not None and room < longest:
        raise InputError(
            f"{where}.grpo.vllm_max_model_length is {room}, but the longest prompt and completion are {longest} tokens "
            "(prompt.max_prompt_length + max_completion_length); raise it"
        )
    lora = recipe.phases[0].lora
    if lora is not None:
        _check_adapter(recipe, phase, lora, phase.rollouts, where)
    rollout_arguments(recipe, phase, where)


def _check_adapter(
    recipe: Recipe, phase: GrpoPhase, lora: LibrarySettings, rollouts: RolloutsSection, where: str
) -> None:
    if lora.get("lora_dropout") and not phase.grpo.get("disable_dropout"):
        raise InputError(
            f"phases.1.lora.lora_dropout is {lora['lora_dropout']}, which the trainer applies when it scores and vLLM "
            f"does not; set it to 0, or {ROLLOUTS_INSTEAD}"
        )
    accelerate = recipe.accelerate or {}
    zero = (accelerate.get("deepspeed_config") or {}).get("zero_stage")
    if accelerate.get("distributed_type") == "FSDP" or zero == 3:
        raise InputError(
            f"{where}.rollouts is given, but accelerate shards the base, and an adapter on a sharded base cannot be "
            f"handed to vLLM; use MULTI_GPU, or {ROLLOUTS_INSTEAD}"
        )
    if rollouts.sync == "merge":
        if lora.get("trainable_token_indices"):
            raise InputError(
                f"phases.1.lora.trainable_token_indices is given, but {where}.rollouts.sync 'merge' hands vLLM the "
                f"layers' merged weights, and tokens trained by themselves are in none; take it out, or "
                f"{ROLLOUTS_INSTEAD}"
            )
        return
    check_served(lora, "phases.1.lora", ROLLOUTS_INSTEAD)
