"""The values that the libraries' annotations leave open, and the settings that the pipeline owns."""

from typing import Annotated, Any, Literal

from pydantic import Field

MOST_STEPS, MOST_TOKENS, MOST_FACTOR = 10**8, 2**20, 10**6  # more of it is a slip of the pen
Token = Annotated[int, Field(ge=0)]
# What the libraries' code compares against, where their annotation says no more than `str` or nothing at all.
ALLOWED: dict[str, Any] = {
    "scale_rewards": Literal["group", "batch", "none"],
    "importance_sampling_level": Literal["token", "sequence"],
    "multi_objective_aggregation": Literal["sum_then_normalize", "normalize_then_sum"],
    "vllm_mode": Literal["colocate", "server"],
    "vllm_importance_sampling_mode": Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"],
    "report_to": Literal["none", "wandb", "tensorboard", "trackio"] | list[Literal["wandb", "tensorboard", "trackio"]],
    "learning_rate": Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)],  # 1 for optimisers that scale it
    "beta": Annotated[float, Field(ge=0, le=MOST_FACTOR, allow_inf_nan=False)],
    "max_steps": Annotated[int, Field(gt=0, le=MOST_STEPS)],
    "max_completion_length": Annotated[int, Field(gt=0, le=MOST_TOKENS)],
    "max_length": Annotated[int, Field(gt=0, le=MOST_TOKENS)],
    "num_train_epochs": Annotated[float, Field(gt=0, le=MOST_FACTOR)],
    "per_device_train_batch_size": Annotated[int, Field(gt=0, le=2**20)],
    "per_device_eval_batch_size": Annotated[int, Field(gt=0, le=2**20)],
    "gradient_accumulation_steps": Annotated[int, Field(gt=0, le=2**20)],
    "warmup_steps": Annotated[float, Field(ge=0)],
    "weight_decay": Annotated[float, Field(ge=0, le=100)],
    "max_grad_norm": Annotated[float, Field(ge=0)],
    "save_steps": Annotated[float, Field(gt=0)],
    "save_total_limit": Annotated[int, Field(gt=0)] | None,
    "dataloader_num_workers": Annotated[int, Field(ge=0, le=256)],
    "dataset_num_proc": Annotated[int, Field(gt=0, le=256)] | None,
    "pad_to_multiple_of": Annotated[int, Field(gt=0, le=2**16)] | None,
    "packing_strategy": Literal["bfd", "bfd_split", "wrapped"],
    "train_sampling_strategy": Literal["random", "sequential", "group_by_length", "batch_rebalance"],
    "torch_compile_mode": Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None,
    "ddp_timeout": Annotated[int, Field(gt=0)],
    "ref_model_sync_steps": Annotated[int, Field(gt=0)],
    "ref_model_mixup_alpha": Annotated[float, Field(ge=0, le=1)],
    "ld_alpha": Annotated[float, Field(ge=0, le=1)] | None,
    "neftune_noise_alpha": Annotated[float, Field(ge=0, le=1000)] | None,
    "off_policy_mask_threshold": Annotated[float, Field(gt=0)] | None,
    "epsilon": Annotated[float, Field(gt=0)],
    "delta": Annotated[float, Field(gt=1)] | None,  # a bound on a ratio that is 1 where nothing changed
    "top_entropy_quantile": Annotated[float, Field(gt=0, le=1)],
    "label_smoothing": Annotated[float, Field(ge=0, lt=0.5)],  # a half makes a pair's two sides alike
    "label_smoothing_factor": Annotated[float, Field(ge=0, lt=1)],
    "save_strategy": Literal["no", "steps", "epoch"],
    "epsilon_high": Annotated[float, Field(gt=0)] | None,
    "vllm_gpu_memory_utilization": Annotated[float, Field(gt=0, le=1)],
    "vllm_max_model_length": Annotated[int, Field(gt=0)] | None,
    "vllm_tensor_parallel_size": Annotated[int, Field(gt=0)],
    "vllm_importance_sampling_clip_max": Annotated[float, Field(gt=0)],
    "num_generations": Annotated[int, Field(ge=2)],
    "logging_steps": Annotated[int, Field(gt=0)],
    "r": Annotated[int, Field(gt=0, le=2**16)],
    "lora_alpha": Annotated[int, Field(gt=0, le=MOST_FACTOR)],
    "rank_pattern": dict[str, Annotated[int, Field(gt=0, le=2**16)]],
    "alpha_pattern": dict[str, Annotated[int, Field(gt=0, le=MOST_FACTOR)]],
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
    "max_new_tokens": Annotated[int, Field(gt=0, le=MOST_TOKENS)],
    "min_new_tokens": Annotated[int, Field(ge=0)],
    "num_beams": Annotated[int, Field(gt=0, le=1024)],
    "stop_strings": list[Annotated[str, Field(min_length=1)]],
    "temperature": Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)],  # of 16-bit logits, too
    "top_k": Annotated[int, Field(ge=0)],
    "top_p": Annotated[float, Field(gt=0, le=1)],
    "min_p": Annotated[float, Field(ge=0, le=1)] | None,
    "repetition_penalty": Annotated[float, Field(gt=0, le=1000)],
    "encoder_repetition_penalty": Annotated[float, Field(gt=0, le=1000)],
    # Beyond these bounds the library leaves them out in silence.
    "typical_p": Annotated[float, Field(gt=0, le=1)],
    "epsilon_cutoff": Annotated[float, Field(ge=0, lt=1)],
    "eta_cutoff": Annotated[float, Field(ge=0, lt=1)],
    "no_repeat_ngram_size": Annotated[int, Field(ge=0)],
    "encoder_no_repeat_ngram_size": Annotated[int, Field(ge=0)],
    "prefill_chunk_size": Annotated[int, Field(gt=0)],
    "use_cache": bool,
    "renormalize_logits": bool,
    "remove_invalid_values": bool,
    "disable_compile": bool,
    "suppress_tokens": list[Token],
    "begin_suppress_tokens": list[Token],
    "forced_bos_token_id": Token,
    "forced_eos_token_id": Token | list[Token],
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
UNREAD = Annotated[float, Field(ge=0, le=0)]  # by the loss of this trainer
# The same where sections give one key different meanings.
ALLOWED_IN: dict[str, dict[str, Any]] = {
    "grpo": {
        "loss_type": Literal["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"],
        "remove_unused_columns": Literal[False],  # rewards read the rows' other columns
        "label_smoothing_factor": UNREAD,
        "eval_strategy": Literal["no", "steps"],
        "metric_for_best_model": Literal["eval_strict_accuracy"] | None,
        "greater_is_better": Literal[True] | None,
        "eval_delay": UNREAD,  # a resumed training would evaluate where an uninterrupted one did not
        "num_generations_eval": None,  # a problem of the validation split is answered once, greedily
    },
    "sft": {"loss_type": Literal["nll", "chunked_nll", "dft"]},
    "training": {  # of the reward model
        "report_to": Literal["none"],  # its curves are among the run's own
        "metric_for_best_model": Literal["loss", "eval_loss"] | None,
    },
    "ppo": {
        "remove_unused_columns": Literal[False],  # rewards read the rows' other columns
        "label_smoothing_factor": UNREAD,
        "save_strategy": Literal["no", "steps"],  # at the end of an epoch a rollout may be half used
        "logging_strategy": Literal["steps"],
        "neftune_noise_alpha": None,  # a completion's chances would not be those that it was drawn with
        "batch_size": Annotated[int, Field(gt=0, le=2**20)],
        "ppo_epochs": Annotated[int, Field(gt=0, le=MOST_TOKENS)],
        "init_kl_coef": Annotated[float, Field(ge=0, le=MOST_FACTOR, allow_inf_nan=False)],
        **dict.fromkeys(
            ("target", "horizon", "cliprange", "cliprange_value"), Annotated[float, Field(gt=0, allow_inf_nan=False)]
        ),
        "score_clip": Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
        "gamma": Annotated[float, Field(gt=0, le=1)],
        "lam": Annotated[float, Field(ge=0, le=1)],
        "vf_coef": Annotated[float, Field(ge=0, le=MOST_FACTOR, allow_inf_nan=False)],
        "ratio_threshold": Annotated[float, Field(gt=1)],  # the ratio is 1 where nothing changed
    },
    "dpo": {
        "beta": Annotated[float, Field(gt=0, le=MOST_FACTOR, allow_inf_nan=False)],  # 0 leaves the loss flat
        "label_smoothing_factor": UNREAD,
        "loss_type": list[
            Literal[
                "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
                "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
            ]
        ],
    },
}  # fmt: skip
# What the pipeline sets itself, from params.yaml or from other sections.
OWNED = {
    "output_dir": "the step",
    "seed": "the run's seed in params.yaml",
    "data_seed": "the run's seed in params.yaml",
    "reward_weights": "the section 'rewards'",
    "chat_template_kwargs": "prompt.chat_template_kwargs",
    "resume_from_checkpoint": "the step, which resumes by itself",
    **dict.fromkeys(
        (
            "push_to_hub",
            "hub_model_id",
            "hub_strategy",
            "hub_private_repo",
            "hub_always_push",
            "hub_revision",
            "log_completions_hub_repo",
        ),
        "the section 'publish'",
    ),
    **dict.fromkeys(
        ("ignore_data_skip", "save_only_model", "restore_callback_states_from_checkpoint"),
        "the step, which goes on where it was interrupted, as if it had not been",
    ),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "the step, whose trainer does not read it"),
    **dict.fromkeys(
        ("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        "nobody: Trackio's files stay in .cache/trackio, from where `trackio sync` sends them",
    ),
    **dict.fromkeys(
        ("log_completions", "num_completions_to_print", "log_unique_prompts"), "the phase's own 'show_completions'"
    ),
    "local_rank": "the step, which starts its processes",
    # It would cast all weights, the adapter's too, and take half of the memory.
    **dict.fromkeys(
        ("use_transformers_paged", "use_transformers_continuous_batching", "transformers_continuous_batching_config"),
        "nobody: completions come from Transformers' generate, or with use_vllm and rollouts from vLLM",
    ),
    "hub_token": "the environment of the step publish",
    "task_type": "the pipeline (CAUSAL_LM)",
    "inference_mode": "the step",
    "use_cpu": "the machine: a GPU is used where there is one",
    "auto_find_batch_size": "nobody: the batch is what per_device_train_batch_size says",
    "generation_batch_size": "per_device_train_batch_size and steps_per_generation",
    "completion_only_loss": "the pipeline: the loss is on the completion only",
    "assistant_only_loss": "the pipeline: the loss is on the completion only",
    "dataset_text_field": "the pipeline, which hands over tokens",
    "dataset_kwargs": "the pipeline, which hands over tokens",
    "model_init_kwargs": "the sections 'model' and 'quantization'",
    "chat_template_path": "the base model's source file",
    "eos_token": "the tokenizer",
    "pad_token": "the tokenizer",
    "deepspeed": "the section 'accelerate'",
    "fsdp": "the section 'accelerate'",
    "fsdp_config": "the section 'accelerate'",
    "eos_token_id": "the model",
    "pad_token_id": "the tokenizer",
    "num_return_sequences": "the step, which wants one completion a prompt",
    "return_dict_in_generate": "the step",
}
# The same where a model is sampled.
OWNED_SAMPLING = {
    "max_length": "max_new_tokens, which would take its place",
    "min_length": "min_new_tokens, which would take its place",
    "max_time": "nobody: answers would depend on the machine's speed",
    "max_cache_len": "the step, by the prompts and max_new_tokens",
    "bos_token_id": "the model",
    "decoder_start_token_id": "the model",
    "transformers_version": "the library",
    "continuous_batching_config": "nobody: completions come from Transformers' generate",
    **dict.fromkeys(
        ("low_memory", "penalty_alpha", "dola_layers", "diversity_penalty", "num_beam_groups", "constraints",
         "force_words_ids"),
        "nobody: Transformers no longer has it, and what is left is code from the Hub",
    ),
    **dict.fromkeys(
        ("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
         "assistant_early_exit", "assistant_ensemble_weight", "assistant_lookbehind", "target_lookbehind",
         "max_matching_ngram_size", "speculation_type", "use_mtp"),
        "nobody: no second model drafts tokens here",
    ),
}  # fmt: skip
# The same for the section 'accelerate', whose keys have other meanings.
ONE_MACHINE = "the step, which starts its processes on one machine"
OTHER_HARDWARE = "nobody: the images serve CPUs and NVIDIA GPUs"
FSDP_1 = "nobody: fsdp_version 2 has no such setting"
OWNED_ACCELERATE = {
    **dict.fromkeys(
        ("compute_environment", "num_machines", "machine_rank", "main_process_ip", "rdzv_backend", "same_network",
         "deepspeed_hostfile", "deepspeed_inclusion_filter", "deepspeed_exclusion_filter",
         "deepspeed_multinode_launcher"),
        ONE_MACHINE,
    ),
    **dict.fromkeys(
        ("downcast_bf16", "tpu_name", "tpu_zone", "tpu_use_cluster", "tpu_use_sudo", "tpu_vm", "tpu_env",
         "command_file", "commands"),
        OTHER_HARDWARE,
    ),
    **dict.fromkeys(
        ("fsdp_sharding_strategy", "fsdp_backward_prefetch", "fsdp_forward_prefetch", "fsdp_use_orig_params",
         "fsdp_sync_module_states"),
        FSDP_1,
    ),
    "main_process_port": "the step, which takes a free one",
    "main_training_function": "the step",
    "mpirun_config": "the step, which starts its processes without MPI",
    "dynamo_config": "the phase's own torch_compile",
    "fp8_config": "nobody: mixed_precision fp8 is not supported",
    "parallelism_config": "nobody: TRL's GRPO trainer splits data, not tensors or contexts",
    "megatron_lm_config": "nobody: TRL's GRPO trainer does not run on Megatron-LM",
    "gradient_accumulation_steps": "the phase's own gradient_accumulation_steps",
    "gradient_clipping": "the phase's own max_grad_norm",
    "deepspeed_config_file": "the keys of this section: a file that a recipe names would not be tracked",
}  # fmt: skip
