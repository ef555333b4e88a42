"""How often the model that a phase starts from answers each training prompt rightly, and the prompts that are kept.

The draw is a part of the training and no step of its own, because a later phase starts from a model that exists only
there. It is kept by its content (prompts, model, sampling, code), outside any run: another seed, another reward or
another band on the same base pays nothing for it.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, file_hashes, read_json, write_json
from grpo_cot.models.generation import sampled
from grpo_cot.models.loading import DEVICE, unsharded
from grpo_cot.recipes.phases import GrpoPhase, PassRatesSection, Phase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.resuming import exclusive, fingerprint, loaded_code
from grpo_cot.rewards.registry import check_golds
from grpo_cot.training.examples import judged_draws
from grpo_cot.training.methods.setup import MAIN

CACHE = Path(".cache/pass-rates")  # in the checkout, where every step runs
SEED = 0  # of the draw, which all seeds of a recipe share
DECISIVE_CODE = (
    "grpo_cot.models", "grpo_cot.rewards", "grpo_cot.answers", "grpo_cot.schema", "grpo_cot.numbers",
    "grpo_cot.training.examples", "grpo_cot.training.signal",
)  # fmt: skip


def prompts_with_signal(
    recipe: Recipe, phase: Phase, prompts: Sequence[Row], start: Path, packages: Mapping[str, str],
    tokenizer: PreTrainedTokenizerBase, load: Callable[[], Any],
) -> tuple[Sequence[Row], dict[str, float] | None]:  # fmt: skip
    """The prompts that a phase trains on, and where the recipe keeps a band of pass rates, those of all drawn ones.

    Args:
        start: the folder of the model that the phase starts from.
        load: gives that model; it is not called where the draw is there.

    Raises:
        InputError: a prompt has no final answer, or fewer prompts are kept than are asked at once.
    """
    if not isinstance(phase, GrpoPhase) or (section := phase.pass_rates) is None:
        return prompts, None
    rates = _pass_rates(recipe, section, prompts, start, packages, tokenizer, load)
    kept, sentence = kept_prompts(prompts, rates, section, phase.prompts_at_once(recipe.processes), phase.group_size)
    if MAIN:
        print(sentence, flush=True)
    return kept, rates


def _pass_rates(
    recipe: Recipe, section: PassRatesSection, prompts: Sequence[Row], start: Path, packages: Mapping[str, str],
    tokenizer: PreTrainedTokenizerBase, load: Callable[[], Any],
) -> dict[str, float]:  # fmt: skip
    """Of each drawn prompt, by its id, the share of `section.count` completions that are right in the schema."""
    check_golds(prompts)
    rows = sampled(prompts, section.problems, SEED)
    code = {name: value for name, value in loaded_code().items() if name.startswith(DECISIVE_CODE)}
    parts = {
        "rows": [[row["id"], row["messages"], row["gold"], row["locale"]] for row in rows],
        "draw": section.model_dump(include={"count", "sampling", "batch_size"}),
        "prompt": recipe.prompt.model_dump(include={"chat_template_kwargs", "thinking"}),
        "model": recipe.model.model_dump(), "quantization": recipe.quantization, "start": file_hashes(start),
        "packages": dict(packages), "device": DEVICE, "code": code,
    }  # fmt: skip
    file = CACHE / f"{fingerprint(parts)}.json"
    with exclusive(CACHE):  # of several processes, or runs, the first draws
        if not file.is_file():
            with unsharded():
                model = load()
            drawn = judged_draws(model, tokenizer, rows, section, recipe.prompt, SEED)
            right = {
                row["id"]: fmean(is_right for _, is_right in group) for row, group in zip(rows, drawn, strict=True)
            }
            write_json(file, right)
            del model
            gc.collect()
            torch.cuda.empty_cache()
    return dict(read_json(file))


def kept_prompts(
    prompts: Sequence[Row], rates: Mapping[str, float], section: PassRatesSection, groups: int, group: int
) -> tuple[list[Row], str]:
    """The prompts whose rate is within the band, in the section's order, and a sentence on all of them.

    Args:
        groups: how many prompts are asked at once.
        group: completions to a prompt.

    Raises:
        InputError: fewer prompts are left than are asked at once.
    """
    drawn = [row for row in prompts if row["id"] in rates]
    kept = [row for row in drawn if section.low <= rates[row["id"]] <= section.high]
    never, always = (sum(rates[row["id"]] == end for row in drawn) for end in (0, 1))
    course = (
        f"of {section.count} completions to each of {len(drawn)} prompts, all are right in {always / len(drawn):.0%} "
        f"and none in {never / len(drawn):.0%}"
    )
    if len(kept) < groups:
        raise InputError(
            f"{course}: {len(kept)} prompts have a pass rate from {section.low:g} to {section.high:g}, fewer than "
            f"the {groups} that are asked at once; put a phase sft before this one, show an example (prompt.examples), "
            "take an easier data set, draw more prompts (pass_rates.problems), or widen the band"
        )
    before, after = (signal_share([rates[row["id"]] for row in rows], group) for rows in (drawn, kept))
    sentence = (
        f"{course[0].upper()}{course[1:]}. {len(kept)} prompts with a pass rate from {section.low:g} to "
        f"{section.high:g} are kept: of groups of {group} completions {after:.0%} should carry signal, and of those to "
        f"all drawn prompts {before:.0%}."
    )
    if section.order is not None:  # sorting keeps the order of equals
        kept.sort(key=lambda row: -rates[row["id"]])
    return kept, sentence


def signal_share(rates: Sequence[float], group: int) -> float:
    """The expected share of groups with both right and wrong completions: the mean of 1 - p^G - (1 - p)^G.

    The rates are taken for the probabilities, so that a prompt whose few draws agree counts as one without signal.

    >>> signal_share([0.5, 0.0], 2)
    0.25
    """
    return fmean(1 - rate**group - (1 - rate) ** group for rate in rates)
