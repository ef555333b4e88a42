"""Verdicts on texts that models completed: the judge's, the reward model's, and what the recipe's rewards pay."""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.grading.estimates import MODELS
from grpo_cot.grading.texts.classification import likeliest
from grpo_cot.grading.texts.judge import Judge
from grpo_cot.rewards.groups import amounts, weighted_sum
from grpo_cot.rewards.registry import TRAINED, reward_functions
from grpo_cot.schema import whole_text


def judge_texts(
    predictions: Sequence[Row], completions: Sequence[Row], problems: Sequence[Row], judge: Judge,
    rewards: Mapping[str, float],
) -> list[Row]:  # fmt: skip
    """Predictions of texts with the verdicts on them.

    A row gets text, label, wanted, `judged` (its own text, by the judge), `beginning_judged` (its beginning alone) and
    label_probabilities. Each model of it gets
    `text` (the whole), `judged`, `reward_model_label` and `reward_model_probability` (of the wanted class; None without
    a reward model), `amounts` (by reward) and `weighted_reward` (None where no reward judges the completion).

    Args:
        predictions: as `grade` makes them.
        completions: the rows of completions.jsonl, in the same order.
        problems: the prompts' rows, in the same order.
        rewards: the recipe's.

    Raises:
        InputError: a reward is not known, or fails.
    """
    judged = [
        prediction | {field: problem[field] for field in ("text", "label", "wanted")}
        | {
            "judged": judge.label(problem["text"]),
            "beginning_judged": judge.label(problem["messages"][-1]["content"]),
            "label_probabilities": row["label_probabilities"],
        }
        for prediction, row, problem in zip(predictions, completions, problems, strict=True)
    ]  # fmt: skip
    for model in MODELS:
        answers = [row[model] for row in completions]
        texts = [
            whole_text(problem["messages"], answer["completion"])
            for problem, answer in zip(problems, answers, strict=True)
        ]
        paid, sums = _paid(problems, answers, rewards)
        for number, (row, text, answer) in enumerate(zip(judged, texts, answers, strict=True)):
            row[model] = row[model] | {
                "text": text, "judged": judge.label(text), **_by_reward_model(answer["probabilities"], row["wanted"]),
                "amounts": {name: column[number] for name, column in paid.items()}, "weighted_reward": sums[number],
            }  # fmt: skip
    return judged


def _by_reward_model(probabilities: Mapping[str, float] | None, wanted: str) -> dict[str, Any]:
    if probabilities is None:
        return {"reward_model_label": None, "reward_model_probability": None}
    return {"reward_model_label": likeliest(probabilities), "reward_model_probability": probabilities[wanted]}


def _paid(
    problems: Sequence[Row], answers: Sequence[Row], rewards: Mapping[str, float]
) -> tuple[dict[str, list[float | None]], list[float | None]]:
    """What each reward pays for the completions, and the weighted sums, as a trainer computes them."""
    texts, lengths = [answer["completion"] for answer in answers], [answer["tokens"] for answer in answers]
    ours = {name: weight for name, weight in rewards.items() if name != TRAINED}  # which the step evaluate has asked
    functions = dict(zip(ours, reward_functions(ours)[0], strict=True))
    paid = {
        name: amounts(name, functions[name], problems, texts, lengths)
        if name in functions
        else [answer["reward_model"] for answer in answers]
        for name in rewards
    }
    sums = [
        weighted_sum([column[number] for column in paid.values()], list(rewards.values()))
        for number in range(len(answers))
    ]
    return paid, sums
