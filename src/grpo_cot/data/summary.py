"""A data set's splits as prompts: summary.json, and the same in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.data.overlap import Overlap


def summarise(prompts: Sequence[Row], too_long: Sequence[str], overlap: Overlap | None, locale: str) -> dict[str, Any]:
    """A split's entry in summary.json: number of prompts, their lengths in tokens, and overlap with other splits."""
    lengths = [prompt["tokens"] for prompt in prompts]
    overlap = overlap or Overlap([], [], {})
    return {
        "prompts": len(prompts), "tokens": {"mean": sum(lengths) / len(lengths), "max": max(lengths)},
        "too_long": list(too_long), "locale": locale, "also_in_train": len(overlap.also_in_train),
        "near_train": len(overlap.near_train), "also_in": overlap.also_in,
    }  # fmt: skip


def sentence(name: str, facts: Mapping[str, Any], longest: int) -> str:
    """A split's entry of summary.json in words; `longest` is the recipe's max_prompt_length."""
    near = f", {facts['near_train']} differ from a training question only in numbers" if facts["near_train"] else ""
    return (
        f"{name}: {facts['prompts']} prompts, {len(facts['too_long'])} dropped as longer than {longest} tokens "
        f"(longest kept: {facts['tokens']['max']}){near}"
        + "".join(f", {count} also in {other}" for other, count in facts["also_in"].items())
    )
