"""The evaluated problems with what both models wrote, by what training did to them, as many as a page can hold."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import escape

MODELS = ("base", "trained")
BUDGET = 3_500_000  # bytes of a page, so that one of two models' completions stays below 5 MB
MARKUP = 1_000  # bytes around a problem's texts
LONGEST = 4_000  # characters of a completion
# Without the page's script, which finds any, these are shown: that many of each change.
FIRST = 3
UNJUDGED = "not judged"
_CHANGES = ("lost", "won", "wrong", "right")  # what training did, in the order in which problems are shown


@dataclass(frozen=True)
class Transcripts:
    """What a page shows of the problems: those that it holds, in `rows`, and what there is of all `total`.

    `names` are the changes in words, by their key, and `counts` how many problems each has (`unread` beside them: the
    lenient reader found no answer of a model). `sets` and `difficulties` are those that occur.
    """

    rows: list[dict[str, Any]]
    total: int
    names: dict[str, str]
    counts: Counter[str]
    sets: list[str]
    difficulties: list[int]


def transcripts(
    predictions: Sequence[Mapping[str, Any]], questions: Mapping[tuple[str, str], str], budget: int = BUDGET
) -> Transcripts:
    """The problems of a run: those that got worse first, then those that got better, then the others.

    Where all do not fit into `budget` bytes, the last of that order are left out. Each row is a prediction with its
    `question`, `change`, `unread` (the models whose completion is), `right` (verdict by model: of final answers the
    strict one, of texts the judge's; None without one), `first` (whether it is shown without the script) and, for each
    model, `shown` and `rest`: the completion's first characters, and how many are left out.
    """
    wanted = predictions[0].get("wanted")
    names = dict(zip(_CHANGES, ("right to wrong", "wrong to right", "still wrong", "still right"), strict=True))
    if wanted:
        words = ("stopped being {}", "became {}", "still not {}", "still {}")
        names = {key: text.format(wanted) for key, text in zip(_CHANGES, words, strict=True)}
    names["unjudged"] = UNJUDGED
    rows = [_row(prediction, questions) for prediction in predictions]
    counts = Counter(row["change"] for row in rows)
    counts["unread"] = sum(bool(row["unread"]) for row in rows)
    rows.sort(key=lambda row: list(names).index(row["change"]))  # stable: the problems' own order within a change
    held, size, seen = [], 0, Counter[str]()
    for row in rows:
        size += MARKUP + sum(len(escape(text).encode()) for text in (row["question"], *row["shown"].values()))
        if size > budget:
            break
        seen[row["change"]] += 1
        held.append({**row, "first": seen[row["change"]] <= FIRST})
    return Transcripts(
        rows=held, total=len(rows), names={key: name for key, name in names.items() if counts[key]},
        counts=counts, sets=list(dict.fromkeys(prediction["set"] for prediction in predictions)),
        difficulties=sorted({row["difficulty"] for row in rows if row["difficulty"] is not None}),
    )  # fmt: skip


def _row(prediction: Mapping[str, Any], questions: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    completions = {model: prediction[model]["completion"] for model in MODELS}
    right: dict[str, bool | None] = dict.fromkeys(MODELS)
    unread = []
    if wanted := prediction.get("wanted"):
        right = {model: prediction[model]["judged"] == wanted for model in MODELS}
    elif prediction["gold"] is not None:
        right = {model: prediction[model]["strict_correct"] for model in MODELS}
        unread = [model for model in MODELS if prediction[model]["numeric"] is None]
    return {
        **prediction, "question": questions[prediction["set"], prediction["id"]], "right": right, "unread": unread,
        "change": _change(right["base"], right["trained"]), "difficulty": prediction.get("difficulty"),
        "shown": {model: text[:LONGEST] for model, text in completions.items()},
        "rest": {model: max(0, len(text) - LONGEST) for model, text in completions.items()},
    }  # fmt: skip


def _change(before: bool | None, after: bool | None) -> str:
    if before is None:
        return "unjudged"
    if before == after:
        return "right" if after else "wrong"
    return "won" if after else "lost"
