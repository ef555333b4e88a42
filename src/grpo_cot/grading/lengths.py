"""How accuracy and length go with a problem's difficulty, and with each other at one difficulty.

A problem's difficulty is the number of calculations in its worked solution. Longer completions go with harder problems,
and harder problems with more errors. So pairs of completions are compared within problems of one difficulty as well.
"""

import re
from collections.abc import Sequence
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.grading.estimates import MODELS, mean, paired, share
from grpo_cot.statistics import concordance

_ANNOTATION = re.compile(r"<<[^<>\n]*=[^<>\n]*>>")  # GSM8K's, one a calculation


def difficulty(solution: str | None) -> int | None:
    """The number of calculations in a worked solution: GSM8K's annotations, or else equals signs. None without any.

    >>> difficulty("He has 4*2=<<4*2=8>>8 legs.\\n8+1=<<8+1=9>>9"), difficulty("12 + 7 = 19"), difficulty("#### 5")
    (2, 1, None)
    """
    if solution is None:
        return None
    return len(_ANNOTATION.findall(solution)) or solution.count("=") or None


def by_difficulty(predictions: Sequence[Row]) -> list[dict[str, Any]] | None:
    """Both models' figures on the problems of each difficulty, from the easiest; None where no solution shows any.

    Each with `difficulty`, `n`, for `base` and `trained` the shares `strict_accuracy` and `lenient_accuracy` and the
    mean `completion_tokens`, and the `paired` difference of the strict accuracies. Problems whose solution shows no
    calculation are in none.
    """
    groups: dict[int, list[Row]] = {}
    for prediction in predictions:
        if prediction["gold"] is not None and prediction["difficulty"] is not None:
            groups.setdefault(prediction["difficulty"], []).append(prediction)
    return [_of_one_difficulty(level, groups[level]) for level in sorted(groups)] or None


def _of_one_difficulty(level: int, predictions: Sequence[Row]) -> dict[str, Any]:
    rows = {model: [prediction[model] for prediction in predictions] for model in MODELS}
    strict = {model: [row["strict_correct"] for row in rows[model]] for model in MODELS}
    return {
        "difficulty": level, "n": len(predictions),
        **{
            model: {
                "strict_accuracy": share(strict[model]),
                "lenient_accuracy": share([row["lenient_correct"] for row in rows[model]]),
                "completion_tokens": mean([row["tokens"] for row in rows[model]]),
            }
            for model in MODELS
        },
        "paired": {"strict_accuracy": paired(strict["base"], strict["trained"])},
    }  # fmt: skip


def length_and_accuracy(predictions: Sequence[Row]) -> dict[str, Any] | None:
    """Whether the right completions are the longer ones, by the lenient reading; None without final answers.

    For `base` and `trained`: `pooled`, over all pairs of a right and a wrong completion of the set, and `within`, over
    the pairs whose problems have one difficulty. Each is `grpo_cot.statistics.concordance`: {value, low, high, pairs},
    0.5 where length tells nothing, or None where there is no pair. The lenient reading is taken, for a completion
    without the schema is wrong by the strict one whatever its length.
    """
    if predictions[0]["gold"] is None:
        return None
    figures = {}
    for model in MODELS:
        strata: dict[int | None, tuple[list[int], list[int]]] = {}
        pooled: tuple[list[int], list[int]] = ([], [])
        for prediction in predictions:
            row = prediction[model]
            pooled[row["lenient_correct"]].append(row["tokens"])
            if prediction["difficulty"] is not None:
                stratum = strata.setdefault(prediction["difficulty"], ([], []))
                stratum[row["lenient_correct"]].append(row["tokens"])
        figures[model] = {"pooled": concordance([pooled]), "within": concordance(list(strata.values()))}
    return figures
