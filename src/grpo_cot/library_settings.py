"""Checking recipe sections against the libraries they configure, without trusting the libraries' constructors.

Several of these classes swallow misspelt keys and wrong values in silence (`loss_type: grpoo`, a learning rate that is
text, `bias: nonee`). So keys are compared with the class's fields or signature, and values with its annotations and,
where an annotation is only `str`, with the values that the library's code knows (`ALLOWED`).
"""

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from grpo_cot.files import InputError
from grpo_cot.recipes import Recipe
from grpo_cot.rewards import reward_functions
from grpo_cot.validation import nearest, shown

# What the libraries' code compares against, where their annotation says no more than `str` or nothing at all.
ALLOWED: dict[str, Any] = {
    "loss_type": Literal["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"],
    "scale_rewards": Literal["group", "batch", "none"],
    "importance_sampling_level": Literal["token", "sequence"],
    "multi_objective_aggregation": Literal["sum_then_normalize", "normalize_then_sum"],
    "vllm_mode": Literal["colocate", "server"],
    "vllm_importance_sampling_mode": Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"],
    "report_to": Literal["none", "wandb", "tensorboard"] | list[Literal["wandb", "tensorboard"]],
    "learning_rate": Annotated[float, Field(gt=0, allow_inf_nan=False)],
    "beta": Annotated[float, Field(ge=0, allow_inf_nan=False)],
    "max_steps": Annotated[int, Field(gt=0)],
    "max_completion_length": Annotated[int, Field(gt=0)],
    "num_generations": Annotated[int, Field(ge=2)],
    "logging_steps": Annotated[int, Field(gt=0)],
    "r": Annotated[int, Field(gt=0)],
    "lora_alpha": Annotated[int, Field(gt=0)],
    "lora_dropout": Annotated[float, Field(ge=0, lt=1)],
    "llm_int8_threshold": float,
    "load_in_4bit": bool,
    "load_in_8bit": bool,
    "llm_int8_skip_modules": list[str] | None,
    "bnb_4bit_quant_type": Literal["nf4", "fp4"],
    "bnb_4bit_use_double_quant": bool,
    "bnb_4bit_compute_dtype": Literal["float32", "bfloat16", "float16"],
    "bnb_4bit_quant_storage": Literal["uint8", "float16", "bfloat16", "float32"],
    "do_sample": bool,
    "max_new_tokens": Annotated[int, Field(gt=0)],
    "min_new_tokens": int,
    "num_beams": int,
    "stop_strings": list[str],
    "temperature": Annotated[float, Field(gt=0, allow_inf_nan=False)],
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    # Accelerate, by its configuration file. The other kinds of processes are for hardware that the images do not serve.
    "distributed_type": Literal["MULTI_CPU", "MULTI_GPU", "FSDP", "DEEPSPEED"],
    "mixed_precision": Literal["no", "fp16", "bf16"],
    "gpu_ids": str,
    # FSDP 1 flattens base and adapter, which differ in type, into one tensor.
    "fsdp_version": Literal[2],
    "fsdp_auto_wrap_policy": Literal["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"],
    "fsdp_transformer_layer_cls_to_wrap": str,
    "fsdp_state_dict_type": Literal["FULL_STATE_DICT", "SHARDED_STATE_DICT"],
    "fsdp_min_num_params": Annotated[int, Field(gt=0)],
    "fsdp_reshard_after_forward": bool,
    "fsdp_offload_params": bool,
    "fsdp_cpu_ram_efficient_loading": bool,
    "fsdp_activation_checkpointing": bool,
    "fsdp_activation_checkpointing_offload": bool,
    "zero_stage": Literal[1, 2, 3],
    "zero3_init_flag": bool,
    "zero3_save_16bit_model": bool,
    "offload_optimizer_device": Literal["none", "cpu", "nvme"],
    "offload_param_device": Literal["none", "cpu", "nvme"],
    "offload_optimizer_nvme_path": str,
    "offload_param_nvme_path": str,
    "deepspeed_moe_layer_cls_names": str,
}
# What the pipeline sets itself, from params.yaml or from other sections.
OWNED = {
    "output_dir": "the step",
    "seed": "the run's seed in params.yaml",
    "data_seed": "the run's seed in params.yaml",
    "reward_weights": "the section 'rewards'",
    "chat_template_kwargs": "prompt.chat_template_kwargs",
    "resume_from_checkpoint": "the step, which resumes by itself",
    "push_to_hub": "the section 'publish'",
    "hub_token": "the environment of the step publish",
    "task_type": "the pipeline (CAUSAL_LM)",
    "inference_mode": "the step",
    "use_cpu": "the machine: a GPU is used where there is one",
    "auto_find_batch_size": "nobody: the batch is what per_device_train_batch_size says",
    "generation_batch_size": "per_device_train_batch_size and steps_per_generation",
    "eval_strategy": "nobody: the step evaluate judges the model",
    "deepspeed": "the section 'accelerate'",
    "fsdp": "the section 'accelerate'",
    "fsdp_config": "the section 'accelerate'",
    "eos_token_id": "the model",
    "pad_token_id": "the tokenizer",
    "num_return_sequences": "the step, which wants one completion a prompt",
    "return_dict_in_generate": "the step",
}
# The same for the section 'accelerate', whose keys have other meanings.
ONE_MACHINE = "the step, which starts its processes on one machine"
OTHER_HARDWARE = "nobody: the images serve CPUs and NVIDIA GPUs"
FSDP_1 = "nobody: fsdp_version 2 has no such setting"
OWNED_ACCELERATE = {
    "compute_environment": ONE_MACHINE,
    "num_machines": ONE_MACHINE,
    "machine_rank": ONE_MACHINE,
    "main_process_ip": ONE_MACHINE,
    "main_process_port": "the step, which takes a free one",
    "rdzv_backend": ONE_MACHINE,
    "same_network": ONE_MACHINE,
    "main_training_function": "the step",
    "mpirun_config": "the step, which starts its processes without MPI",
    "dynamo_config": "grpo.torch_compile",
    "fp8_config": "nobody: mixed_precision fp8 is not supported",
    "parallelism_config": "nobody: TRL's GRPO trainer splits data, not tensors or contexts",
    "megatron_lm_config": "nobody: TRL's GRPO trainer does not run on Megatron-LM",
    "downcast_bf16": OTHER_HARDWARE,
    "tpu_name": OTHER_HARDWARE,
    "tpu_zone": OTHER_HARDWARE,
    "tpu_use_cluster": OTHER_HARDWARE,
    "tpu_use_sudo": OTHER_HARDWARE,
    "tpu_vm": OTHER_HARDWARE,
    "tpu_env": OTHER_HARDWARE,
    "command_file": OTHER_HARDWARE,
    "commands": OTHER_HARDWARE,
    "fsdp_sharding_strategy": FSDP_1,
    "fsdp_backward_prefetch": FSDP_1,
    "fsdp_forward_prefetch": FSDP_1,
    "fsdp_use_orig_params": FSDP_1,
    "fsdp_sync_module_states": FSDP_1,
    "gradient_accumulation_steps": "grpo.gradient_accumulation_steps",
    "gradient_clipping": "grpo.max_grad_norm",
    "deepspeed_config_file": "the keys of this section: a file that a recipe names would not be tracked",
    "deepspeed_hostfile": ONE_MACHINE,
    "deepspeed_inclusion_filter": ONE_MACHINE,
    "deepspeed_exclusion_filter": ONE_MACHINE,
    "deepspeed_multinode_launcher": ONE_MACHINE,
}
REQUIRED_GRPO = (
    "max_steps",
    "learning_rate",
    "max_completion_length",
    "beta",
    "loss_type",
    "scale_rewards",
    "temperature",
)


