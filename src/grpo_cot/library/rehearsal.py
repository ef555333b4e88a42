"""A trainer, of a phase or of the reward model, made and run for one step on a model of a few numbers.

The libraries' trainers refuse settings that their configurations take (`sync_ref_model` beside an adapter, `exo_pair`
without label smoothing, a misspelt key of `gradient_checkpointing_kwargs`), which would show only after the base was
fetched and the rewards were audited. No list of ours could follow the libraries.
"""

import contextlib
import copy
import functools
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_cot.common.errors import InputError
from grpo_cot.library.trial import quiet, reason_of, tiny
from grpo_cot.recipes.phases import LibrarySettings, TrainerSection

# What needs other hardware or a real base, and what `try_optimiser` tries.
ELSEWHERE = (
    "bf16", "fp16", "tf32", "use_vllm", "vllm_", "torch_", "dataloader_", "ddp_", "optim", "dataset_num_proc",
    "activation_offloading", "pad_to_multiple_of", "cast_lm_head_to_fp32", "router_aux_loss_coef",
    "liger_kernel_config", "run_name", "project", "trackio", "hub_", "cache_implementation", "learning_rate",
    "lr_scheduler", "warmup", "weight_decay", "adam_", "save_total_limit",
)  # fmt: skip
TOKENS = 2**10
ONE_STEP = {
    "max_steps": 1, "num_train_epochs": 1, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2,
    "gradient_accumulation_steps": 1, "logging_steps": 1, "save_steps": 1, "eval_steps": 1, "report_to": "none",
    "disable_tqdm": True, "use_cpu": True,
}  # fmt: skip
SHORT: dict[str, LibrarySettings] = {
    "grpo": {
        "num_generations": 2, "max_completion_length": 2, "num_iterations": 1, "steps_per_generation": None,
        # The evaluation is ours.
        "eval_strategy": "no", "eval_on_start": False, "load_best_model_at_end": False, "metric_for_best_model": None,
    },
    "sft": {"max_length": 8}, "dpo": {"max_length": 8}, "seq2seq": {}, "ppo": {"batch_size": 2, "ppo_epochs": 1},
    "training": {},
}  # fmt: skip


def rehearse(part: TrainerSection, lora: Mapping[str, Any] | None, where: str) -> None:
    """Train one step with the settings of a phase or the reward model; `lora` is what it trains, `where` its section.

    Raises:
        InputError: the trainer, or its step, refuses them.
    """
    settings = {name: value for name, value in part.settings.items() if not name.startswith(ELSEWHERE)}
    settings |= ONE_STEP | SHORT[part.section]
    if settings.get("eval_strategy", "no") == "no":
        settings.pop("eval_steps")
    if settings.get("gradient_checkpointing_kwargs"):
        settings["gradient_checkpointing"] = True
    names = (lora or {}).get("target_modules")
    targets = ["c_attn", *(["lm_head"] if isinstance(names, list) and "lm_head" in names else [])]
    if problem := _problem(part.section, json.dumps(settings, sort_keys=True), tuple(targets) if lora else ()):
        raise InputError(f"{where}: its trainer refuses it: {problem}")


@functools.cache
def _problem(section: str, settings: str, targets: tuple[str, ...]) -> str | None:
    with tempfile.TemporaryDirectory() as folder, quiet(), contextlib.redirect_stdout(io.StringIO()):
        _forget_devices()
        try:
            _trainer(section, json.loads(settings), targets, folder).train()
        except Exception as error:  # the libraries raise what they like
            return reason_of(error)
        finally:
            _forget_devices()
    return None


def _forget_devices() -> None:
    """Accelerate keeps the devices and number formats of the first trainer for all that follow."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def _trainer(section: str, settings: LibrarySettings, targets: Sequence[str], folder: str) -> Any:
    import trl
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        Trainer,
        TrainingArguments,
    )

    from grpo_cot.recipes.ppo import PpoConfig

    tokenizer = copy.deepcopy(tiny(TOKENS)[1])
    settings["output_dir"] = f"{folder}/checkpoints"
    rows = Dataset.from_list(2 * [ROWS[section]])
    examples = {"train_dataset": rows, "processing_class": tokenizer}
    if settings.get("eval_strategy", "no") != "no":
        examples["eval_dataset"] = rows
    if section == "seq2seq":
        model = _encoder_decoder()
        collator = DataCollatorForSeq2Seq(tokenizer, model)
        return Seq2SeqTrainer(model, Seq2SeqTrainingArguments(**settings), collator, **examples)
    if section == "training":
        return Trainer(_classifier(), TrainingArguments(**settings), **examples)
    tiny(TOKENS)[0].save_pretrained(f"{folder}/model")  # from where a trainer loads its reference
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/model")
    adapter = LoraConfig(task_type="CAUSAL_LM", r=1, target_modules=targets, fan_in_fan_out=True) if targets else None
    if section == "ppo":  # what is not ours of its trainer: PPO itself is no library's
        return Trainer(get_peft_model(model, adapter) if adapter else model, PpoConfig(**settings), **examples)
    examples |= {"peft_config": adapter} if adapter else {}
    if section == "grpo":
        return trl.GRPOTrainer(model, args=trl.GRPOConfig(**settings), reward_funcs=[_reward], **examples)
    kinds = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}
    trainer, configuration = kinds[section]
    return trainer(model, args=configuration(**settings), **examples)


ROWS: dict[str, dict[str, Any]] = {
    "grpo": {"prompt": "end", "gold": "1"},
    "sft": {"input_ids": [2, 3, 4, 1], "completion_mask": [0, 0, 1, 1]},
    "dpo": {"prompt": "end", "chosen": "end", "rejected": "padding"},
    "seq2seq": {"input_ids": [2, 3], "attention_mask": [1, 1], "labels": [4, 1]},
    "ppo": {"input_ids": [2, 3, 4, 1], "labels": [2, 3, 4, 1]},
    "training": {"input_ids": [2, 3], "attention_mask": [1, 1], "labels": 1},
}


def _reward(completions: Sequence[Any], gold: Sequence[str], **unused: Any) -> list[float]:
    """A reward that reads a column of the rows, as ours do."""
    return [float(position % 2) for position, _ in enumerate(zip(completions, gold, strict=True))]


def _encoder_decoder() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 4, "d_kv": 2, "d_ff": 4, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=TOKENS, decoder_start_token_id=0, **sizes))


def _classifier() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4}
    return BertForSequenceClassification(BertConfig(vocab_size=TOKENS, max_position_embeddings=8, **sizes))
