"""How often each reader errs: on completions whose stated answer two people labelled blind.

Run it as `python bench/reader_errors.py`. tests/grading/labelled.jsonl holds the completions: `style`, `arm` (base: of
chat models and of untrained ones; trained: in the schema), `written` (by hand), `locale`, `truncated`, `text`, and the
label `answer`: the stated value in plain notation; null where none is stated, or where the two readings part. The half
marked `development` was looked at while the lenient reader was written; the table is of the other half, which was not,
and of both. A *false
negative* is a stated answer that a reader does not read. A *false positive* is a value read that is not stated. The
schema's readers are judged on the completions that follow it (strict) or have an `<answer>` pair (reward). Intervals
are Wilson's, 95 %.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from grpo_cot.answers import stated_value
from grpo_cot.grading.harness import flexible_extract
from grpo_cot.grading.lenient import lenient_answer
from grpo_cot.numbers import numeric_value
from grpo_cot.rewards import correctness
from grpo_cot.schema import sections, strict_answer
from grpo_cot.statistics import wilson_interval

LABELLED = Path(__file__).resolve().parents[1] / "tests/grading/labelled.jsonl"
Row = Mapping[str, Any]
Value = Fraction | None


def label(row: Row) -> Value:
    """The value that the completion states, by both readings."""
    return None if row["answer"] is None else sum((Fraction(part) for part in row["answer"].split()), Fraction())


def lenient(row: Row) -> Value:
    """The lenient reader's value."""
    answer = lenient_answer(row["text"], row["locale"], truncated=row["truncated"])
    return None if answer is None else stated_value(answer, row["locale"])


def strict(row: Row) -> Value:
    """The strict grader's value."""
    answer = strict_answer(row["text"])
    return None if answer is None else stated_value(answer, row["locale"])


def reward(row: Row) -> Value:
    """The value that `correctness` pays for."""
    text, stated = row["text"], label(row)
    start, end = text.find("<answer>") + len("<answer>"), text.find("</answer>")
    read = stated_value(text[start:end], row["locale"])
    for value in (stated, read):
        gold = None if value is None else str(value)
        if gold is not None and correctness([""], [text], [gold], [row["locale"]]) == [2.0]:
            return value
    return None


def last_number(row: Row) -> Value:
    """The value of lm-evaluation-harness's flexible-extract."""
    answer = flexible_extract(row["text"])
    return None if answer is None else numeric_value(answer.replace(",", "").replace("$", "").removesuffix("."))


def has_answer_pair(row: Row) -> bool:
    """Whether there is one `<answer>` pair."""
    text: str = row["text"]
    return text.count("<answer>") == 1 and text.count("</answer>") == 1


READERS: dict[str, tuple[Callable[[Row], Value], Callable[[Row], bool]]] = {
    "strict": (strict, lambda row: sections(row["text"]) is not None),
    "reward": (reward, has_answer_pair),
    "lenient": (lenient, lambda row: True),
    "last number (flexible-extract)": (last_number, lambda row: True),
}


def errors(rows: Sequence[Row], reader: str) -> tuple[list[bool], list[bool]]:
    """For each stated answer whether it is missed, and for each completion whether a value is read that it does not
    state."""
    read, applies = READERS[reader]
    judged = [(label(row), read(row)) for row in rows if applies(row)]
    negatives = [value != stated for stated, value in judged if stated is not None]
    return negatives, [value is not None and value != stated for stated, value in judged]


def parts(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The completions by arm, by who wrote them, and by whether the reader's author had seen them."""
    for arm in ("base", "trained"):
        part = [row for row in rows if row["arm"] == arm]
        for title, written in (("of models", False), ("hand-written", True)):
            unseen = [row for row in part if row["written"] == written and not row["development"]]
            yield f"{arm}, {title}, unseen", unseen
        yield f"{arm}, unseen", [row for row in part if not row["development"]]
        yield f"{arm}, all", part


def main() -> None:
    """Print the table."""
    rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    print(f"{len(rows)} completions, {sum(row['answer'] is not None for row in rows)} state an answer\n")
    print(f"{'reader':32} {'completions':32} {'false negatives':34} false positives")
    for reader in READERS:
        for title, part in parts(rows):
            shares = []
            for verdicts in errors(part, reader):
                count, n = sum(verdicts), len(verdicts)
                interval = wilson_interval(count, n) if n else None
                bounds = f"[{interval.low:.1%}, {interval.high:.1%}]" if interval else ""
                shares.append(f"{count:3} of {n:3}: {count / n if n else 0:6.1%} {bounds}")
            print(f"{reader:32} {title:32} {shares[0]:34} {shares[1]}")


if __name__ == "__main__":
    main()
