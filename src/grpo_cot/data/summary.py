"""A data set's splits as prompts: summary.json, and the same in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.data.overlap import Overlap, repeated


def summarise(
    prompts: Sequence[Row], rows: Sequence[Row], overlap: Overlap | None, variants: Mapping[str, Sequence[Row]]
) -> dict[str, Any]:
    """A split's entry in summary.json: number of prompts, their lengths in tokens, and questions that occur twice.

    `prompts` are those of the split's `rows` that are short enough. `variants` are the prompts of the sets that ask the
    same questions with fewer worked examples: of them there is the length alone, for they are no further questions.
    """
    kept = {prompt["id"] for prompt in prompts}
    twice = repeated(row for row in rows if row["id"] in kept)
    overlap = overlap or Overlap([], [], {}, [])
    return {
        "prompts": len(prompts), "questions": len(prompts) - sum(len(question.ids) - 1 for question in twice),
        "more_than_one_gold": sum(len(question.golds) > 1 for question in twice),
        "tokens": _lengths(prompts), "also_asked_as": {name: _lengths(asked) for name, asked in variants.items()},
        "too_long": [row["id"] for row in rows if row["id"] not in kept],
        "locale": rows[0]["locale"], "also_in_train": len(overlap.also_in_train),
        "near_train": len(overlap.near_train), "also_in": overlap.also_in,
    }  # fmt: skip


def _lengths(prompts: Sequence[Row]) -> dict[str, float]:
    lengths = [prompt["tokens"] for prompt in prompts]
    return {"mean": sum(lengths) / len(lengths), "max": max(lengths)}


def sentence(name: str, facts: Mapping[str, Any], longest: int) -> str:
    """A split's entry of summary.json in words; `longest` is the recipe's max_prompt_length."""
    near = f", {facts['near_train']} differ from a training question only in numbers" if facts["near_train"] else ""
    twice = f" of {facts['questions']} different questions" if facts["questions"] < facts["prompts"] else ""
    golds = f", {facts['more_than_one_gold']} questions have more than one gold" if facts["more_than_one_gold"] else ""
    variants = f", also asked as {', '.join(facts['also_asked_as'])}" if facts["also_asked_as"] else ""
    return (
        f"{name}: {facts['prompts']} prompts{twice}, {len(facts['too_long'])} dropped as longer than {longest} tokens "
        f"(longest kept: {facts['tokens']['max']}){golds}{near}"
        + "".join(f", {count} also in {other}" for other, count in facts["also_in"].items())
        + variants
    )
