"""The section `accelerate`: several processes, and what they can do together with the other sections."""

from grpo_cot.common.errors import InputError
from grpo_cot.library.settings import check_section
from grpo_cot.recipes.recipe import Recipe


def check_accelerate(recipe: Recipe, where: str) -> None:
    """Check the section of several processes, and that Accelerate, TRL and bitsandbytes can do what it asks together.

    Raises:
        InputError: as `check_section`, or a combination that would fail, or be ignored in silence.
    """
    settings = recipe.accelerate or {}
    check_section("accelerate", settings, where)
    if "distributed_type" not in settings:
        raise InputError(f"{where}: 'distributed_type' is missing; expected MULTI_CPU, MULTI_GPU, FSDP or DEEPSPEED")
    kind = settings["distributed_type"]
    if settings.get("use_cpu", kind == "MULTI_CPU") != (kind == "MULTI_CPU"):
        raise InputError(
            f"{where}.use_cpu is {settings['use_cpu']}, which does not fit distributed_type {kind}: CPU processes are "
            "MULTI_CPU, the others need GPUs (on CPUs Accelerate shards nothing and does not say so)"
        )
    for section, owner in (("fsdp_config", "FSDP"), ("deepspeed_config", "DEEPSPEED")):
        if (kind == owner) != bool(settings.get(section)):
            state = "missing" if kind == owner else "given"
            raise InputError(
                f"{where}.{section} is {state}, but distributed_type is {kind}: it belongs to {owner} alone"
            )
        check_section(section, settings.get(section) or {}, f"{where}.{section}")
    sharding = None
    if kind == "FSDP":
        if "fsdp_version" not in settings["fsdp_config"]:
            raise InputError(f"{where}.fsdp_config: 'fsdp_version' is missing; expected 2, Accelerate's default is 1")
        sharding = "FSDP"
    elif kind == "DEEPSPEED":
        plugin = settings["deepspeed_config"]
        if "zero_stage" not in plugin:
            raise InputError(f"{where}.deepspeed_config: 'zero_stage' is missing; expected 1, 2 or 3")
        if plugin["zero_stage"] == 3:
            sharding = "ZeRO-3"
            if plugin.get("zero3_save_16bit_model") is not True:
                raise InputError(
                    f"{where}.deepspeed_config.zero3_save_16bit_model must be true at zero_stage 3: otherwise only "
                    "shards are saved, which no later step can load"
                )
    storage = (recipe.quantization or {}).get("bnb_4bit_quant_storage", "uint8")
    if sharding and recipe.quantization and not recipe.quantization.get("load_in_4bit"):
        raise InputError(
            f"{where}: {sharding} cannot shard a base quantized to 8 bits; set quantization to null or 4 bits"
        )
    if sharding and recipe.quantization and storage != recipe.model.dtype:
        raise InputError(
            f"{where}: {sharding} shards weights of one type only, so quantization.bnb_4bit_quant_storage must be "
            f"model.dtype ({recipe.model.dtype}), found {storage}"
        )
    for number, phase in enumerate(recipe.phases, start=1):
        trained = "fp16" if phase.settings.get("fp16") else "bf16" if phase.settings.get("bf16") is not False else "no"
        if settings.get("mixed_precision", trained) != trained:
            raise InputError(
                f"{where}.mixed_precision is {settings['mixed_precision']!r}, but phases.{number}.{phase.section} "
                f"trains in {trained!r} by its bf16 and fp16; make them agree, or leave mixed_precision out"
            )
