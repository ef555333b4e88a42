"""GRPO's rewards: each is a function with its promise beside it."""

from grpo_cot.rewards.ours import (
    completion_text,
    correctness,
    correctness_in_schema,
    integer_answer,
    length_cosine,
    length_cosine_penalty,
    random,
    soft_format,
    strict_format,
    xml_count,
)
from grpo_cot.rewards.promise import promises

__all__ = [
    "completion_text", "correctness", "correctness_in_schema", "integer_answer", "length_cosine",
    "length_cosine_penalty", "promises", "random", "soft_format", "strict_format", "xml_count",
]  # fmt: skip
