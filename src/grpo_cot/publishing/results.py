"""Evaluation results in the Hub's own layout, `.eval_results/SET.yaml`, which its leaderboards read.

Format: https://huggingface.co/docs/hub/eval-results, and huggingface_hub's `EvalResultEntry`.
"""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from grpo_cot.publishing.card import share


def leaderboard_entries(metrics: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """By evaluation set the entries of its file, of the sets that are a benchmark and were asked in full.

    A leaderboard shows one figure, of all problems: a sample of them is not it, and rows without final answers have
    none. The figure is the lenient accuracy in per cent, because a benchmark's own graders do not know our schema; the
    notes say the rest.
    """
    found = {}
    for name, figures in metrics["sets"].items():
        if name not in source["sets"]:  # the problems of another set, with fewer worked examples
            continue
        facts = source["sets"][name]
        benchmark = facts["benchmark"]
        lenient, strict = (figures["trained"][f"{reader}_accuracy"] for reader in ("lenient", "strict"))
        if benchmark is None or figures["n"] != facts["rows"] or lenient is None:
            continue
        entry = EvalResultEntry(
            dataset_id=benchmark["id"], task_id=benchmark["task_id"], value=round(100 * lenient["value"], 2),
            dataset_revision=facts["revision"] if facts["id"] == benchmark["id"] else None,
            notes=f"all {figures['n']} problems, greedy; the last stated answer {share(lenient)}; "
            f"inside the answer tags {share(strict)}; 95 % intervals",
        )  # fmt: skip
        found[name] = eval_result_entries_to_yaml([entry])
    return found
