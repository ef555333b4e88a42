"""Fine-tuning of an encoder-decoder, all of its weights, on the worked solutions in the schema."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer

from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.phases import Seq2SeqPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training.curves import loss_verdict as verdict
from grpo_cot.training.examples import encoder_decoder_dataset, worked_solutions
from grpo_cot.training.methods.setup import Examples, Setup

__all__ = ["configuration", "dataset", "trainer", "verdict", "workload"]


def configuration(recipe: Recipe, phase: Seq2SeqPhase) -> dict[str, Any]:
    """The settings that the pipeline adds to the phase's own: none."""
    return {}


def dataset(setup: Setup) -> Examples:
    """Prompts for the encoder and worked solutions for the decoder, of the validation split too where it selects.

    Raises:
        InputError: there are no worked solutions.
    """
    extra = setup.recipe.prompt.chat_template_kwargs
    validation = worked_solutions(setup.validation, setup.opening) if setup.selects else None
    return Examples(
        encoder_decoder_dataset(worked_solutions(setup.prompts, setup.opening), setup.tokenizer, extra),
        None if validation is None else encoder_decoder_dataset(validation, setup.tokenizer, extra),
    )


def trainer(setup: Setup, configuration: Any, model: Any, examples: Examples) -> Any:
    """Transformers' trainer."""
    # Decoders start at the left: labels are padded at the other end than the prompts of causal models.
    tokenizer = load_tokenizer(Path(setup.tokenizer.name_or_path), padding_side="right")
    return Seq2SeqTrainer(
        model=model, args=configuration, train_dataset=examples.train, eval_dataset=examples.validation,
        processing_class=setup.tokenizer, data_collator=DataCollatorForSeq2Seq(tokenizer, model),
    )  # fmt: skip


def workload(recipe: Recipe, phase: Seq2SeqPhase, settings: Mapping[str, Any], *, fresh: bool) -> dict[str, Any]:
    """The largest batch: the longest prompts. How long targets are shows only in the data."""
    return {"length": recipe.prompt.max_prompt_length}
