"""Judging rewards before they train anything.

*Broken*: on a golden corpus of completions whose merit is plain, a reward does not pay what its name says. *Silent*: on
samples of the base model, it never varies within a group, so that it teaches nothing.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grpo_cot.files import InputError
from grpo_cot.rewards.ours import reward_functions


class Golden(NamedTuple):
    """A completion, its gold answer, and which properties it has; None where careful people would differ."""

    title: str
    completion: str
    gold: str
    strict: bool | None
    soft: bool | None
    tags: bool | None
    integer: bool | None
    correct: bool | None
    locale: str = "en"


def _in_schema(answer: str, reasoning: str = "12 + 6 = 18\nSo there are 18.", end: str = "") -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>{end}"


GOLDEN = (
    Golden("reasoning on several lines, ending at </answer>", _in_schema("18"), "18", True, True, True, True, True),
    Golden("a line break after </answer>", _in_schema("18", end="\n"), "18", True, True, True, True, True),
    Golden("reasoning on one line", _in_schema("18", "12 + 6 = 18"), "18", True, True, True, True, True),
    Golden("a wrong answer", _in_schema("19"), "18", True, True, True, True, False),
    Golden("a comma in the answer", _in_schema("1,234"), "1234", True, True, True, True, True),
    Golden("a negative answer", _in_schema("-5"), "-5", True, True, True, True, True),
    Golden("a dropped sign", _in_schema("5"), "-5", True, True, True, True, False),
    Golden("a whole number written as a decimal", _in_schema("18.0"), "18", True, True, True, True, True),
    Golden("a decimal answer", _in_schema("2.50"), "2.5", True, True, True, False, True),
    Golden("a currency sign", _in_schema("$18"), "18", True, True, True, True, True),
    Golden("a unit", _in_schema("18 dollars"), "18", True, True, True, True, True),
    Golden("a superscript, which is no integer", _in_schema("²"), "2", True, True, True, False, False),
    Golden("words for an answer", _in_schema("many"), "18", True, True, True, False, False),
    Golden("the schema on one line", "<reasoning>12 + 6 = 18</reasoning><answer>18</answer>", "18",
           False, True, None, True, True),
    Golden("a bare number", "18", "18", False, False, False, False, False),
    Golden("worked steps without tags", "12 + 6 = 18\nThe answer is 18.", "18", False, False, False, False, False),
    Golden("Vietnamese thousands", _in_schema("70.000 đồng"), "70000", True, True, True, True, True, "vi"),
    Golden("a Vietnamese decimal", _in_schema("2,5"), "2.5", True, True, True, False, True, "vi"),
    Golden("a Vietnamese decimal with the point for thousands", _in_schema("2.500"), "2.5",
           True, True, True, True, False, "vi"),
    Golden("cut off before the answer", "<reasoning>\n12 + 6 = 18", "18", False, False, False, False, False),
)  # fmt: skip
# By what each reward's name says: which property it pays for. A placebo promises nothing.
PROMISES = {
    "strict_format": "strict",
    "soft_format": "soft",
    "xml_count": "tags",
    "integer_answer": "integer",
    "correctness": "correct",
    "correctness_in_schema": "correct",
    "length_cosine": "correct",
    "length_cosine_penalty": "correct",
}


def broken(rewards: Mapping[str, float]) -> dict[str, list[str]]:
    """For every reward that does not pay what its name says, the golden completions on which it fails.

    A reward keeps its promise when it is positive exactly where the property holds; `xml_count`, which pays in parts,
    when it is at its maximum exactly there.
    """
    functions, _ = reward_functions(rewards)
    failures: dict[str, list[str]] = {}
    completions = [golden.completion for golden in GOLDEN]
    columns: dict[str, Any] = {
        "gold": [golden.gold for golden in GOLDEN],
        "locale": [golden.locale for golden in GOLDEN],
        "id": [golden.title for golden in GOLDEN],
        "completion_ids": [list(range(len(golden.completion.split()))) for golden in GOLDEN],
    }
    for name, function in zip(rewards, functions, strict=True):
        promise = PROMISES.get(name.removeprefix("published_"))
        if promise is None:
            continue
        values = function(["" for _ in GOLDEN], completions, **columns)
        threshold = max(value or 0.0 for value in values) - 1e-9 if promise == "tags" else 1e-9
        for golden, value in zip(GOLDEN, values, strict=True):
            due = getattr(golden, promise)
            if due is not None and ((value or 0.0) > max(threshold, 1e-9)) != due:
                failures.setdefault(name, []).append(f"{'does not pay' if due else 'pays'} {value}: {golden.title}")
    return failures


def group_statistics(
    rewards: Mapping[str, float], prompts: Sequence[Mapping[str, Any]], completions: Sequence[str],
    token_counts: Sequence[int], group: int,
) -> dict[str, Any]:  # fmt: skip
    """How each reward, and the weighted sum of the paid ones, behaves on the base model's samples.

    Args:
        prompts: one row a completion, with `messages`, `gold`, `locale` and `id`; `group` neighbours share a prompt.

    Returns:
        For each reward and for `weighted_sum`: mean, largest, and `varies`, the share of groups in which it varies.
    """
    functions, weights = reward_functions(rewards)
    columns: dict[str, Any] = {
        "gold": [prompt["gold"] for prompt in prompts],
        "locale": [prompt["locale"] for prompt in prompts],
        "id": [prompt["id"] for prompt in prompts],
        "completion_ids": [range(count) for count in token_counts],
    }
    conversations = [prompt["messages"] for prompt in prompts]
    values = {
        name: [value or 0.0 for value in function(conversations, list(completions), **columns)]
        for name, function in zip(rewards, functions, strict=True)
    }
    values["weighted_sum"] = [
        sum(weight * values[name][row] for name, weight in zip(rewards, weights, strict=True))
        for row in range(len(prompts))
    ]
    return {
        name: {
            "mean": statistics.fmean(column),
            "largest": max(column),
            "varies": statistics.fmean(
                max(column[start : start + group]) > min(column[start : start + group])
                for start in range(0, len(column), group)
            ),
        }
        for name, column in values.items()
    }


def judge(failures: Mapping[str, Sequence[str]], silence: Mapping[str, Any], allow: Sequence[str]) -> list[str]:
    """Warnings; what must stop the run raises. `silence` is empty where no reward sees the base's own completions.

    Raises:
        InputError: a reward is broken and not allowed by name, or the weighted sum varies in no group.
    """
    for name, cases in failures.items():
        if name not in allow:
            raise InputError(
                f"the reward {name!r} is broken: it {cases[0]} ({len(cases)} of {len(GOLDEN)} golden completions "
                "fail); use another one, or list it under audit.allow"
            )
    if silence and silence["weighted_sum"]["varies"] == 0:
        raise InputError(
            "the rewards are silent: on the base model's samples their weighted sum varies in no group, so that "
            "training would learn nothing; add a reward that the base sometimes earns, or more samples (audit.prompts)"
        )
    warnings = [f"{name} is broken and allowed: it {cases[0]}" for name, cases in failures.items()]
    warnings += [
        f"{name} never varies on the base model's samples (it is {facts['mean']:.2f} throughout)"
        for name, facts in silence.items()
        if facts["varies"] == 0
    ]
    return warnings
