"""What is measured of texts that models complete: how likely each model finds its own completions and the other's, and
what the reward model takes the whole texts for."""

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from grpo_cot.common.files import Row
from grpo_cot.evaluation.likelihood import of_tokens
from grpo_cot.evaluation.pairs import both
from grpo_cot.models.classifier import Classifier
from grpo_cot.models.generation import Completion, encode, in_batches
from grpo_cot.models.turns import answer_ids
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.schema import whole_text

MODELS = ("base", "trained")


def add_likelihoods(
    rows: Sequence[Row], model_json: Path, before: Path | None, problems: Sequence[Row],
    completions: Mapping[str, Sequence[Completion]], tokenizer: PreTrainedTokenizerBase, recipe: Recipe,
    finished: MutableMapping[str, Any],
) -> None:  # fmt: skip
    """Put the log-likelihoods of each completion into rows of completions.jsonl, beside the completion.

    `own_log_likelihood` and `own_tokens` are under the model that wrote it, `other_log_likelihood` is under the other
    one; None where prompt and completion are longer than the model's positions. Both models are loaded once more,
    because each reads what the other wrote.
    """
    prompts = encode(tokenizer, [row["messages"] for row in problems], recipe.prompt.chat_template_kwargs)
    stops = recipe.evaluate.sampling.get("stop_strings") or []
    answers = {writer: written_ids(tokenizer, own, stops) for writer, own in completions.items()}
    for reader, model in both(model_json, before):
        for writer, ids in answers.items():
            whose = "own" if reader == writer else "other"
            found = of_tokens(
                model, tokenizer, prompts, ids, batch_size=recipe.evaluate.batch_size,
                progress=f"{reader} {whose} completions", finished=finished,
            )  # fmt: skip
            for row, likelihood in zip(rows, found, strict=True):
                value, tokens = likelihood or (None, None)
                row[writer] |= {f"{whose}_log_likelihood": value} | ({"own_tokens": tokens} if whose == "own" else {})
        del model  # before the next is loaded


def written_ids(
    tokenizer: PreTrainedTokenizerBase, completions: Sequence[Completion], stops: Sequence[str]
) -> list[list[int]]:
    """The token ids of what models wrote, with the turn's end where they wrote one: not where the limit or a stop
    string ended the text."""
    texts = [completion.text for completion in completions]
    ended, open_ended = answer_ids(tokenizer, texts), tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [
        cut if completion.truncated or any(stop in completion.text for stop in stops) else whole
        for completion, whole, cut in zip(completions, ended, open_ended, strict=True)
    ]


def add_probabilities(
    rows: Sequence[Row], problems: Sequence[Row], folder: Path, batch_size: int, finished: MutableMapping[str, Any]
) -> None:
    """Put the reward model's probabilities of the classes into rows of completions.jsonl.

    A row gets `label_probabilities`, of its own text, and each model of it `probabilities` and `reward_model` (the
    logit of the wanted class), of the text that the model completed. All are None where `folder` does not exist: no
    reward model was trained.
    """
    texts = {
        "own": [problem["text"] for problem in problems],
        **{
            model: [
                whole_text(problem["messages"], row[model]["completion"])
                for row, problem in zip(rows, problems, strict=True)
            ]
            for model in MODELS
        },
    }
    classes, logits = _logits(texts, folder, batch_size, finished)
    for position, (row, problem) in enumerate(zip(rows, problems, strict=True)):
        probabilities = {
            whose: dict(zip(classes, torch.tensor(found[position]).softmax(0).tolist(), strict=True))
            for whose, found in logits.items()
        }
        row["label_probabilities"] = probabilities.get("own")
        for model in MODELS:
            row[model]["probabilities"] = probabilities.get(model)
            row[model]["reward_model"] = (
                logits[model][position][classes.index(problem["wanted"])] if model in logits else None
            )


def _logits(
    texts: Mapping[str, Sequence[str]], folder: Path, batch_size: int, finished: MutableMapping[str, Any]
) -> tuple[list[str], dict[str, list[list[float]]]]:
    """The classes, and by whose texts they are the logits of each text; nothing without a reward model."""
    if not folder.is_dir():
        return [], {}
    classifier = Classifier(folder)

    def of(those: Sequence[str], progress: str) -> list[list[float]]:
        def work(number: int, batch: list[int]) -> list[list[float]]:
            logits: list[list[float]] = classifier.logits([those[index] for index in batch]).tolist()
            return logits

        return in_batches(list(map(len, those)), batch_size, work, progress, "text", finished)

    return classifier.classes, {whose: of(those, f"{whose} judged") for whose, those in texts.items()}
