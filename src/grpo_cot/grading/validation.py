"""The readers' verdicts on what a policy answered on the validation split while it was trained."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.grading.estimates import mean, share
from grpo_cot.grading.grade import read_completion
from grpo_cot.grading.lengths import difficulty


def validation_figures(answers: Sequence[Row], problems: Mapping[str, Row]) -> list[dict[str, Any]]:
    """The figures of each evaluation, in the order of their steps: `step`, `n`, `strict_accuracy`, `lenient_accuracy`,
    `format_adherence` and `truncated` with Wilson's 95 % interval, `completion_tokens` (a mean, bootstrapped), and from
    the easiest on the strict accuracy `by_difficulty` (`difficulty`, `n`, `strict_accuracy`), which is empty where no
    solution shows a calculation.

    Args:
        answers: rows as train writes them into validation.jsonl, by steps.
        problems: by id, rows of gold, locale and solution.
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
        levels: dict[int, list[bool]] = {}
        for row, verdict in zip(rows, read, strict=True):
            if (level := difficulty(problems[row["id"]]["solution"])) is not None:
                levels.setdefault(level, []).append(verdict["strict_correct"])
        figures.append({
            "step": step, "n": len(rows),
            "strict_accuracy": share([row["strict_correct"] for row in read]),
            "lenient_accuracy": share([row["lenient_correct"] for row in read]),
            "format_adherence": share([row["format"] for row in read]),
            "truncated": share([row["truncated"] for row in rows]),
            "completion_tokens": mean([row["tokens"] for row in rows]),
            "by_difficulty": [
                {"difficulty": level, "n": len(levels[level]), "strict_accuracy": share(levels[level])}
                for level in sorted(levels)
            ],
        })  # fmt: skip
    return figures
