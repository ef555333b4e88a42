"""The reward model: a classifier of texts, trained on the data set's labels before the first phase.

It is no phase: it trains another model than the policy, with another tokenizer, and rewards read what it leaves.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerBase,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from grpo_cot.common.errors import InputError, naming
from grpo_cot.common.files import Row, new_directory, write_json
from grpo_cot.ending import resume_training
from grpo_cot.models.classifier import positions
from grpo_cot.models.loading import DEVICE
from grpo_cot.models.tokenizers import load_tokenizer, refusing_corrupt, without_report
from grpo_cot.recipes.recipe import Recipe, RewardModelSection
from grpo_cot.resuming import last_whole_checkpoint
from grpo_cot.rewards.registry import TRAINED, classes
from grpo_cot.training.curves import loss_verdict, repeatable
from grpo_cot.training.methods.registry import setting_up
from grpo_cot.training.methods.setup import Progress, resolved, selected

__all__ = ["train", "verdict"]


def train(
    recipe: Recipe, prompts: Sequence[Row], validation: Sequence[Row], base: Path, seed: int, checkpoints: Path,
    result: Path, facts: Mapping[str, Any],
) -> None:  # fmt: skip
    """Train the recipe's reward model on the texts and labels of rows, or go on with it, and leave its result.

    `result` gets the weights, the tokenizer, which truncates at `max_length`, log.json and configuration.json; the
    classes are in the order of their names. `facts` are of the run, for the configuration.

    Raises:
        InputError: rows have no labels or one class alone, the base has no scorer, or that one cannot read so much.
    """
    section = recipe.reward_model
    assert section is not None
    names = classes(prompts, {"validation": validation} if validation else {})
    scorer = base / "scorer"
    if not scorer.is_dir():
        raise InputError(
            f"{base} has no scorer, from which a reward model starts: add `scorer:` to sources/bases/{base.name}.yaml, "
            "or set 'reward_model' to null"
        )
    torch.set_num_threads(recipe.model.threads)
    tokenizer = load_tokenizer(scorer, padding_side="right")
    tokenizer.model_max_length = section.max_length
    rows, held_out = (_dataset(some, names, tokenizer) if some else None for some in (prompts, validation))
    with naming(TRAINED), setting_up():
        trainer = Trainer(
            model=_starting_model(scorer, names, section, seed), args=_arguments(section, checkpoints, seed),
            train_dataset=rows, eval_dataset=held_out, data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer, compute_metrics=_accuracy,
        )  # fmt: skip
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Progress())
    checkpoint = last_whole_checkpoint(checkpoints)
    resume_training(trainer, checkpoint)
    if held_out is not None:
        trainer.evaluate()
    state = trainer.state
    with new_directory(result) as folder:
        trainer.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / "log.json", [repeatable(entry, section) for entry in state.log_history])
        write_json(folder / "configuration.json", {
            "method": TRAINED, **facts, "seed": seed, "max_length": section.max_length, "classes": names,
            "training": resolved(trainer.args), "threads": torch.get_num_threads(), "rows": len(prompts),
            **selected(trainer),
        })  # fmt: skip


def _arguments(section: RewardModelSection, checkpoints: Path, seed: int) -> TrainingArguments:
    arguments = TrainingArguments(output_dir=str(checkpoints), seed=seed, use_cpu=DEVICE == "cpu", **section.training)
    arguments._n_gpu = min(1, arguments.n_gpu)  # of several, one: the recipe decides the batch
    return arguments


def _starting_model(scorer: Path, names: Sequence[str], section: RewardModelSection, seed: int) -> Any:
    """The scorer in float32, with a new layer that classifies, which `seed` decides.

    Raises:
        InputError: its files are corrupt, or `max_length` is more than it has positions for.
    """
    set_seed(seed)
    with refusing_corrupt(scorer), without_report():
        model = AutoModelForSequenceClassification.from_pretrained(
            scorer, dtype=torch.float32, num_labels=len(names), id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)}, problem_type="single_label_classification",
            ignore_mismatched_sizes=True,  # of a layer for other classes
        )  # fmt: skip
    most = positions(model)
    if most is not None and section.max_length > most:
        raise InputError(
            f"max_length is {section.max_length}, but the scorer has positions for {most} tokens; lower it"
        )
    return model


def _dataset(rows: Sequence[Row], names: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Token ids of the whole texts, the end cut off where they are too long, and the numbers of their classes."""
    encoded = tokenizer([row["text"] for row in rows], truncation=True)
    return Dataset.from_dict({**encoded, "labels": [names.index(row["label"]) for row in rows]})


def _accuracy(predictions: EvalPrediction) -> dict[str, float]:
    right = predictions.predictions.argmax(axis=1) == predictions.label_ids
    return {"accuracy": float(right.mean()), "texts": len(right)}


def verdict(log: Sequence[Mapping[str, float]], section: RewardModelSection) -> list[str]:
    """One sentence or more on the accuracy on the validation split, where there is one, and on the loss."""
    sentences = loss_verdict(log, section)
    judged = [entry for entry in log if "eval_accuracy" in entry]
    if judged:
        accuracy, texts = judged[-1]["eval_accuracy"], judged[-1]["eval_texts"]
        sentences.insert(0, f"It takes {accuracy:.1%} of the {texts:.0f} validation texts for their class.")
    return [" ".join(sentences)]
