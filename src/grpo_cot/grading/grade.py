"""The readers' verdicts on the completions, and the figures that follow: paired, with intervals, with their n."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from grpo_cot.answers import same_answer, stated_value
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.grading.best_prompt import best_prompt
from grpo_cot.grading.estimates import MODELS, mean, mean_difference, paired, perplexity, share
from grpo_cot.grading.harness import exact_match, flexible_extract, strict_match
from grpo_cot.grading.lengths import by_difficulty, difficulty, length_and_accuracy
from grpo_cot.grading.lenient import lenient_answer
from grpo_cot.grading.pairs import pair_figures
from grpo_cot.grading.similarity import ROUGE, bleu, rouge
from grpo_cot.grading.soundness import is_sound
from grpo_cot.grading.texts.figures import text_figures
from grpo_cot.schema import sections, strict_answer
from grpo_cot.statistics import majority_at, pass_at, sampling_noise

READERS = ("strict", "lenient")
COPIED = (
    "tokens", "reasoning_tokens", "truncated", "gold_log_likelihood", "gold_tokens", "rejected_log_likelihood",
    "rejected_tokens", "own_log_likelihood", "own_tokens", "other_log_likelihood",
)  # fmt: skip
READ = ("strict", "lenient", "numeric", "strict_correct", "lenient_correct", "strict_match", "flexible_extract")
_ONE_PROCESS = 1_000  # texts that are read sooner than other processes have started


def read_completion(completion: str, gold: str | None, locale: str, *, truncated: bool = False) -> Row:
    """The answer that each reader finds in a completion, and whether it is the gold one; without gold nothing is read.

    `strict` reads the schema's answer, `lenient` the last stated answer wherever it stands; `numeric` is the lenient
    answer's value, null where it is unread. `strict_match` and `flexible_extract` are lm-evaluation-harness's verdicts.
    """
    texts = sections(completion)
    if gold is None:
        return dict.fromkeys(READ) | {"completion": completion, "format": texts is not None}
    lenient = lenient_answer(completion, locale, truncated=truncated)
    strict = texts[1] if texts else None
    value = stated_value(lenient, locale) if lenient is not None else None
    return {
        "completion": completion, "strict": strict, "lenient": lenient,
        "numeric": None if value is None else str(value), "format": texts is not None,
        "strict_correct": same_answer(strict, gold, locale), "lenient_correct": same_answer(lenient, gold, locale),
        "strict_match": exact_match(strict_match(completion), gold),
        "flexible_extract": exact_match(flexible_extract(completion), gold),
    }  # fmt: skip


def read_samples(samples: Sequence[str] | None, gold: str | None, locale: str) -> Row:
    """The answers of a problem's samples, read strictly, and their majority's verdict.

    `samples_strict` holds each sample's answer as a value, so that 18 and 18.0 are one answer, or as text where it is
    no number; None where the schema was not followed. `majority` is the verdict on the most frequent answer, of several
    the first. All are None without samples, and without a gold answer.
    """
    if samples is None or gold is None:
        return {"samples_strict": None, "samples_correct": None, "majority": None}
    verdicts: dict[str | None, tuple[str | None, bool]] = {None: (None, False)}  # the same answers come again and again
    answers = []
    for sample in samples:
        answer = strict_answer(sample)
        if answer is not None and answer not in verdicts:
            value = stated_value(answer, locale)
            verdicts[answer] = (answer if value is None else str(value), same_answer(answer, gold, locale))
        answers.append(verdicts[answer])
    votes = Counter(answer for answer in answers if answer[0] is not None)
    return {
        "samples_strict": [answer for answer, _ in answers],
        "samples_correct": [correct for _, correct in answers],
        "majority": votes.most_common(1)[0][0][1] if votes else False,
    }


def grade(completions: Sequence[Row], problems: Mapping[tuple[str, str], Row]) -> list[Row]:
    """Predictions, one row a problem: id, set, before, gold, locale, solution, its difficulty, and the verdicts on base
    and trained.

    Many completions are read in as many processes as there are CPUs, with the same result.

    Args:
        completions: rows as evaluate writes them.
        problems: by (set, id), rows of gold, locale and solution.

    Raises:
        InputError: a completion's problem is missing.
    """
    keys = [(row["set"], row["id"]) for row in completions]
    for key in keys:
        if key not in problems:
            raise InputError(f"completion of {key[1]!r} in the set {key[0]!r} has no prompt; run evaluate again")
    rows = [{field: problems[key][field] for field in ("gold", "locale", "solution")} for key in keys]
    texts = sum(1 + len(row[model]["samples"] or ()) for row in completions for model in MODELS)
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if texts <= _ONE_PROCESS or processes == 1:
        return list(map(_prediction, completions, rows))
    # Forked from a small server of their own: a fork of this process would copy the locks that libraries' threads hold.
    context = multiprocessing.get_context("forkserver")
    if any(problem["solution"] is not None for problem in rows):
        context.set_forkserver_preload(["rouge_score.rouge_scorer"])  # two seconds to import, once for all
    with ProcessPoolExecutor(processes, context) as pool:
        return list(pool.map(_prediction, completions, rows, chunksize=len(keys) // (4 * processes) + 1))


def _prediction(row: Row, problem: Row) -> Row:
    gold, locale, solution = problem["gold"], problem["locale"], problem["solution"]
    prediction = {
        "id": row["id"], "set": row["set"], "before": row["before"], **problem, "difficulty": difficulty(solution)
    }  # fmt: skip
    for model in MODELS:
        completion = row[model]["completion"]
        prediction[model] = {
            **read_completion(completion, gold, locale, truncated=row[model]["truncated"]),
            "sound": None if gold is None else is_sound((sections(completion) or (None,))[0], solution),
            "rouge": None if solution is None else rouge(_reasoning(completion), solution, locale),
            **read_samples(row[model]["samples"], gold, locale),
            **{field: value for field, value in row[model].items() if field in COPIED},
        }
    return prediction


def _reasoning(completion: str) -> str:
    """The text for BLEU and ROUGE: the reasoning section, the whole text outside the schema."""
    texts = sections(completion)
    return texts[0] if texts else completion


def metrics(predictions: Sequence[Row], variants: Collection[str] = ()) -> dict[str, Any]:
    """The figures of every set, and on top those of the main one, which is the first in the file.

    Shares have Wilson's 95 % interval, means and perplexity a bootstrap interval over problems. Lengths are in tokens.
    A figure that cannot be computed (no final answers, no solutions, no samples) is None, and `paired` is without it.
    The figures of pairs (`grpo_cot.grading.pairs`) are there where the rows are pairs of answers, and those of texts
    (`grpo_cot.grading.texts.figures`) where they are texts. `best_prompt` (`grpo_cot.grading.best_prompt`) is None
    where one prompt was asked; `variants` are the sets that ask the main one's problems in another way. `before` is the
    phase whose model stands as `base`.

    Raises:
        InputError: a set has neither final answers nor pairs nor texts.
    """
    by_set: dict[str, list[Row]] = {}
    for prediction in predictions:
        by_set.setdefault(prediction["set"], []).append(prediction)
    sets = {name: _set_figures(rows) for name, rows in by_set.items()}
    main = next(iter(sets))
    best = best_prompt(by_set, variants)
    return {"set": main, "before": predictions[0]["before"], **sets[main], "best_prompt": best, "sets": sets}


def _set_figures(predictions: Sequence[Row]) -> dict[str, Any]:
    graded = predictions[0]["gold"] is not None
    solutions = [prediction["solution"] for prediction in predictions]
    rows = {model: [prediction[model] for prediction in predictions] for model in MODELS}
    figures = {model: _model_figures(rows[model], solutions, graded=graded) for model in MODELS}
    differences, warnings = {}, []
    if graded:
        for reader in READERS:
            verdicts = [[row[f"{reader}_correct"] for row in rows[model]] for model in MODELS]
            differences[f"{reader}_accuracy"] = paired(*verdicts)
        names = (predictions[0]["before"] or "base", "trained")
        unread = {name: figures[model]["unread"] for name, model in zip(names, MODELS, strict=True)}
        warnings = unread_warnings(unread, differences["lenient_accuracy"])
    result = {
        "n": len(predictions), **figures, "paired": differences, "warnings": warnings,
        "paired_samples": _paired_samples(predictions),
        "by_difficulty": by_difficulty(predictions), "length_and_accuracy": length_and_accuracy(predictions),
    }  # fmt: skip
    pairs, texts = pair_figures(predictions), text_figures(predictions)
    if not (graded or pairs or texts):
        raise InputError(
            f"the set {predictions[0]['set']!r} has no final answers, and none of its rows is a pair of answers that "
            "the model has the positions for: nothing of it can be measured"
        )
    if pairs:
        for model in MODELS:
            figures[model] |= pairs[model]
        differences["pair_accuracy"] = pairs["paired"]
        result["implicit_reward"] = pairs["implicit_reward"]
    if texts:
        for model in MODELS:
            figures[model] |= texts[model]
        result |= {"paired": texts["paired"], "texts": texts["texts"], "warnings": texts["warnings"]}
    return result


def unread_warnings(unread: Mapping[str, Mapping[str, float]], difference: Mapping[str, Any]) -> list[str]:
    """A sentence where completions that the lenient reader leaves unread could carry a difference of its accuracies.

    Every unread completion counts as wrong. A difference whose interval excludes 0 is in doubt when the shares of
    unread completions differ, the other way, by at least the interval's end that is nearer to 0.

    Args:
        unread: of the two models, in the order in which the difference is taken, the share of unread completions.
        difference: as `paired` gives it.
    """
    (before, share), (after, other) = ((name, figure["value"]) for name, figure in unread.items())
    least = max(difference["low"], -difference["high"])
    carried = share - other if difference["difference"] > 0 else other - share
    if least <= 0 or carried < least:
        return []
    return [
        f"the lenient difference may be one of reading: {share:.1%} of the completions of {before} and {other:.1%} of "
        f"those of {after} state no answer that the lenient reader finds, and count as wrong"
    ]


def _model_figures(rows: Sequence[Row], solutions: Sequence[str | None], *, graded: bool) -> dict[str, Any]:
    lengths = [row["reasoning_tokens"] for row in rows if row["reasoning_tokens"] is not None]
    length = mean(lengths) or {"value": None, "low": None, "high": None}
    pairs = [
        (_reasoning(row["completion"]), text) for row, text in zip(rows, solutions, strict=True) if text is not None
    ]
    read: dict[str, Any] = dict.fromkeys(
        ("strict_accuracy", "lenient_accuracy", "sound_accuracy", "unread", "format_adherence", "harness")
    )
    if graded:
        read = {
            "strict_accuracy": share([row["strict_correct"] for row in rows]),
            "lenient_accuracy": share([row["lenient_correct"] for row in rows]),
            "sound_accuracy": _sound_accuracy(rows),
            "unread": share([row["numeric"] is None for row in rows]),
            "format_adherence": share([row["format"] for row in rows]),
            "harness": {name: share([row[name] for row in rows]) for name in ("strict_match", "flexible_extract")},
        }
    return {
        **read,
        "reasoning_tokens": {"mean": length["value"], "low": length["low"], "high": length["high"], "n": len(lengths)},
        "completion_tokens": mean([row["tokens"] for row in rows]),
        "truncated": sum(row["truncated"] for row in rows) / len(rows),
        "perplexity": perplexity([(row["gold_log_likelihood"], row["gold_tokens"]) for row in rows]),
        "sacrebleu": bleu(*zip(*pairs, strict=True)) if pairs else None,
        **{name: mean([row["rouge"][name] for row in rows if row["rouge"]]) for name in ROUGE},
        **_sample_figures([row for row in rows if row["samples_correct"]]),
    }


def _sound_accuracy(rows: Sequence[Row]) -> dict[str, float] | None:
    """The share that is right with a sound reasoning; None where solutions are not lines of arithmetic."""
    if any(row["sound"] is None for row in rows):
        return None
    return share([row["strict_correct"] and row["sound"] for row in rows])


def _sample_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """pass@k and majority@k for k = 1, 2, 4, ... as far as every problem has samples."""
    if not rows:
        return {"pass_at": None, "majority_at": None, "noise": None}
    fewest = min(len(row["samples_correct"]) for row in rows)
    ks = [2**power for power in range(fewest.bit_length())]
    return {
        "pass_at": {str(k): mean([_pass_at(k, row) for row in rows]) for k in ks},
        "majority_at": {str(k): mean([_majority_at(k, row, number) for number, row in enumerate(rows)]) for k in ks},
        "noise": sampling_noise([(len(row["samples_correct"]), sum(row["samples_correct"])) for row in rows]),
    }


def _paired_samples(predictions: Sequence[Row]) -> dict[str, Any] | None:
    """The largest k of which both models have pass@k, its mean of each (`base`, `trained`), their paired `difference`
    with its t interval over the `n` problems, and p; None without samples."""
    rows = [prediction for prediction in predictions if all(prediction[model]["samples_correct"] for model in MODELS)]
    if not rows:
        return None
    fewest = min(len(row[model]["samples_correct"]) for row in rows for model in MODELS)
    k = 2 ** (fewest.bit_length() - 1)
    values = [[_pass_at(k, row[model]) for row in rows] for model in MODELS]
    means = {model: mean(part) for model, part in zip(MODELS, values, strict=True)}
    changes = mean_difference(*values)
    return {"k": k, "n": len(rows), **means, **{name: changes[name] for name in ("difference", "low", "high", "p")}}


def _pass_at(k: int, row: Row) -> float:
    return pass_at(k, len(row["samples_correct"]), sum(row["samples_correct"]))


def _majority_at(k: int, row: Row, number: int) -> float:
    answers = zip(row["samples_strict"], row["samples_correct"], strict=True)
    wrong = Counter(answer for answer, correct in answers if not correct)
    silent = wrong.pop(None, 0)
    return majority_at(k, sum(row["samples_correct"]), list(wrong.values()), silent, seed=number)
