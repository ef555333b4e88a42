"""Two runs' trained models on the same rows."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.grading.estimates import mean_difference, paired, share
from grpo_cot.grading.grade import READERS, unread_warnings
from grpo_cot.grading.pairs import ranked_right


def compare(a: Sequence[Row], b: Sequence[Row]) -> dict[str, Any]:
    """Two runs' trained models, paired on the ids of their evaluation rows: b minus a, by set, the main set on top.

    Of both accuracies and `format_adherence` where rows have final answers, of `pair_accuracy` over the `n` pairs of
    answers that both models have the positions for, and of texts of `wanted_share`, by the judge that both runs have in
    common; and of `completion_tokens`, the mean length of a completion.

    Raises:
        InputError: the runs were not evaluated on the same rows, or there is nothing to compare.
    """
    first, second = (
        {(row["set"], row["id"], row["gold"], row.get("wanted")): row["trained"] for row in rows} for rows in (a, b)
    )
    if first.keys() != second.keys():
        unpaired = sorted(first.keys() ^ second.keys(), key=str)
        raise InputError(
            f"the runs were evaluated on different rows ({len(unpaired)} unpaired, {unpaired[0][1]!r} first); "
            "give both the same data set and the same evaluate section"
        )
    sets: dict[str, Any] = {}
    for name in dict.fromkeys(row["set"] for row in a):
        keys = [key for key in first if key[0] == name]
        sides = {"a": [first[key] for key in keys], "b": [second[key] for key in keys]}
        sets[name] = {"n": len(keys), "unread": None, "warnings": []}
        measures: dict[str, Callable[[Row], bool]] = {}
        if keys[0][2] is not None:
            measures |= {f"{reader}_accuracy": itemgetter(f"{reader}_correct") for reader in READERS}
            measures["format_adherence"] = itemgetter("format")
        if wanted := keys[0][3]:
            sets[name]["wanted"] = wanted
            measures["wanted_share"] = partial(_is_judged, wanted)
        for measure, verdict in measures.items():
            verdicts = {side: list(map(verdict, rows)) for side, rows in sides.items()}
            shares = {side: share(own) for side, own in verdicts.items()}
            sets[name][measure] = {**shares, **paired(verdicts["a"], verdicts["b"])}
        tokens = {side: [row["tokens"] for row in rows] for side, rows in sides.items()}
        sets[name]["completion_tokens"] = mean_difference(tokens["a"], tokens["b"])
        ranked = [(ranked_right(one), ranked_right(other)) for one, other in zip(*sides.values(), strict=True)]
        if measured := [pair for pair in ranked if None not in pair]:
            ranks = dict(zip(("a", "b"), map(list, zip(*measured, strict=True)), strict=True))
            shares = {side: share(own) for side, own in ranks.items()}
            sets[name]["pair_accuracy"] = {**shares, **paired(ranks["a"], ranks["b"]), "n": len(measured)}
        elif not measures:
            raise InputError(f"the set {name!r} has no final answers, and no pair of answers that both runs measured")
        if "lenient_accuracy" in measures:
            unread = {side: share([row["numeric"] is None for row in rows]) for side, rows in sides.items()}
            sets[name] |= {"unread": unread, "warnings": unread_warnings(unread, sets[name]["lenient_accuracy"])}
    main = next(iter(sets))
    return {"set": main, **sets[main], "sets": sets}


def _is_judged(wanted: str, row: Row) -> bool:
    return bool(row["judged"] == wanted)
