"""The base at its own best prompt, beside the trained model at the recipe's: a gain that a prompt alone would bring is
none of the training's."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.grading.estimates import paired, share

READERS = ("strict", "lenient")


def best_prompt(by_set: Mapping[str, Sequence[Row]], variants: Collection[str]) -> dict[str, Any] | None:
    """By reader, the set among the main one and its `variants` in which the base does best, and what the trained
    model's main answers are above that: `set`, `base` (a share), and the paired `difference`. `tried` names all sets.

    The prompt is chosen on the problems that are reported, which can only favour the base. None where the main set,
    which is the first, has no variant or no final answers.
    """
    main, rows = next(iter(by_set.items()))
    tried = [name for name in by_set if name == main or name in variants]
    if len(tried) == 1 or rows[0]["gold"] is None:
        return None
    trained = {row["id"]: row["trained"] for row in rows}
    figures: dict[str, Any] = {"tried": tried}
    for reader in READERS:
        field = f"{reader}_correct"
        right = {name: {row["id"]: row["base"][field] for row in by_set[name]} for name in tried}
        best = max(tried, key=lambda name: sum(right[name].values()) / len(right[name]))
        both = [name for name in right[best] if name in trained]
        before, after = [right[best][name] for name in both], [trained[name][field] for name in both]
        figures[f"{reader}_accuracy"] = {"set": best, "base": share(before), "difference": paired(before, after)}
    return figures
