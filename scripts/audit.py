"""Step audit: do the rewards pay what their names say, and do they say anything about the base model?"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from grpo_cot.audit import broken, group_statistics, judge
from grpo_cot.files import InputError, Row, read_jsonl, write_json
from grpo_cot.library.settings import check_rewards
from grpo_cot.recipes.recipe import GrpoPhase, Recipe, load_recipe
from grpo_cot.step import run


def main(args: Namespace) -> str:
    """audit.json: broken rewards, statistics on base samples, warnings."""
    recipe = load_recipe(args.recipe)
    check_rewards(recipe.rewards, args.recipe)
    failures = broken(recipe.rewards)
    phase = recipe.phases[0]
    chosen: list[Row] = []
    group, silence = 0, {}
    if isinstance(phase, GrpoPhase):  # otherwise the rewards never see the base's own completions
        group = phase.grpo["num_generations"]
        chosen = read_jsonl(args.prompts / "train.jsonl")[: recipe.audit.prompts]
        silence = base_samples(recipe, phase, [row for row in chosen for _ in range(group)], args.base, args.seed)
    try:
        warnings = judge(failures, silence, recipe.audit.allow)
    except InputError as error:
        raise InputError(f"{args.recipe}: {error}") from None
    write_json(
        args.output,
        {"broken": failures, "groups": len(chosen), "group_size": group, "base_samples": silence, "warnings": warnings},
    )
    write_json(args.gate, {"passed": True})  # training waits for this and not for the figures
    said = "the base's own completions are not what the first phase learns from; rewards checked on the golden corpus"
    if silence:
        said = f"the weighted reward varies in {silence['weighted_sum']['varies']:.0%} of {len(chosen)} groups"
    return said + "".join(f"; WARNING: {warning}" for warning in warnings)


def base_samples(recipe: Recipe, phase: GrpoPhase, repeated: list[Row], base: Path, seed: int) -> dict[str, Any]:
    """What the rewards pay for the base's completions of these rows, sampled as the phase will sample."""
    # Here, because they import torch, which a recipe without such samples does not need.
    from grpo_cot.generation import generate
    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer

    sampling = {
        "do_sample": True,
        "max_new_tokens": phase.grpo["max_completion_length"],
        "temperature": phase.grpo["temperature"],
        "top_p": phase.grpo.get("top_p", 1.0),
        "top_k": phase.grpo.get("top_k", 0),
    }
    completions = generate(
        load_base(base, recipe.model, recipe.quantization), load_tokenizer(base),
        [row["messages"] for row in repeated], sampling, batch_size=phase.grpo["per_device_train_batch_size"],
        chat_template_kwargs=recipe.prompt.chat_template_kwargs, seed=seed, progress="base samples",
    )  # fmt: skip
    return group_statistics(
        recipe.rewards, repeated, [completion.text for completion in completions],
        [completion.tokens for completion in completions], phase.grpo["num_generations"],
    )  # fmt: skip


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, base=Path, seed=int, output=Path, gate=Path)
