"""Judging rewards before they train anything.

*Broken*: on a golden corpus of completions whose merit is plain, a reward does not pay what it promises to pay.
*Silent*: on samples of the base model, it never varies within a group, so that it teaches nothing.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.recipes.phases import GrpoPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.rewards.promise import Promise, Reward, promise_of
from grpo_cot.rewards.registry import reward_functions


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


def broken(rewards: Mapping[str, float]) -> dict[str, list[str]]:
    """For every reward that breaks its promise, the completions on which it does so.

    A reward keeps its promise when it is positive exactly where the property holds, or, of a promise by examples, on
    the completions that it says it pays and on none that it says it never pays. One that pays in parts keeps it when it
    is at its maximum exactly there.

    Raises:
        InputError: a reward makes no promise, or fails on a completion.
    """
    functions, _ = reward_functions(rewards)
    failures: dict[str, list[str]] = {}
    for name, function in zip(rewards, functions, strict=True):
        promise = promise_of(function)
        if promise is None:
            raise InputError(
                f"the reward {name!r} makes no promise that the audit could hold it to: write @promises(...) above it "
                "(grpo_cot.rewards.promise), for instance @promises('correct')"
            )
        cases = list(_cases(promise))
        rows = [golden._asdict() | {"id": golden.title, "messages": []} for golden, _ in cases]
        lengths = [len(golden.completion.split()) for golden, _ in cases]
        values = _amounts(name, function, rows, [golden.completion for golden, _ in cases], lengths)
        threshold = max(max(values) - 1e-9 if promise.in_parts else 0.0, 1e-9)
        for (golden, due), value in zip(cases, values, strict=True):
            if due is not None and (value > threshold) != due:
                failures.setdefault(name, []).append(f"{'does not pay' if due else 'pays'} {value}: {golden.title}")
    return failures


def _cases(promise: Promise) -> Iterator[tuple[Golden, bool | None]]:
    """Completions, and whether the promise says that each is paid; None where it does not, or careful people differ."""
    for due, texts in ((True, promise.pays), (False, promise.never)):
        for text in texts:
            yield Golden(f"its own example {text[:60]!r}", text, "18", None, None, None, None, None), due
    if promise.property is not None:
        for golden in GOLDEN:
            yield golden, getattr(golden, promise.property, None)  # a placebo promises nothing


def _amounts(
    name: str, function: Reward, rows: Sequence[Mapping[str, Any]], completions: Sequence[str], lengths: Sequence[int]
) -> list[float]:
    """The amounts that a reward pays for completions, which it gets as the trainer hands them over: as messages.

    Raises:
        InputError: it fails, or returns another number of amounts.
    """
    columns: dict[str, Any] = {column: [row[column] for row in rows] for column in ("gold", "locale", "id")}
    columns["completion_ids"] = [list(range(length)) for length in lengths]
    messages = [[{"role": "assistant", "content": text}] for text in completions]
    try:
        paid = function(prompts=[row["messages"] for row in rows], completions=messages, **columns)
        amounts = [float(amount or 0.0) for amount in paid]
    except Exception as error:  # of a user's own code
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"the reward {name!r} fails on the audit's completions: {reason}") from error
    if len(amounts) != len(rows):
        raise InputError(f"the reward {name!r} returns {len(amounts)} amounts for {len(rows)} completions")
    return amounts


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
    values = {
        name: _amounts(name, function, prompts, completions, token_counts)
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
                f"the reward {name!r} is broken: it {cases[0]} ({len(cases)} of the audit's completions in "
                "all); use another one, or list it under audit.allow"
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


def base_samples(recipe: Recipe, phase: GrpoPhase, repeated: Sequence[Row], base: Path, seed: int) -> dict[str, Any]:
    """The statistics of the rewards on the base's completions of these rows, sampled as the phase will sample.

    Raises:
        InputError: the base thinks before it answers, which the recipe refuses.
    """
    # Here, because they import torch, which judging does not need.
    from grpo_cot.models.generation import encode, generate
    from grpo_cot.models.loading import load_base
    from grpo_cot.models.opening import opening, refuse_thoughts
    from grpo_cot.models.tokenizers import load_tokenizer

    sampling = {
        "do_sample": True,
        "max_new_tokens": phase.grpo["max_completion_length"],
        "temperature": phase.grpo["temperature"],
        "top_p": phase.grpo.get("top_p", 1.0),
        "top_k": phase.grpo.get("top_k", 0),
    }
    tokenizer = load_tokenizer(base)
    prompts = encode(tokenizer, [row["messages"] for row in repeated], recipe.prompt.chat_template_kwargs)
    completions = generate(
        load_base(base, recipe.model, recipe.quantization), tokenizer, prompts, sampling,
        batch_size=phase.grpo["per_device_train_batch_size"], seed=seed, progress="base samples",
    )  # fmt: skip
    refuse_thoughts([completion.text for completion in completions], recipe.prompt)
    begun = opening(tokenizer, repeated[0]["messages"], recipe.prompt)
    return group_statistics(
        recipe.rewards, repeated, [begun.judged(completion.text) for completion in completions],
        [completion.tokens for completion in completions], phase.grpo["num_generations"],
    )  # fmt: skip
