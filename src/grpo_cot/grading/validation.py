"""The readers' verdicts on what a policy answered on the validation split while it was trained."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.grading.estimates import mean, share
from grpo_cot.grading.grade import read_completion


def validation_figures(answers: Sequence[Row], problems: Mapping[str, Row]) -> list[dict[str, Any]]:
    """The figures of each evaluation, in the order of their steps: `step`, `n`, `strict_accuracy`, `lenient_accuracy`,
    `format_adherence` and `truncated` with Wilson's 95 % interval, and `completion_tokens` (a mean, bootstrapped).

    Args:
        answers: rows as train writes them into validation.jsonl, by steps.
        problems: by id, rows of gold and locale.
    """
    figures = []
    for step, group in groupby(answers, key=lambda row: row["step"]):
        rows = list(group)
        read = [
            read_completion(
                row["text"], problems[row["id"]]["gold"], problems[row["id"]]["locale"], truncated=row["truncated"]
            )
            for row in rows
        ]
        figures.append({
            "step": step, "n": len(rows),
            "strict_accuracy": share([row["strict_correct"] for row in read]),
            "lenient_accuracy": share([row["lenient_correct"] for row in read]),
            "format_adherence": share([row["format"] for row in read]),
            "truncated": share([row["truncated"] for row in rows]),
            "completion_tokens": mean([row["tokens"] for row in rows]),
        })  # fmt: skip
    return figures