def accepted_keys(section: str) -> dict[str, Any]:
    """The keys that a recipe section may hold and the type of each, read from the installed library's class.

    Sections: grpo (trl.GRPOConfig), lora (peft.LoraConfig), quantization (transformers.BitsAndBytesConfig),
    sampling (transformers.GenerationConfig), accelerate (its configuration file, ClusterConfig), and of that file
    fsdp_config and deepspeed_config (the options of `accelerate launch` that they stand for).
    """
    if section == "grpo":
        from trl import GRPOConfig

        annotations = typing.get_type_hints(GRPOConfig)
        fields = {field.name: annotations[field.name] for field in dataclasses.fields(GRPOConfig)}
    elif section == "lora":
        from peft import LoraConfig

        annotations = typing.get_type_hints(LoraConfig)
        fields = {field.name: annotations[field.name] for field in dataclasses.fields(LoraConfig)}
    elif section == "quantization":
        from transformers import BitsAndBytesConfig

        signature = inspect.signature(BitsAndBytesConfig.__init__)
        fields = {
            p.name: Any for p in signature.parameters.values() if p.name != "self" and p.kind is not p.VAR_KEYWORD
        }
    elif section == "accelerate":
        from accelerate.commands.config.config_args import ClusterConfig

        annotations = typing.get_type_hints(ClusterConfig)
        fields = {field.name: annotations[field.name] for field in dataclasses.fields(ClusterConfig)}
    elif section in ("fsdp_config", "deepspeed_config"):
        from accelerate import DeepSpeedPlugin
        from accelerate.commands.launch import launch_command_parser

        # The launcher takes any key of these two and uses those that are options of its own.
        options = vars(launch_command_parser().parse_args(["unused"]))
        plugin = {field.name for field in dataclasses.fields(DeepSpeedPlugin)} if section == "deepspeed_config" else ()
        fields = {name: Any for name in options if name in plugin or name.startswith(section.replace("config", ""))}
    else:
        from transformers import GenerationConfig

        fields = {name: Any for name in vars(GenerationConfig()) if not name.startswith("_")}
    return {name: ALLOWED.get(name, _narrowed(annotation)) for name, annotation in fields.items()}


