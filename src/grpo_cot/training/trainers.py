"""Each method's trainer, from the library that has it: configuration, data, and what the pipeline adds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from grpo_cot.files import InputError, Row
from grpo_cot.models.loading import DEVICE
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.recipe import DpoPhase, GrpoPhase, Phase, Recipe, RejectionSamplingPhase, Seq2SeqPhase, SftPhase
from grpo_cot.rewards.ours import reward_functions
from grpo_cot.training import unsloth as unsloth_backend
from grpo_cot.training.examples import (
    completion_dataset,
    encoder_decoder_dataset,
    preference_dataset,
    preference_pairs,
    right_completions,
    worked_solutions,
)
from grpo_cot.training.faithful import compare_settings
from grpo_cot.training.rollouts import rollout_trainer

CONFIGURATIONS: dict[str, Any] = {
    "grpo": GRPOConfig,
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "seq2seq": Seq2SeqTrainingArguments,
}


def trainer_configuration(recipe: Recipe, phase: Phase, checkpoints: Path, seed: int) -> Any:
    """The phase's settings as the library's own class, with what the pipeline sets itself.

    Raises:
        InputError: the library refuses them.
    """
    settings = {"output_dir": str(checkpoints), "seed": seed, "use_cpu": DEVICE == "cpu", **phase.settings}
    if isinstance(phase, GrpoPhase):
        settings["reward_weights"] = reward_functions(recipe.rewards)[1]
        settings["chat_template_kwargs"] = recipe.prompt.chat_template_kwargs
    elif isinstance(phase, SftPhase | RejectionSamplingPhase):
        settings["completion_only_loss"] = True
    if isinstance(phase, GrpoPhase | DpoPhase) and recipe.phases[0].lora is None:
        # What the trainer loads its reference with, which must compute as the policy does.
        settings["model_init_kwargs"] = recipe.model.model_dump(include={"dtype", "attn_implementation"})
    kind = CONFIGURATIONS[phase.section]
    try:
        if recipe.backend == "transformers":
            return kind(**settings)
        asked = unsloth_backend.library_class(kind)(**settings)
        configuration = kind(**unsloth_backend.explicit(kind, settings))
    except (ValueError, TypeError) as error:
        raise _refused(error) from error
    compare_settings(recipe, phase, asked, configuration)
    return configuration


def check_prompts(recipe: Recipe, phase: Phase, prompts: Sequence[Row]) -> None:
    """Refuse too few prompts before any weights are loaded.

    Raises:
        InputError: one step of GRPO asks more prompts than there are.
    """
    if isinstance(phase, GrpoPhase):
        processes = recipe.accelerate["num_processes"] if recipe.accelerate else 1
        groups = phase.grpo["per_device_train_batch_size"] * phase.grpo.get("gradient_accumulation_steps", 1)
        groups = groups * processes // phase.grpo["num_generations"]
        if len(prompts) < groups:
            raise InputError(
                f"{len(prompts)} training prompts are fewer than the {groups} that one step asks; add rows"
            )


def make_trainer(
    recipe: Recipe, phase: Phase, configuration: Any, model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Row], validation: Sequence[Row],
    samples: Sequence[Row] | None,
) -> Any:  # fmt: skip
    """The trainer of a phase; `samples` are the model's own completions, where the method learns from them.

    Raises:
        InputError: there is nothing to learn from, or the library refuses model and settings together.
    """
    try:
        if isinstance(phase, GrpoPhase):
            return _grpo(recipe, phase, configuration, model, tokenizer, prompts)
        if isinstance(phase, SftPhase | RejectionSamplingPhase):
            return _sft(recipe, phase, configuration, model, tokenizer, prompts, validation, samples)
        if isinstance(phase, DpoPhase):
            pairs, extra = preference_pairs(samples or []), recipe.prompt.chat_template_kwargs
            return _EncodedDPOTrainer(
                model=model, args=configuration, processing_class=tokenizer, peft_config=_lora(recipe, phase),
                train_dataset=preference_dataset(pairs, tokenizer, extra, phase.dpo["max_length"]),
            )  # fmt: skip
        return _seq2seq(recipe, phase, configuration, model, tokenizer, prompts, validation)
    except InputError:
        raise
    except (ValueError, TypeError, ImportError, OSError) as error:  # the last two: no vLLM, no answer of its server
        if isinstance(error, OSError) and error.errno:
            raise
        raise _refused(error) from error


class _EncodedDPOTrainer(DPOTrainer):
    """DPOTrainer on rows that are token ids already: its own preparation adds what a template writes after the end
    token, or no end token at all, and generation and SFT would not agree with it."""

    def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
        return dataset


def _grpo(
    recipe: Recipe, phase: GrpoPhase, configuration: GRPOConfig, model: Any, tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Row],
) -> GRPOTrainer:  # fmt: skip
    columns = ("gold", "locale", "id")
    arguments = {
        "model": model,
        "reward_funcs": list(reward_functions(recipe.rewards)[0]),
        "args": configuration,
        "train_dataset": Dataset.from_list(
            [{"prompt": row["messages"], **{name: row[name] for name in columns}} for row in prompts]
        ),
        "processing_class": tokenizer,
        "peft_config": _lora(recipe, phase),
    }
    return GRPOTrainer(**arguments) if phase.rollouts is None else rollout_trainer(recipe, phase, arguments)


def _sft(
    recipe: Recipe, phase: SftPhase | RejectionSamplingPhase, configuration: SFTConfig, model: Any,
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Row], validation: Sequence[Row],
    samples: Sequence[Row] | None,
) -> SFTTrainer:  # fmt: skip
    rows = worked_solutions(prompts) if samples is None else right_completions(samples)
    extra, longest = recipe.prompt.chat_template_kwargs, phase.sft["max_length"]
    return SFTTrainer(
        model=model,
        args=configuration,
        train_dataset=completion_dataset(rows, tokenizer, extra, longest),
        eval_dataset=completion_dataset(worked_solutions(validation), tokenizer, extra, longest)
        if _selects(configuration)
        else None,
        processing_class=tokenizer,
        peft_config=_lora(recipe, phase),
    )


def _seq2seq(
    recipe: Recipe, phase: Seq2SeqPhase, configuration: Seq2SeqTrainingArguments, model: Any,
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Row], validation: Sequence[Row],
) -> Seq2SeqTrainer:  # fmt: skip
    extra = recipe.prompt.chat_template_kwargs
    return Seq2SeqTrainer(
        model=model,
        args=configuration,
        train_dataset=encoder_decoder_dataset(worked_solutions(prompts), tokenizer, extra),
        eval_dataset=encoder_decoder_dataset(worked_solutions(validation), tokenizer, extra)
        if _selects(configuration)
        else None,
        processing_class=tokenizer,
        # Decoders start at the left: labels are padded at the other end than the prompts of causal models.
        data_collator=DataCollatorForSeq2Seq(load_tokenizer(Path(tokenizer.name_or_path), padding_side="right"), model),
    )


def _selects(configuration: Any) -> bool:
    return str(configuration.eval_strategy.value) != "no"


def _lora(recipe: Recipe, phase: Phase) -> LoraConfig | None:
    if phase.lora is None or recipe.backend == "unsloth":  # Unsloth's model has its adapter already
        return None
    return LoraConfig(task_type="CAUSAL_LM", **phase.lora)


def _refused(error: Exception) -> InputError:
    return InputError(f"the phase cannot be set up: {' '.join(str(error).split())}")
