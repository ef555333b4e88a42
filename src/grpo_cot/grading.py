"""Reading what the models wrote, and saying what that shows: paired, with intervals, on how many problems."""

from collections.abc import Sequence
from typing import Any

from grpo_cot.answers import lenient_answer, numeric_value, same_answer
from grpo_cot.files import InputError, Row
from grpo_cot.schema import sections, strict_answer
from grpo_cot.statistics import mcnemar, wilson_interval

MODELS = ("base", "trained")


def read_completion(completion: str, gold: str, locale: str) -> Row:
    """What each reader finds in a completion, and whether it is the gold answer.

    `strict` reads the schema's answer, `lenient` the last stated answer wherever it stands; `numeric` is the lenient
    answer's value.
    """
    strict, lenient = strict_answer(completion), lenient_answer(completion, locale)
    value = numeric_value(lenient, locale) if lenient is not None else None
    return {
        "completion": completion,
        "strict": strict,
        "lenient": lenient,
        "numeric": None if value is None else str(value),
        "format": sections(completion) is not None,
        "strict_correct": same_answer(strict, gold, locale),
        "lenient_correct": same_answer(lenient, gold, locale),
    }


def grade(completions: Sequence[Row], golds: dict[tuple[str, str], str], locale: str) -> list[Row]:
    """Predictions, one row a problem: id, set, gold, and for base and trained what `read_completion` found.

    Args:
        completions: rows of id, set, and for each model its completion, tokens, reasoning_tokens and truncated.
        golds: the gold answer by (set, id).
    """
    predictions = []
    for row in completions:
        key = (row["set"], row["id"])
        if key not in golds:
            raise InputError(f"completion of {row['id']!r} in the set {row['set']!r} has no prompt; run evaluate again")
        graded = {"id": row["id"], "set": row["set"], "gold": golds[key]}
        for model in MODELS:
            answered = row[model]
            graded[model] = {
                **read_completion(answered["completion"], golds[key], locale),
                "tokens": answered["tokens"],
                "reasoning_tokens": answered["reasoning_tokens"],
                "truncated": answered["truncated"],
            }
        predictions.append(graded)
    return predictions


def metrics(predictions: Sequence[Row]) -> dict[str, Any]:
    """Accuracies and format adherence with Wilson 95 % intervals, and the paired difference of trained and base.

    Lengths are in tokens. `p` is McNemar's exact two-sided test.
    """
    n = len(predictions)
    result: dict[str, Any] = {"n": n}
    for model in MODELS:
        rows = [prediction[model] for prediction in predictions]
        lengths = [row["reasoning_tokens"] for row in rows if row["reasoning_tokens"] is not None]
        result[model] = {
            "strict_accuracy": _share([row["strict_correct"] for row in rows]),
            "lenient_accuracy": _share([row["lenient_correct"] for row in rows]),
            "format_adherence": _share([row["format"] for row in rows]),
            "reasoning_tokens": {"mean": sum(lengths) / len(lengths) if lengths else None, "n": len(lengths)},
            "completion_tokens": {"mean": sum(row["tokens"] for row in rows) / n},
            "truncated": sum(row["truncated"] for row in rows) / n,
        }
    result["paired"] = {
        f"{reader}_accuracy": paired(
            [prediction["base"][f"{reader}_correct"] for prediction in predictions],
            [prediction["trained"][f"{reader}_correct"] for prediction in predictions],
        )
        for reader in ("strict", "lenient")
    }
    return result


def paired(before: Sequence[bool], after: Sequence[bool]) -> dict[str, float]:
    """The difference of two shares on the same problems, its 95 % interval and p, as metrics.json writes it."""
    difference = mcnemar(before, after)
    return {"difference": difference.difference, "low": difference.low, "high": difference.high, "p": difference.p}


def compare(a: Sequence[Row], b: Sequence[Row]) -> dict[str, Any]:
    """Two runs' trained models, paired on the ids of their evaluation rows: b minus a.

    Raises:
        InputError: the runs were not evaluated on the same rows.
    """
    first, second = ({(row["set"], row["id"], row["gold"]): row for row in rows} for rows in (a, b))
    if first.keys() != second.keys():
        unpaired = sorted(first.keys() ^ second.keys())
        raise InputError(
            f"the runs were evaluated on different rows ({len(unpaired)} unpaired, {unpaired[0][1]!r} first); "
            "give both the same data set and the same evaluate section"
        )
    keys = sorted(first)
    result: dict[str, Any] = {"n": len(keys)}
    for reader in ("strict", "lenient"):
        verdicts = [[rows[key]["trained"][f"{reader}_correct"] for key in keys] for rows in (first, second)]
        result[f"{reader}_accuracy"] = {
            "a": _share(verdicts[0]), "b": _share(verdicts[1]), **paired(verdicts[0], verdicts[1])
        }  # fmt: skip
    return result


def _share(verdicts: Sequence[bool]) -> dict[str, float]:
    interval = wilson_interval(sum(verdicts), len(verdicts))
    return {"value": sum(verdicts) / len(verdicts), "low": interval.low, "high": interval.high}
