"""`make check` refuses what a later step would refuse: one sentence a wrong value, and never another exception."""

import datetime
import random
from pathlib import Path
from typing import Any

import pytest
from checks.small_project import HASH, changed, contents, places, write, write_project
from checks.wrong_data_sets import FEW, FILES, HUB, WRONG_DATA_SETS

from grpo_cot.common.files import file_hash

pytestmark = pytest.mark.slow
SHORT, PLAIN = "experiments/short.yaml", "experiments/plain.yaml"
TINY, DRAWN, TRAINED, FAR = (f"sources/bases/{name}.yaml" for name in ("tiny", "drawn", "trained", "far"))
PACKED, ELSEWHERE = "sources/bases/packed.yaml", "sources/bases/elsewhere.yaml"
PARAMS = "params.yaml"
PARAMS_RUN = {"recipe": "short", "dataset": "few", "base": "tiny", "image": "cpu", "seed": 1}
GRPO, SFT, DPO = "phases.0.grpo", "phases.0.sft", "phases.1.dpo"
LONG_GENERATION = contents()[SHORT]["phases"][0]["grpo"] | {
    "num_generations": 2, "steps_per_generation": 6, "save_steps": 6
}  # fmt: skip
MIN_LR = contents()[PLAIN]["phases"][0]["sft"] | {
    "lr_scheduler_type": "constant_with_warmup", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}
}  # fmt: skip