def check_section(section: str, settings: Mapping[str, Any], where: str) -> None:
    """Compare one recipe section with the library class it configures.

    Raises:
        InputError: a key that the class does not know (the nearest is named) or that the pipeline owns, or a value
            that its annotation or the library's own code does not allow.
    """
    accepted = accepted_keys(section)
    owned = OWNED_ACCELERATE if section in ("accelerate", "fsdp_config", "deepspeed_config") else OWNED
    for key, value in settings.items():
        if key in owned and key in {**accepted, "task_type": str}:
            raise InputError(f"{where}.{key}: this is set by {owned[key]}; take it out of the recipe")
        if key not in accepted:
            raise InputError(f"{where}: unknown key {key!r}; {nearest(key, accepted.keys() - owned.keys())}")
        _check_value(accepted[key], value, f"{where}.{key}")
    if section == "grpo" and (missing := [key for key in REQUIRED_GRPO if key not in settings]):
        raise InputError(f"{where}: {missing[0]!r} is missing; the library's defaults change, so a recipe states it")


def check_rewards(rewards: Mapping[str, float], where: object) -> None:
    """Check that every reward that a recipe names exists.

    Raises:
        InputError: one does not; the nearest is named.
    """
    try:
        reward_functions(rewards)
    except ValueError as error:
        raise InputError(f"{where}: rewards: {error}") from None


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
            found = "missing" if kind == owner else "given"
            raise InputError(
                f"{where}.{section} is {found}, but distributed_type is {kind}: it belongs to {owner} alone"
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
        trained = "fp16" if phase.grpo.get("fp16") else "bf16" if phase.grpo.get("bf16") is not False else "no"
        if settings.get("mixed_precision", trained) != trained:
            raise InputError(
                f"{where}.mixed_precision is {settings['mixed_precision']!r}, but phases.{number}.grpo trains in "
                f"{trained!r} by its bf16 and fp16; make them agree, or leave mixed_precision out"
            )


def check_recipe(recipe: Recipe, where: object) -> None:
    """Check every library section of a recipe, and that the library's own class accepts it too.

    Raises:
        InputError: as `check_section`; the first problem is named.
    """
    import torch
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, GenerationConfig
    from trl import GRPOConfig

    check_rewards(recipe.rewards, where)
    if recipe.quantization is not None:
        place = f"{where}: quantization"
        check_section("quantization", recipe.quantization, place)
        if [recipe.quantization.get(flag, False) for flag in ("load_in_4bit", "load_in_8bit")].count(True) != 1:
            raise InputError(f"{place}: set one of load_in_4bit and load_in_8bit to true, or the whole section to null")
        _construct(BitsAndBytesConfig, recipe.quantization, place)
    processes = 1
    if recipe.accelerate is not None:
        check_accelerate(recipe, f"{where}: accelerate")
        processes = recipe.accelerate["num_processes"]
    for number, phase in enumerate(recipe.phases, start=1):
        place = f"{where}: phases.{number}"
        check_section("grpo", phase.grpo, f"{place}.grpo")
        # What only a GPU has is checked by name; the constructor would look for it on this machine.
        settings = {key: value for key, value in phase.grpo.items() if key != "tf32"}
        settings |= {"output_dir": "unused", "use_cpu": not torch.cuda.is_available()}
        # Groups may be spread over processes, of which there is one here.
        settings["per_device_train_batch_size"] *= processes
        _construct(GRPOConfig, settings, f"{place}.grpo")
        if phase.grpo.get("use_vllm") and recipe.quantization is not None:
            raise InputError(
                f"{place}.grpo.use_vllm is true on a quantized base: vLLM is sent the adapter merged into the base's "
                "quantized weights, which loses most of its effect and wears the base down; set quantization to null"
            )
        if phase.lora is not None:
            check_section("lora", phase.lora, f"{place}.lora")
            if "target_modules" not in phase.lora:
                raise InputError(f"{place}.lora: 'target_modules' is missing; name the layers, or write all-linear")
            _construct(LoraConfig, phase.lora, f"{place}.lora")
    for name, sampling in (("check", recipe.check.sampling), ("evaluate", recipe.evaluate.sampling)):
        check_section("sampling", sampling, f"{where}: {name}.sampling")
        if "max_new_tokens" not in sampling:
            raise InputError(f"{where}: {name}.sampling: 'max_new_tokens' is missing")
        _construct(GenerationConfig, sampling, f"{where}: {name}.sampling")
    if recipe.evaluate.sampling.get("do_sample"):
        raise InputError(f"{where}: evaluate.sampling.do_sample is true, but accuracies are of greedy answers")


def _construct(configuration: Any, settings: Mapping[str, Any], where: str) -> None:
    try:
        configuration(**settings)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(
            f"{where}: {configuration.__name__} refuses it: {' '.join(str(error).split())[:200]}"
        ) from None


def _check_value(annotation: Any, value: Any, where: str) -> None:
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
        adapter.validate_python(value)
    except PydanticUserError:
        return  # a type that only the library can judge
    except ValidationError as error:
        expected = " or ".join(dict.fromkeys(_expectation(problem) for problem in error.errors()))
        raise InputError(f"{where}: expected {expected}, found {shown(value)}") from None


def _expectation(problem: Any) -> str:
    if problem["type"] in ("literal_error", "enum"):
        return f"one of {problem['ctx']['expected']}"
    return str(problem["msg"]).removeprefix("Input should be ").removeprefix("a valid ")


def _narrowed(annotation: Any) -> Any:
    """The annotation with `Enum | str` narrowed to the enum's values, which is what the libraries mean by it."""
    members = (
        typing.get_args(annotation)
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
        else (annotation,)
    )
    enums = [member for member in members if isinstance(member, type) and issubclass(member, enum.Enum)]
    if not enums:
        return annotation
    values = tuple(item.value for item in enums[0])
    return Literal[values] | None if type(None) in members else Literal[values]
