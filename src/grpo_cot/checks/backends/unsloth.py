"""The settings that the backend `unsloth` cannot follow, or would follow in another way."""

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.phases import GrpoPhase, Phase
from grpo_cot.recipes.recipe import Recipe

# The settings of an engine that TRL would start; with sync 'shared' Unsloth starts it, without reading them.
ENGINE = ("vllm_enable_sleep_mode", "vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_model_impl")
# Unsloth's own losses and data preparation do not read these settings.
IGNORED = {"grpo": ("use_adaptive_entropy", "use_liger_kernel"), "sft": ("shuffle_dataset",)}


def check_unsloth(recipe: Recipe, where: object) -> None:
    """Refuse what Unsloth cannot do or would do otherwise, before anything loads; other backends pass.

    Raises:
        InputError: the first such setting, and what to set instead.
    """
    if recipe.backend != "unsloth":
        return
    for number, phase in enumerate(recipe.phases, start=1):
        place = f"{where}: phases.{number}"
        if phase.method not in ("sft", "grpo"):
            raise InputError(
                f"{place}.method is {phase.method!r}, which the backend unsloth does not train here; expected sft or "
                "grpo, or backend: transformers"
            )
        _check_settings(recipe, phase, number, place)
    if recipe.phases[0].lora is None:
        raise InputError(
            f"{where}: phases.1.lora is null, but the backend unsloth trains adapters; give lora, or set backend to "
            "transformers"
        )
    for name in ("r", "lora_alpha"):
        if name not in recipe.phases[0].lora:
            raise InputError(f"{where}: phases.1.lora.{name} is missing, and Unsloth's default is not PEFT's; state it")
    if recipe.accelerate is not None:
        raise InputError(f"{where}: accelerate must be null: the backend unsloth trains in one process, on one GPU")
    if recipe.model.attn_implementation == "eager":
        raise InputError(
            f"{where}: model.attn_implementation is 'eager', which the backend unsloth replaces by its own attention; "
            "set it to 'sdpa'"
        )
    if recipe.quantization is not None:
        _check_quantization(recipe, f"{where}: quantization")


def _check_quantization(recipe: Recipe, place: str) -> None:
    """Refuse any form of quantization but the one that Unsloth loads itself."""
    settings = recipe.quantization or {}
    expected = {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": recipe.model.dtype,
    }  # fmt: skip
    for name, value in expected.items():
        if settings.get(name) != value:
            raise InputError(
                f"{place}.{name} is {settings.get(name)!r}, but the backend unsloth quantizes to NF4, doubly, and "
                f"computes in model.dtype; expected {value!r}, or backend: transformers"
            )
    if others := sorted(settings.keys() - expected.keys()):
        raise InputError(f"{place}.{others[0]}: the backend unsloth does not read it; take it out")


def _check_settings(recipe: Recipe, phase: Phase, number: int, place: str) -> None:
    """Refuse a phase's settings that Unsloth would not follow."""
    settings = phase.settings
    place = f"{place}.{phase.section}"
    trained = "float16" if settings.get("fp16") else "bfloat16" if settings.get("bf16") is not False else "float32"
    if trained != recipe.model.dtype or trained == "float32":
        raise InputError(
            f"{place} trains in {trained} by its bf16 and fp16, and model.dtype is {recipe.model.dtype}: the backend "
            "unsloth wants both the same, bfloat16 (bf16: true) or float16 (fp16: true, bf16: false)"
        )
    for name in IGNORED[phase.section]:
        if settings.get(name):
            raise InputError(f"{place}.{name}: the backend unsloth ignores it; take it out, or use transformers")
    if isinstance(phase, GrpoPhase):
        _check_grpo(phase, number, place)


def _check_grpo(phase: GrpoPhase, number: int, place: str) -> None:
    settings = phase.grpo
    if settings.get("loss_type") == "dr_grpo" and settings.get("scale_rewards") == "group":
        raise InputError(
            f"{place}.scale_rewards is 'group', which the backend unsloth switches off for loss_type 'dr_grpo'; set it "
            "to 'none', or use another loss_type"
        )
    if settings.get("loss_type") in ("dapo", "cispo") and settings.get("epsilon_high") is None:
        raise InputError(
            f"{place}.epsilon_high is missing, and for loss_type {settings['loss_type']!r} the backend unsloth sets "
            "one of its own; state it (TRL's is the value of epsilon)"
        )
    if number > 1 and settings.get("beta"):
        raise InputError(
            f"{place}.beta is {settings['beta']}, but in a later phase the backend unsloth measures the KL to the base "
            "model instead of to what the phase before left; set it to 0.0, or use transformers"
        )
    if phase.rollouts is None:
        return
    for name in ENGINE:
        if settings.get(name):
            raise InputError(
                f"{place}.{name} is of an engine that TRL starts, but with rollouts.sync 'shared' Unsloth starts it; "
                "take it out"
            )
    if "vllm_gpu_memory_utilization" not in settings:
        raise InputError(f"{place}: 'vllm_gpu_memory_utilization' is missing: the share of the GPU that vLLM may fill")
