"""Questions that occur twice: in the training and an evaluation set, in two evaluation sets, or in one split.

Rows with a `text` are the same where their whole texts are: beginnings of two words coincide everywhere.
"""

import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row

_NUMBER = re.compile(r"\d+(?:[.,/:]\d+)*")
_NUMBER_OR_SIGN = re.compile(_NUMBER.pattern + r"""|(?<=[\d)])!|[^\w\s.,;:?!'"\u2018\u2019\u201c\u201d]""")
_NO_LETTER_OR_DIGIT = re.compile(r"[\W_]+")


class Overlap(NamedTuple):
    """Of one evaluation set: ids of rows that are training rows, of rows that differ from one only in their numbers,
    how many are also in each other evaluation set that shares any, and ids of texts that the judge learns from."""

    also_in_train: list[str]
    near_train: list[str]
    also_in: dict[str, int]
    also_judges: list[str]


class Repeated(NamedTuple):
    """A question that one split asks more than once: its rows' ids, and the different golds of those that have one."""

    ids: list[str]
    golds: list[str]


def normalised(text: str) -> str:
    """Text by which two questions count as the same: letters and digits only, without case.

    >>> normalised("How many  R's?") == normalised("how many rs")
    True
    """
    return _NO_LETTER_OR_DIGIT.sub("", unicodedata.normalize("NFKC", text).casefold())


def text_key(text: str) -> str:
    """By which two texts without numbers of weight count as the same; one without letters and digits is as it stands.

    >>> text_key("Not good!") == text_key("not good"), text_key("!") == text_key("?")
    (True, False)
    """
    return normalised(text) or text


def question_key(question: str) -> tuple[str, ...]:
    """By which two questions count as the same: `normalised`, and their numbers and signs. `3 + 1` is not `3 - 1`,
    `2 * (3 + 4)` not `(2 * 3) + 4`, nor 2.5 the same as 25.

    >>> question_key("What is 3 + 1?") == question_key("What is 31?")
    False
    """
    return (normalised(question), *_NUMBER_OR_SIGN.findall(unicodedata.normalize("NFKC", question)))


def masked(text: str) -> str:
    """`text_key` with every number made the same.

    >>> masked("Ann has 1,200 hats.") == masked("Ann has 3 hats")
    True
    """
    return text_key(_NUMBER.sub("0", unicodedata.normalize("NFKC", text)))


def repeated(rows: Iterable[Row]) -> list[Repeated]:
    """The questions that a split asks more than once, by `question_key`, in the order of their first rows; the texts
    that it has more than once, by `text_key`."""
    same: dict[Hashable, list[Row]] = {}
    for row in rows:
        key = text_key(row["text"]) if "text" in row else question_key(row["question"])
        same.setdefault(key, []).append(row)
    return [
        Repeated(
            [row["id"] for row in found],
            list({Fraction(gold): gold for row in found if (gold := row["gold"])}.values()),
        )
        for found in same.values()
        if len(found) > 1
    ]


def refuse_repeats(rows: Iterable[Row], where: str) -> None:
    """Stop where an evaluation set asks a question twice: its figures would count one problem as two, and its intervals
    be too narrow; and of two golds at least one is wrong.

    Raises:
        InputError: it does; all rows to decide on are named.
    """
    found = repeated(rows)
    if not found:
        return
    if contradictory := [question for question in found if len(question.golds) > 1]:
        ids = "; ".join(f"{', '.join(question.ids)} ({' or '.join(question.golds)})" for question in contradictory)
        raise InputError(
            f"{where}: {len(contradictory)} questions have more than one gold answer: {ids}; list the wrong rows under "
            "'drop' in the source file with the reason"
        )
    more = [identifier for question in found for identifier in question.ids[1:]]
    raise InputError(
        f"{where}: {len(more)} rows ask again what an earlier row asks ({found[0].ids[1]} what {found[0].ids[0]} asks, "
        "first), and the figures of an evaluation set would count such a problem twice; list them under 'drop' in the "
        f"source file with the reason: {', '.join(more)}"
    )


def overlaps(splits: Mapping[str, Sequence[Row]]) -> dict[str, Overlap]:
    """For every split but `train`, which of its questions occur elsewhere in the suite.

    A translation of a training question is not seen: no text comparison can.
    """
    texts = {name: [text_key(_whole(row)) for row in rows] for name, rows in splits.items()}
    seen = {name: set(keys) for name, keys in texts.items()}
    near = {masked(_whole(row)) for row in splits["train"]}
    judging = {text_key(row["text"]) for row in splits.get("judge", ()) if "text" in row}
    result = {}
    for name, rows in splits.items():
        if name == "train":
            continue
        also = [row["id"] for row, text in zip(rows, texts[name], strict=True) if text in seen["train"]]
        leaked = set(also)
        counts = {
            other: sum(text in seen[other] for text in texts[name]) for other in splits if other not in (name, "train")
        }
        result[name] = Overlap(
            also, [row["id"] for row in rows if masked(_whole(row)) in near and row["id"] not in leaked],
            {other: count for other, count in counts.items() if count},
            [row["id"] for row, text in zip(rows, texts[name], strict=True) if name != "judge" and text in judging],
        )  # fmt: skip
    return result


def _whole(row: Row) -> str:
    text: str = row["text"] if "text" in row else row["question"]
    return text


def refuse_leaks(shared: Mapping[str, Overlap], data: Path) -> None:
    """Stop where a question of an evaluation set is also trained on, serves to choose a checkpoint, or is a text from
    which the judge learns.

    Raises:
        InputError: a set shares questions with the training or the validation split, or texts with the split `judge`.
    """
    remedy = "list the training rows under 'drop' in the source file"
    for name, overlap in shared.items():
        of = f"questions of the evaluation set {name!r}" if name != "judge" else "texts of the split 'judge'"
        if count := len(overlap.also_in_train):
            raise InputError(
                f"{data}: {count} {of} are also in the training split ({overlap.also_in_train[0]} first); {remedy}"
            )
        if count := overlap.also_in.get("validation", 0):
            raise InputError(
                f"{data}: {count} {of} are also in the validation split, on which checkpoints are chosen; {remedy}"
            )
        if count := len(overlap.also_judges):
            raise InputError(
                f"{data}: {count} texts of the evaluation set {name!r} are also in the split 'judge', from which the "
                f"judge learns ({overlap.also_judges[0]} first); list the judge's rows under 'drop' in the source file"
            )


def refuse_shown(questions: Sequence[str], splits: Mapping[str, Sequence[Row]]) -> None:
    """Stop where a worked example of the prompt is a question of an evaluation set: every prompt would show its answer.

    Raises:
        InputError: one is.
    """
    shown = {question_key(question): number for number, question in enumerate(questions, start=1)}
    for name, rows in splits.items() if shown else ():
        for row in rows if name != "train" else ():
            if number := shown.get(question_key(_whole(row))):
                raise InputError(
                    f"example {number} of prompt.examples is a question of the evaluation set {name!r} ({row['id']}), "
                    "whose answer every prompt would show; take another example"
                )