# file, field, wrong value, a part of the sentence
WRONG: list[tuple[str, str, Any, str]] = [
    (PARAMS, "runs.one.seed", -1, "runs.one.seed: input should be greater than or equal to 0, found -1"),
    (PARAMS, "runs.one.seed", 1_764_128_277_000, "runs.one.seed: input should be less than 2147483648"),
    (PARAMS, "runs.one.seed", datetime.date(2026, 11, 26), "runs.one.seed: expected text, a number"),
    (PARAMS, "runs.one.seed", "7", "runs.one.seed: input should be a valid integer, found '7' (text)"),
    (PARAMS, "runs.one.image", "gpu", "runs.one.image: input should be 'cpu' or 'cuda', found 'gpu'"),
    (PARAMS, "runs.one.recipe", "shrt", "experiments/shrt.yaml does not exist"),
    (PARAMS, "runs.one.recipe", "../experiments/short", "runs.one.recipe: string should match pattern"),
    (PARAMS, "runs.one.dataset", "hub", "runs.one.dataset is 'hub', which 'datasets' lacks"),
    (PARAMS, "runs.written.dataset", "pairs", "phases.2 compares completions with final answers, which the data set"),
    (PLAIN, "phases.1.samples", None, "phases.2.samples is null, so that the phase learns from the data set's pairs"),
    (PARAMS, "runs.one.base", None, "runs.one.base: input should be a valid string, found None"),
    (PARAMS, "runs.one.gpu", 1, "unknown key 'runs.one.gpu'"),
    (PARAMS, "runs.a b", {}, "string should match pattern"),
    (PARAMS, "runs", ["one"], "runs: input should be a valid dictionary, found ['one']"),
    (PARAMS, "datasets", ["few", "files", "few"], "datasets: names a data set twice"),
    (PARAMS, "datasets", ["few", "files", "fwe"], "sources/datasets/fwe.yaml does not exist"),
    (PARAMS, "bases.tiny", "gpu", "bases.tiny: input should be 'cpu' or 'cuda'"),
    (PARAMS, "comparisons.both.b", "one", "comparisons.both compares the run 'one' with itself"),
    (PARAMS, "comparisons.both.b", "written", "have the data sets 'few' and 'files'"),
    (PARAMS, "comparisons.both.b", "tow", "comparisons.both.b is 'tow', which 'runs' lacks"),
    (PARAMS, "runs.one.base", "far", "runs.one.base is 'far', which 'bases' lacks"),
    (PARAMS, "runs.two.base", "drawn", "lora: PEFT refuses it: Target modules"),
    (SHORT, "published_row", "qwen", "published_row is 'qwen', no row of the published tables"),
    (SHORT, "evaluate.samples.count", 10**12, "evaluate.samples.count: input should be less than or equal to 10000"),
    (PLAIN, f"{SFT}.per_device_train_batch_size", 10**12, "batch_size: expected less than or equal to"),
    (SHORT, "prompt.max_prompt_length", 0, "prompt.max_prompt_length: input should be greater than 0"),
    (SHORT, "prompt.chat_template_kwargs", {"tokenize": True}, "prompt.chat_template_kwargs.tokenize: this is set by"),
    (SHORT, "prompt.chat_template_kwargs", {"date": datetime.date(2024, 7, 26)}, "expected text, a number"),
    (SHORT, "prompt.system", "\x00", "expected text that can be written in UTF-8"),
    (SHORT, "prompt.thinking", "keep", "prompt.thinking: input should be 'refuse' or 'strip'"),
    (SHORT, "rewards.correctness", float("nan"), "rewards.correctness: expected a finite number, found nan"),
    (SHORT, "phases.0.grpo.logging_steps", 2, "grpo.save_steps is 3, no multiple of the 2 logging_steps: a resumed"),
    (SHORT, "rewards", {"correctness": 0}, "'rewards' pays nothing"),
    (SHORT, "rewards", {"published_strict_format": 1.0}, "the reward 'published_strict_format' is broken"),
    (SHORT, "audit.allow", ["corectness"], "'audit.allow' names 'corectness'"),
    (SHORT, "model.threads", 10**9, "model.threads: input should be less than or equal to 1024"),
    (SHORT, "model.attn_implementation", "flash_attention_2", "computes in 16 bits only, but model.dtype is 'float32'"),
    (SHORT, "quantization.load_in_8bit", True, "set one of load_in_4bit and load_in_8bit to true"),
    (SHORT, "phases", [], "phases: list should have at least 1 item"),
    (SHORT, "phases.0.method", ["grpo"], "phases.1"),
    (SHORT, "phases.0.method", "grp", "phases.1.method is 'grp' (text); did you mean 'grpo'?"),
    (SHORT, "phases.0", {"lora": None}, "the key 'phases.1.method' is missing"),
    (PLAIN, "phases.1.samples.count", 0, "phases.2.samples.count: input should be greater than 1"),
    (SHORT, f"{GRPO}.top_p", 7.0, "grpo.top_p: expected less than or equal to 1, found 7.0"),
    (SHORT, f"{GRPO}.max_completion_length", 2**40, "phases.1.grpo.max_completion_length"),
    (SHORT, f"{GRPO}.generation_kwargs", {"bad_words_ids": 3}, "no text can be sampled so: `bad_words_ids` has to be"),
    (SHORT, f"{GRPO}.logging_steps", 50, "logging_steps is 50, more than the 12 of max_steps"),
    (SHORT, f"{GRPO}.logging_strategy", "no", "logging_strategy is 'no': no curve would be left"),
    (SHORT, f"{GRPO}.optim", "lomo", "no optimiser or schedule can be made so: You need to install"),
    (SHORT, f"{GRPO}.adam_beta1", 2.0, "no optimiser or schedule can be made so: Invalid beta parameter"),
    (SHORT, f"{GRPO}.adam_epsilon", -1.0, "no optimiser or schedule can be made so: Invalid epsilon"),
    (SHORT, f"{GRPO}.lr_scheduler_type", "cosine_with_min_lr", "no optimiser or schedule can be made so: One of"),
    (SHORT, f"{GRPO}.save_total_limit", 0, "grpo.save_total_limit: expected greater than 0, found 0"),
    (SHORT, f"{GRPO}.beta", 10**400, "at most 64 bits"),
    (PLAIN, f"{SFT}.per_device_train_batch_size", 0, "sft.per_device_train_batch_size: expected greater than 0"),
    (PLAIN, f"{SFT}.gradient_accumulation_steps", -2, "sft.gradient_accumulation_steps: expected greater than 0"),
    (PLAIN, f"{SFT}.max_length", None, "sft.max_length: expected integer, found None"),
    (PLAIN, f"{SFT}.max_length", 4096, "max_length is 4096, but the base 'drawn' has 2048 positions"),
    (PLAIN, f"{SFT}.num_train_epochs", -1.0, "sft.num_train_epochs: expected greater than 0"),
    (PLAIN, f"{SFT}.weight_decay", -0.1, "sft.weight_decay: expected greater than or equal to 0"),
    (PLAIN, f"{SFT}.eval_strategy", "epoch", "which the data set 'few' of the run"),
    (PLAIN, f"{DPO}.loss_type", ["sigmoidal"], "dpo.loss_type: expected one of"),
    (PLAIN, "phases.1.samples.count", 1, "samples.count: input should be greater than 1"),
    (PLAIN, "phases.1.samples.sampling.do_sample", False, "samples.sampling.do_sample must be true"),
    (SHORT, "accelerate", {"num_processes": 2, "distributed_type": "MULTI_CPU", "fsdp_config": 3}, "fsdp_config"),
    (SHORT, "check.questions", [""], "check.questions.0: expected text that is not blank"),
    (SHORT, "check.sampling.max_new_tokens", 4000, "makes 4256 tokens, but the base 'tiny' has 2048 positions"),
    (SHORT, "evaluate.sets", ["tset"], "evaluate.sets names 'tset'"),
    (SHORT, "evaluate.sets", ["../test"], "evaluate.sets.0: string should match pattern"),
    (PLAIN, "evaluate.sets", ["test-with-0", "test"], "evaluate.sets begins with 'test-with-0', but the first set is"),
    (PLAIN, "evaluate.sets", ["test", "tset-with-0"], "which the data set 'few' of the run"),
    (PLAIN, "prompt.also_with", [], "names 'test-with-0', but prompt.also_with is []; add 0 to it, or"),
    (PLAIN, "prompt.also_with", [0, 1], "also_with: expected 'nothing' and numbers from 0 on, below the"),
    (PLAIN, "prompt.also_with", [0, 0], "prompt.also_with: names one twice, found [0, 0]"),
    (PLAIN, "prompt.examples", [{"question": "1 + 1?"}], "the key 'prompt.examples.0.completion' is missing"),
    (SHORT, "prompt.example", None, "unknown key 'prompt.example'; did you mean 'examples'?"),
    (SHORT, "evaluate.seed", -5, "evaluate.seed: input should be greater than or equal to 0"),
    (SHORT, "evaluate.sampling.stop_strings", [""], "stop_strings: expected string should have at least 1 character"),
    (SHORT, "evaluate.sampling.num_beams", 0, "num_beams: expected greater than 0"),
    (SHORT, "evaluate.sampling.repetition_penalty", -1.0, "repetition_penalty: expected greater than 0"),
    (SHORT, "evaluate.sampling.prompt_lookup_num_tokens", 3, "no text can be sampled so: assisted generate"),
    (SHORT, "evaluate.engine", "vllm", "evaluate.engine is 'vllm', which quantizes with bnb_4bit_compute_dtype"),
    (SHORT, "evaluate.samples.problems", -1, "evaluate.samples.problems: input should be greater than 0"),
    (SHORT, "merge.dtype", "float64", "merge.dtype: input should be 'bfloat16', 'float16' or 'float32'"),
    (PARAMS, "runs.One", PARAMS_RUN, "the names 'One' and 'one' differ in capitals alone"),
    (SHORT, "phases.0.lora.target_modules", ["q_proj", "k_porj"], "names 'k_porj', which no module is called; did you"),
    (SHORT, "phases.0.lora.target_modules", None, "'target_modules' is missing"),
    (SHORT, "phases.0.lora", {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, "tying is true, and"),
    (SHORT, "phases.0.lora", {"target_modules": ["embed_tokens"], "trainable_token_indices": [5]}, "make no model of"),
    (SHORT, "phases.0.lora.modules_to_save", ["lm_haed"], "names 'lm_haed', which no module is called"),
    (SHORT, "phases.0.lora.rank_pattern", {"q_porj": 2}, "rank_pattern names 'q_porj', which no module is called"),
    (SHORT, "phases.0.lora.exclude_modules", ["q_porj"], "exclude_modules names 'q_porj', which no module is called"),
    (SHORT, "phases.0.lora.layers_to_transform", [0, 99], "layers_to_transform names 99, expected layers from 0 to 3"),
    (SHORT, "phases.0.lora.trainable_token_indices", [593], "names 593, expected tokens from 0 to 592"),
    (SHORT, f"{GRPO}.sync_ref_model", True, "its trainer refuses it: You passed `sync_ref_model=True`"),
    (SHORT, f"{GRPO}.use_liger_kernel", True, "its trainer refuses it: You set `use_liger_kernel=True` but"),
    (SHORT, f"{GRPO}.gradient_checkpointing_kwargs", {"use_reentrnt": True}, "phases.1.grpo"),
    (SHORT, f"{GRPO}.remove_unused_columns", True, "remove_unused_columns: expected one of False"),
    (SHORT, f"{GRPO}.save_strategy", "best", "save_strategy: expected one of 'no', 'steps' or 'epoch'"),
    (SHORT, f"{GRPO}.num_train_epochs", 3.0, "max_steps and num_train_epochs both say how long to train"),
    (SHORT, f"{GRPO}.top_entropy_quantile", 2.0, "top_entropy_quantile: expected less than or equal to 1"),
    (SHORT, f"{GRPO}.delta", 0.5, "delta: expected greater than 1"),
    (SHORT, f"{GRPO}.save_only_model", True, "this is set by the step, which goes on where it was interrupted"),
    (SHORT, f"{GRPO}.hub_model_id", "me/model", "hub_model_id: this is set by the section 'publish'"),
    (SHORT, f"{GRPO}.generation_kwargs", {"temperature": 0.1}, "generation_kwargs.temperature: completions are"),
    (SHORT, f"{GRPO}.cache_implementation", "dynamc", "Invalid `cache_implementation` (dynamc)"),
    (PLAIN, f"{DPO}.loss_type", ["exo_pair"], "its trainer refuses it: Label smoothing must be greater than 0.0"),
    (PLAIN, f"{DPO}.f_divergence_type", "jss", "its trainer refuses it: Unknown f_divergence_type: jss"),
    (PLAIN, f"{DPO}.beta", 0.0, "dpo.beta: expected greater than 0"),
    (PLAIN, f"{DPO}.label_smoothing", 0.9, "dpo.label_smoothing: expected less than 0.5"),
    (PLAIN, f"{SFT}.padding_free", True, "its trainer refuses it: When `padding_free=True` without packing"),
    (PLAIN, f"{SFT}.truncation_mode", "keep_middle", "its trainer refuses it: Unsupported truncation mode"),
    (PLAIN, f"{SFT}.eval_on_start", True, "its trainer refuses it: Trainer: evaluation requires an eval_dataset"),
    (PLAIN, f"{SFT}.max_length", 2, "max_length is 2, and a prompt with two words in it has"),
    (SHORT, "quantization.llm_int8_skip_modules", ["lm_haed"], "has no such module; did you mean 'lm_head'?"),
    (SHORT, "quantization.llm_int8_threshold", 6.0, "llm_int8_threshold is for a base in 8 bits, which this is not"),
    (SHORT, "accelerate", {"num_processes": 10**5, "distributed_type": "MULTI_CPU"}, "is 100000, expected a whole"),
    (SHORT, "check.sampling", {"max_new_tokens": 8, "temperature": 0.5}, "`temperature`: `do_sample` is not set"),
    (SHORT, "check.sampling.max_length", 10, "check.sampling.max_length: this is set by max_new_tokens"),
    (SHORT, "check.sampling.max_time", 0.1, "check.sampling.max_time: this is set by nobody"),
    (SHORT, "check.sampling.min_new_tokens", 100, "min_new_tokens is 100, more than the 24 of max_new_tokens"),
    (SHORT, "evaluate.sampling.temperature", 0.5, "`temperature`: `do_sample` is not set to `True`"),
    (SHORT, "merge.base", "original", "which is published only with publish.accept_original_base: true"),
    (SHORT, "rewards.correctness", 1e308, "rewards.correctness is 1e+308, expected at most 1000000 either way"),
    (SHORT, "check.questions", ["why? " * 2000], "check.questions makes a prompt of"),
    (SHORT, "check.sampling.forced_eos_token_id", 593, "forced_eos_token_id names the token 593, but the base 'tiny'"),
    (SHORT, "check.sampling.suppress_tokens", [5, 10**5], "check.sampling.suppress_tokens names the token 100000"),
    (SHORT, "check.sampling.suppress_tokens", 5, "check.sampling.suppress_tokens: expected list, found 5"),
    (SHORT, "evaluate.sampling.bad_words_ids", [[10**5]], "bad_words_ids names the token 100000, but the base 'tiny'"),
    (SHORT, "check.sampling.sequence_bias", [[[999], 1.0]], "check.sampling.sequence_bias names the token 999"),
    (PLAIN, "phases.1.samples.sampling.begin_suppress_tokens", [10**5], "but the base 'drawn' has the tokens 0 to 592"),
    (SHORT, f"{GRPO}.generation_kwargs", {"suppress_tokens": [999]}, "kwargs.suppress_tokens names the token 999"),
    (SHORT, "check.sampling.num_beam_groups", 2, "num_beam_groups: this is set by nobody: Transformers no"),
    (SHORT, f"{GRPO}.generation_kwargs", {"penalty_alpha": 0.5}, "penalty_alpha: this is set by nobody"),
    (SHORT, "check.sampling.num_assistant_tokens", 5, "num_assistant_tokens: this is set by nobody: no second model"),
    (SHORT, "check.sampling.decoder_start_token_id", 10**5, "decoder_start_token_id: this is set by the model"),
    (SHORT, "check.sampling.cache_implementation", "paged", "cache_implementation is 'paged', with which Transformers"),
    (SHORT, f"{GRPO}.cache_implementation", "quantized", "is 'quantized', which needs a package that the images lack"),
    (SHORT, "check.sampling.epsilon_cutoff", 2.0, "epsilon_cutoff: expected less than 1, found 2.0"),
    (SHORT, "check.sampling.temperature", 1e-300, "temperature: expected greater than or equal to 0.001"),
    (SHORT, "evaluate.batch_size", 10**9, "evaluate.batch_size is 1000000000, expected at most 1048576"),
    (PLAIN, "phases.1.samples.batch_size", 10**9, "phases.2.samples.batch_size is 1000000000, expected at most"),
    (SHORT, f"{GRPO}.per_device_train_batch_size", 2**10, "samples 128 prompts at once (per_device_train_batch"),
    (SHORT, GRPO, LONG_GENERATION, "samples 48 prompts at once (per_device_train_batch_size x the batches"),
    (SHORT, f"{GRPO}.use_transformers_paged", True, "use_transformers_paged: this is set by nobody: completions come"),
    (SHORT, f"{GRPO}.router_aux_loss_coef", 0.01, "router_aux_loss_coef is 0.01, but the base 'tiny' has no experts"),
    (SHORT, f"{GRPO}.warmup_steps", 3, "warmup_steps is 3, which the schedule 'constant' (lr_scheduler_type) does not"),
    (SHORT, f"{GRPO}.lr_scheduler_kwargs", {"num_cycles": 2}, "lr_scheduler_kwargs is {'num_cycles': 2}, which the"),
    (PLAIN, SFT, MIN_LR, "which the schedule 'constant_with_warmup' (lr_scheduler_type) does not read"),
    (SHORT, f"{GRPO}.vllm_gpu_memory_utilization", 0.5, "memory_utilization is given, but use_vllm is not true"),
    (SHORT, f"{GRPO}.vespo_k_pos", 2.0, "vespo_k_pos is of the loss 'vespo', but loss_type is 'dapo'"),
    (SHORT, f"{GRPO}.label_smoothing_factor", 0.1, "label_smoothing_factor: expected less than or equal to 0"),
    (SHORT, f"{GRPO}.optim_args", "betas=0.3", "optim_args names 'betas', which the optimiser 'adamw_torch' does not"),
    (SHORT, f"{GRPO}.optim_target_modules", ["c_attn"], "optim_target_modules is ['c_attn'], which the optimiser"),
    (SHORT, f"{GRPO}.learning_rate", 1e9, "learning_rate: expected less than or equal to 100"),
    (SHORT, f"{GRPO}.max_steps", 10**12, "max_steps: expected less than or equal to 100000000"),
    (SHORT, f"{GRPO}.local_rank", 3, "local_rank: this is set by the step, which starts its processes"),
    (SHORT, f"{GRPO}.torch_compile_mode", "fast", "torch_compile_mode: expected one of 'default'"),
    (SHORT, f"{GRPO}.zzz", 1, "unknown key 'zzz'; expected a parameter of trl.GRPOConfig, whose documentation"),
    (SHORT, f"{GRPO}.group_by_length", True, "whose documentation lists them (nearest in spelling: "),
    (PLAIN, f"{SFT}.warmup_steps", 13, "warmup_steps is 13, more than the 12 of max_steps"),
    (PLAIN, f"{SFT}.dataset_num_proc", 0, "dataset_num_proc: expected greater than 0"),
    (PLAIN, f"{DPO}.ld_alpha", 5.0, "ld_alpha: expected less than or equal to 1"),
    (SHORT, "phases.0.lora.r", 10**9, "lora.r: expected less than or equal to 65536"),
    (SHORT, "phases.0.lora.target_modules", r".*\.(q_proj|k_porj)", "the alternative 'k_porj' of '.*"),
    (SHORT, "phases.0.lora.target_modules", r".*self_attn\.(q_proj|up_proj)", "a module's name is 'model.layers.0.mlp"),
    (SHORT, "phases.0.lora.target_modules", r".*layers\.(0|9)\.self_attn\.q_proj", "the alternative '9' of '"),
    (SHORT, "phases.0.lora.target_modules", "(q_proj", "target_modules: '(q_proj' is no regular expression"),
    (SHORT, "phases.0.lora.exclude_modules", ".*k_porj", "exclude_modules: '.*k_porj' fits no module; did you"),
    (SHORT, "phases.0.lora.rank_pattern", {"(q_proj|k_porj)": 2}, "rank_pattern: the alternative 'k_porj' of '(q_proj"),
    (SHORT, "phases.0.lora.rank_pattern", {"lm_head": 2}, "rank_pattern names 'lm_head', which target_modules does"),
    (SHORT, "phases.0.lora.alpha_pattern", {"q_proj": 0}, "alpha_pattern: expected greater than 0"),
    (FEW, "seed", -7, "seed: input should be greater than or equal to 0"),
    (FEW, "problems", "hard", "problems: input should be 'basic', 'harder' or 'mixed'"),
    (FEW, "splits.train", 10**12, "splits.train: input should be less than or equal to 1000000"),
    (FEW, "splits", {"train": 40}, "'splits' lacks test"),
    (FEW, "kind", "gen", "kind is 'gen' (text); expected one of: files, generator, hub"),
    (FILES, "folder", "data", "names both 'folder' and 'folder_variable'"),
    (FILES, "folder_variable", "MY DATA", "folder_variable: string should match pattern"),
    (FILES, "splits.train.path", "train.parquet", "splits.train.path: expected a name that ends in .jsonl, .json"),
    (FILES, "splits.train.sha256", "abc", "splits.train.sha256: string should match pattern"),
    (FILES, "splits.test.fields", ["question", "question"], "'fields' names a column twice"),
    (FILES, "columns.question", [], "columns.question"),
    (FILES, "validation.rows", 0, "validation.rows: input should be greater than 0"),
    (FILES, "validation.seed", 2**40, "validation.seed: input should be less than 2147483648"),
    (FILES, "evaluation.0.contains", "nothing", "contains 'nothing', which is no evaluation set"),
    (FILES, "locale", "de", "locale: input should be 'en' or 'vi'"),
    (HUB, "id", "./rows", "id: names a folder; expected a repository on the Hub, OWNER/NAME"),
    (HUB, "id", "/data/rows", "id: names a folder"),
    (HUB, "id", "owner/rows/more", "id: not the id of a repository on the Hub"),
    (HUB, "revision", "main", "expected the commit to read, its 40 hexadecimal digits"),
    *WRONG_DATA_SETS,
    (TINY, "path", "assets/none", "path is 'assets/none', and there is no such folder"),
    (TINY, "sha256", {"config.json": "c" * 64}, "not the pinned file"),
    (TINY, "sha256", {"../config.json": "c" * 64}, "sha256"),
    (TINY, "seed", 3, "a base of kind 'embedded' has no 'seed'"),
    (DRAWN, "seed", -1, "seed: input should be greater than or equal to 0"),
    (DRAWN, "config.n_layer", 10**9, "config.n_layer is 1000000000, expected at most 10000"),
    (DRAWN, "config.n_head", 3, "config: Transformers makes no model of it"),
    (DRAWN, "config.model_type", "gtp2", "Transformers refuses it"),
    (DRAWN, "config.n_embed", 8, "unknown key 'n_embed'"),
    (DRAWN, "chat_template", "{% for message in messages %}", "chat_template: not a Jinja template"),
    (TRAINED, "pretraining.save_steps", 15, "pretraining.save_steps: input should be a multiple of 10"),
    (TRAINED, "pretraining.learning_rate", float("inf"), "pretraining.learning_rate: expected a finite number"),
    (FAR, "id", "~/models/mine", "id: names a folder"),
    (FAR, "id", "src/grpo_cot", "id: names a folder"),
    (FAR, "revision", None, "needs 'revision' (a commit, so that it cannot change)"),
    (FAR, "chat_template", "{{ raise_exception('no') }}", "chat_template: it fails on a question: no"),
    (PACKED, "file.path", "/models/model.gguf", "file.path: expected the path of a .gguf file within"),
    (PACKED, "file.path", "model.safetensors", "file.path: expected the path of a .gguf file"),
    (PACKED, "folder", "models", "needs one of 'folder' or 'folder_variable' or 'wheel', found 'folder' and 'wheel'"),
    (PACKED, "wheel", None, "a base of kind 'gguf' needs one of 'folder' or 'folder_variable' or 'wheel', found none"),
    (PACKED, "wheel.version", "1.0; import os", "wheel.version: string should match pattern"),
    (PACKED, "wheel.sha", HASH, "unknown key 'wheel.sha'"),
    (PACKED, "tokens", {}, "tokens: names neither 'eos' nor 'pad'"),
    (PACKED, "tokens.end", "</s>", "unknown key 'tokens.end'"),
    (PACKED, "sha256", {"a": HASH}, "a base of kind 'gguf' has no 'sha256' of its own"),
    (ELSEWHERE, "sha256", {}, "a base of kind 'folder' needs 'sha256'"),
    (ELSEWHERE, "path", "assets/tiny/model", "a base of kind 'folder' has no 'path'"),
    (ELSEWHERE, "folder_variable", "MY MODELS", "folder_variable: string should match pattern"),
    (FAR, "folder", "models", "a base of kind 'hub' has no 'folder'"),
    (TINY, "tokens", {"eos": "<|end|>"}, "tokens.eos is '<|end|>', which is no token of the base's vocabulary"),
    (TINY, "tokens", {"pad": "<|im_end|>"}, "its padding token '<|im_end|>' is the token that ends a turn"),
    (TINY, "chat_template", "{{ messages[-1].content }}", "does not write what the system says as it is"),
    (FAR, "chat_template", "Question: {{ messages[-1]['contnt'] }}", "it leaves the question out of the prompt"),
    (SHORT, "merge.zzz", 1, "unknown key 'merge.zzz'; expected one of: base, dtype, new_tokens, prompts"),
    (SHORT, "phases.0.zzz", 1, "'phases.1.zzz'; expected one of: dynamic_sampling, grpo, lora, method, "),
    (SHORT, f"{GRPO}.eval_delay", 5, "phases.1.grpo.eval_delay: expected less than or equal to 0"),
    (SHORT, f"{GRPO}.metric_for_best_model", "eval_loss", "metric_for_best_model: expected one of 'eval_strict"),
    (FEW, "locale", "vi", "unknown key 'locale'; it does not belong in this place"),
    (FAR, "shape.n_layer", -1, "shape.n_layer is -1, expected no negative number"),
    (FAR, "shape.vocab_size", 0, "shape.vocab_size is 0, expected at least 1"),
    (FAR, "shape.zzz", 1, "shape: unknown key 'zzz'; expected a parameter of transformers.GPT2Config"),
    (TINY, "licence", {"id": "mit", "agreement": "LICENSE"}, "licence.agreement is 'LICENSE', but the base has no"),
    (DRAWN, "config.n_layer", 0, "config.n_layer is 0, expected at least 1"),
    (DRAWN, "config.n_embd", 10**7, "it makes a model of 1,200,026,560,000,000 parameters, expected at most"),
    (DRAWN, "config.vocab_size", 100, "config.vocab_size: the step base takes it from the tokenizer"),
    (DRAWN, "config.initializer_range", -0.1, "config.initializer_range is -0.1, expected no negative number"),
    (TRAINED, "config.n_positions", 64, "config.n_positions is 64, but texts of its pretraining have up to"),
    (TRAINED, "pretraining.warmup_steps", 21, "pretraining.warmup_steps is 21, more than the 20 of pretraining.steps"),
    (TRAINED, "pretraining.batch_size", 10**9, "pretraining.batch_size is 1000000000, expected at most 65536"),
    (TRAINED, "pretraining.steps", 10**12, "pretraining.steps is 1000000000000, expected at most 100000000"),
    (TRAINED, "pretraining.learning_rate", 1e9, "pretraining.learning_rate is 1000000000.0, expected at most 1"),
]  # fmt: skip


def at(field: str) -> tuple[Any, ...]:
    return tuple(int(part) if part.isdigit() else part for part in field.split("."))


def variant(root: Path, number: int, path: str, content: Any) -> str:
    """Write a changed file beside the right one, a recipe with a run of its own; how a sentence names it."""
    if path == PARAMS:
        write(root / f"suites/case-{number}.yaml", content)
        return f"suites/case-{number}.yaml"
    name = f"case-{number}"
    write(root / path.rpartition("/")[0] / f"{name}.yaml", content)
    if path.startswith("experiments"):
        run = {
            "recipe": name,
            "dataset": "few",
            "base": "tiny" if path == SHORT else "drawn",
            "image": "cpu",
            "seed": 1,
        }
        table = {"runs": {f"run-{number}": run}, "datasets": ["few"], "bases": {run["base"]: "cpu"}, "comparisons": {}}
        write(root / f"suites/run-{number}.yaml", table)
    return f"{path.rpartition('/')[0]}/{name}.yaml"


def checked(root: Path) -> list[str]:
    from grpo_cot.checks.project import problems

    return problems(root)[1]


def test_params_that_build_nothing_are_refused(tmp_path: Path) -> None:
    write_project(tmp_path)
    write(tmp_path / PARAMS, {"runs": {}, "datasets": [], "bases": {}, "comparisons": {}})
    said = "params.yaml: 'runs', 'datasets' and 'bases' are empty: nothing would be built; name a run"
    assert checked(tmp_path) == [said]


def test_before_a_run_only_what_is_built_is_checked(tmp_path: Path) -> None:
    from grpo_cot.checks.project import problems

    write_project(tmp_path)
    wrong = changed(contents()[SHORT], at("rewards.correctness"), "much")
    unused = variant(tmp_path, 0, SHORT, wrong)
    (tmp_path / "suites/run-0.yaml").unlink(missing_ok=True)
    assert any(unused in sentence for sentence in checked(tmp_path))
    read, said = problems(tmp_path, listed=True)
    assert said == [] and 4 <= read < problems(tmp_path)[0]
    write(tmp_path / SHORT, wrong)
    assert len(problems(tmp_path, listed=True)[1]) == 1


def test_the_right_files_have_no_problem(tmp_path: Path) -> None:
    write_project(tmp_path)
    assert checked(tmp_path) == []


def test_every_wrong_value_is_one_sentence(tmp_path: Path) -> None:
    assert len(WRONG) >= 60
    write_project(tmp_path)
    names = [
        variant(tmp_path, number, path, changed(contents()[path], at(field), value))
        for number, (path, field, value, _) in enumerate(WRONG)
    ]
    said = checked(tmp_path)
    unlike: list[Any] = []
    for name, (_, field, value, expected) in zip(names, WRONG, strict=True):
        sentences = [sentence for sentence in said if f"{name}:" in sentence]
        if not sentences and name.startswith("suites/"):  # what a run does not fit is said of the other file
            sentences = [sentence for sentence in said if expected in sentence]
        if len(sentences) != 1 or expected not in sentences[0] or "\n" in sentences[0]:
            unlike.append((field, value, sentences))
    assert unlike == []
    assert len(said) == len(WRONG)


FUZZ = [
    -1, 0, 10**12, 2**70, 1.5, -0.5, float("nan"), float("inf"), "", "  ", "unknown", "0", "\x00x", "../up", None, True,
    [], [1], ["x", "x"], {}, {"a": 1}, {1: 2}, datetime.date(2026, 1, 1), 1_699_999_999_999,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_any_value_in_any_field_is_taken_or_refused_in_one_sentence(tmp_path: Path, seed: int) -> None:
    write_project(tmp_path)
    cases = [
        (path, place, value) for path, content in contents().items() for place in places(content) for value in FUZZ
    ]
    drawn = random.Random(seed).sample(cases, 150)
    names = [
        variant(tmp_path, number, path, changed(contents()[path], place, value))
        for number, (path, place, value) in enumerate(drawn)
    ]
    said = checked(tmp_path)  # and no other exception
    assert len(said) > 100
    for name, case in zip(names, drawn, strict=True):
        sentences = [sentence for sentence in said if f"{name}:" in sentence]
        assert len(sentences) <= 1, (case, sentences)
        assert all("\n" not in sentence for sentence in sentences)


def test_a_template_that_fails_names_the_source_file_of_its_base(tmp_path: Path) -> None:
    write_project(tmp_path)
    template = "{% if not date %}{{ raise_exception('no date') }}{% endif %}{{ messages[-1]['content'] }}"
    (tmp_path / "assets/tiny/model/chat_template.jinja").write_text(template)
    tiny = contents()[TINY]
    pins = {name: file_hash(tmp_path / "assets/tiny/model" / name) for name in tiny["sha256"]}
    write(tmp_path / TINY, tiny | {"sha256": pins})
    said = [sentence for sentence in checked(tmp_path) if "no date" in sentence]
    assert said and all("sources/bases/tiny.yaml" in sentence for sentence in said)


def test_more_tokens_than_embeddings_and_two_runs_of_different_sets(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from grpo_cot.bases.examination import check_vocabulary
    from grpo_cot.common.errors import InputError

    write_project(tmp_path)
    folder = tmp_path / "assets/tiny/model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_vocabulary(folder, tokenizer)
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=r"token '<one more>' has the number 593.*for the numbers 0 to 592 alone"):
        check_vocabulary(folder, tokenizer)
