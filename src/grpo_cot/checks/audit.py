"""Judging rewards before they train anything.

*Broken*: on a golden corpus of completions whose merit is plain, a reward does not pay what it promises to pay, or it
pays a wrong answer by its length.
*Silent*: on samples of the base model, it never varies within a group, so that it teaches nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_cot.checks.golden import GOLDEN, WRONG_LONG, WRONG_SHORT, Golden
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row
from grpo_cot.recipes.phases import GrpoPhase, PpoPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.rewards.groups import amounts, is_silent, sample_warnings
from grpo_cot.rewards.ours import LENGTH_TOKENS
from grpo_cot.rewards.promise import Promise, Reward, promise_of
from grpo_cot.rewards.registry import Measure, reward_functions, untrained
from grpo_cot.schema import TAGS


def broken(rewards: Mapping[str, float]) -> dict[str, list[str]]:
    """For every reward that breaks its promise, the completions on which it does so.

    A reward keeps its promise when it is positive exactly where the property holds, or, of a promise by examples, on
    the completions that it says it pays and on none that it says it never pays. One that pays in parts keeps it when it
    is at its maximum exactly there, and pays nothing for a text without a tag. One that promises a property must pay a
    wrong answer alike at any length. One that is trained later is not asked.

    Raises:
        InputError: a reward makes no promise, or fails on a completion.
    """
    functions, _ = reward_functions(rewards, measure=Measure(_words, LENGTH_TOKENS))
    failures: dict[str, list[str]] = {}
    for name, function in zip(rewards, functions, strict=True):
        promise = promise_of(function)
        if function is untrained:
            continue
        if promise is None:
            raise InputError(
                f"the reward {name!r} makes no promise that the audit could hold it to: write @promises(...) above it "
                "(grpo_cot.rewards.promise), for instance @promises('correct')"
            )
        cases = list(_cases(promise))
        rows = [golden._asdict() | {"id": golden.title, "messages": []} for golden, _ in cases]
        lengths = [len(golden.completion.split()) for golden, _ in cases]
        paid = amounts(name, function, rows, [golden.completion for golden, _ in cases], lengths)
        values = [amount or 0.0 for amount in paid]  # one that it does not judge it does not pay
        threshold = max(max(values) - 1e-9 if promise.in_parts else 0.0, 1e-9)
        for (golden, due), value in zip(cases, values, strict=True):
            # A part is paid for a part of the tags, and none for a text without any.
            least = threshold if any(tag in golden.completion for tag in TAGS) else 1e-9
            if due is not None and (value > least) != due:
                failures.setdefault(name, []).append(f"{'does not pay' if due else 'pays'} {value}: {golden.title}")
        if promise.property not in (None, "nothing") and (case := _paid_by_length(name, function)):
            failures.setdefault(name, []).append(case)
    return failures


def _words(text: list[str], *, add_special_tokens: bool) -> dict[str, list[list[str]]]:
    """In the place of a tokenizer, which the audit of the golden corpus has none of: words."""
    return {"input_ids": [part.split() for part in text]}


def _cases(promise: Promise) -> Iterator[tuple[Golden, bool | None]]:
    """Completions, and whether the promise says that each is paid; None where it does not, or careful people differ."""
    for due, texts in ((True, promise.pays), (False, promise.never)):
        for text in texts:
            yield Golden(f"its own example {text[:60]!r}", text, "18", ""), due
    if promise.property is not None:
        for golden in GOLDEN:
            yield golden, None if promise.property == "nothing" else golden.verdict(promise.property)


def _paid_by_length(name: str, function: Reward) -> str | None:
    """What a reward pays for one wrong answer in two lengths, where that differs; None where it does not.

    The text is the same while the tokens differ, then the text differs as well: a reward may measure either.
    """
    texts = [WRONG_SHORT, WRONG_SHORT, WRONG_LONG]
    lengths = [12, 400, 4000]
    rows = [{"messages": [], "gold": "18", "locale": "en", "id": "a wrong answer in two lengths"}] * len(texts)
    short, *long = (amount or 0.0 for amount in amounts(name, function, rows, texts, lengths))
    other = next((amount for amount in long if abs(amount - short) > 1e-9), None)
    return None if other is None else f"pays {short:g} for a wrong answer, and {other:g} for the same one at length"


def length_warnings(rewards: Mapping[str, float]) -> list[str]:
    """Sentences on rewards that promise by examples and pay wrong completions by their length.

    Such a promise may be about length; of a reward that promises a property, `broken` finds it.

    Raises:
        InputError: a reward fails.
    """
    functions, _ = reward_functions(rewards, measure=Measure(_words, LENGTH_TOKENS))
    warnings = []
    for name, function in zip(rewards, functions, strict=True):
        promise = promise_of(function)
        if promise and promise.property is None and (case := _paid_by_length(name, function)):
            warnings.append(f"{name} {case}: where nothing is right, it teaches length")
    return warnings


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
    if silence and is_silent(silence):
        raise InputError(
            "the rewards are silent: on the base model's samples their weighted sum varies in no group, so that "
            "training would learn nothing; add a reward that the base sometimes earns, or more samples (audit.prompts)"
        )
    warnings = [f"{name} is broken and allowed: it {cases[0]}" for name, cases in failures.items()]
    return warnings + (sample_warnings(silence, "the base model's samples") if silence else [])


def base_samples(
    recipe: Recipe, phase: GrpoPhase | PpoPhase, prompts: Sequence[Row], base: Path, seed: int
) -> dict[str, Any]:
    """The statistics of the rewards on a group of the base's completions to each prompt, drawn as the phase will.

    Raises:
        InputError: the base thinks before it answers, which the recipe refuses.
    """
    # Here, because they import torch, which judging does not need.
    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.rewards.sampling import Sampler

    model = load_base(base, recipe.model, recipe.quantization)
    return Sampler(model, load_tokenizer(base), recipe, phase, seed, "base samples").statistics(prompts)
