"""Step audit: do the rewards pay what their names say, and do they say anything about the base model?"""

from argparse import Namespace
from pathlib import Path

from step import run

from grpo_cot.auditing import broken, group_statistics, judge
from grpo_cot.files import InputError, read_jsonl, write_json
from grpo_cot.generation import generate
from grpo_cot.library_settings import check_rewards
from grpo_cot.models import load_base
from grpo_cot.recipes import load_recipe
from grpo_cot.tokenization import load_tokenizer


def main(args: Namespace) -> str:
    """audit.json: broken rewards, statistics on base samples, warnings."""
    recipe = load_recipe(args.recipe)
    check_rewards(recipe.rewards, args.recipe)
    phase = recipe.phases[0]
    group = phase.grpo["num_generations"]
    chosen = read_jsonl(args.prompts / "train.jsonl")[: recipe.audit.prompts]
    repeated = [row for row in chosen for _ in range(group)]
    sampling = {
        "do_sample": True,
        "max_new_tokens": phase.grpo["max_completion_length"],
        "temperature": phase.grpo["temperature"],
        "top_p": phase.grpo.get("top_p", 1.0),
        "top_k": phase.grpo.get("top_k", 0),
    }
    failures = broken(recipe.rewards)
    completions = generate(
        load_base(args.base, recipe.model, recipe.quantization), load_tokenizer(args.base),
        [row["messages"] for row in repeated], sampling, batch_size=phase.grpo["per_device_train_batch_size"],
        chat_template_kwargs=recipe.prompt.chat_template_kwargs, seed=args.seed, progress="base samples",
    )  # fmt: skip
    silence = group_statistics(
        recipe.rewards, repeated, [completion.text for completion in completions],
        [completion.tokens for completion in completions], group,
    )  # fmt: skip
    try:
        warnings = judge(failures, silence, recipe.audit.allow)
    except InputError as error:
        raise InputError(f"{args.recipe}: {error}") from None
    write_json(
        args.output,
        {"broken": failures, "groups": len(chosen), "group_size": group, "base_samples": silence, "warnings": warnings},
    )
    write_json(args.gate, {"passed": True})  # training waits for this and not for the figures
    varies = silence["weighted_sum"]["varies"]
    return f"the weighted reward varies in {varies:.0%} of {len(chosen)} groups" + "".join(
        f"; WARNING: {warning}" for warning in warnings
    )


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, base=Path, seed=int, output=Path, gate=Path)
