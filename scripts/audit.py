"""Step audit: may this recipe run, do the rewards keep their promises, and do they vary on the base model's samples?"""

from argparse import Namespace
from pathlib import Path

from grpo_cot.checks.audit import base_samples, broken, judge, length_warnings
from grpo_cot.checks.recipe import check_training
from grpo_cot.common.errors import naming
from grpo_cot.common.files import Row, file_hash, read_jsonl, write_json
from grpo_cot.common.step import run
from grpo_cot.recipes.phases import GrpoPhase, PpoPhase
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.rewards.registry import OWN, TRAINED, check_columns, classes


def main(args: Namespace) -> str:
    """audit.json: broken rewards, statistics on base samples, warnings; audit-passed.json, which training waits for."""
    recipe = load_recipe(
        args.recipe, "prompt", "rewards", "reward_model", "audit", "backend", "model", "quantization", "phases",
        "accelerate",
    )  # fmt: skip
    check_training(recipe, args.recipe)
    phase = recipe.phases[0]
    if recipe.reward_model is not None:
        others = {path.stem: read_jsonl(path) for path in sorted(args.prompts.glob("eval-*.jsonl"))}
        with naming(args.prompts):
            classes(read_jsonl(args.prompts / "train.jsonl"), others)
    rows: list[Row] = []
    group, samples = 0, {}
    with naming(args.recipe):
        failures, by_length = broken(recipe.rewards), length_warnings(recipe.rewards)
    # Otherwise the rewards never see the base's own completions, or one of them is not there yet.
    if isinstance(phase, GrpoPhase | PpoPhase) and recipe.reward_model is None:
        group = phase.group_size
        rows = read_jsonl(args.prompts / "train.jsonl")[: recipe.audit.prompts]
        with naming(args.prompts / "train.jsonl"):
            check_columns(recipe.rewards, rows)
        samples = base_samples(recipe, phase, rows, args.base, args.seed)
    with naming(args.recipe):
        warnings = judge(failures, samples, recipe.audit.allow) + by_length
    later = [TRAINED] if recipe.reward_model else []
    write_json(
        args.output,
        {
            "broken": failures, "trained_later": later, "groups": len(rows), "group_size": group,
            "base_samples": samples, "warnings": warnings,
        },
    )  # fmt: skip
    # Training waits for this file and not for the figures; it changes with the code of the rewards that it names.
    named = any(name.startswith(f"{OWN}.") for name in recipe.rewards)
    own = {"own_rewards": file_hash(Path(f"{OWN}.py"))} if named else {}
    write_json(args.gate, {"passed": True, **own})
    message = "no reward sees the base's own completions; rewards checked on the golden corpus"
    if samples:
        message = f"the weighted reward varies in {samples['weighted_sum']['varies']:.0%} of {len(rows)} groups"
    message += "".join(f"; {name} is trained later, in the step train" for name in later)
    return message + "".join(f"; WARNING: {warning}" for warning in warnings)


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, base=Path, seed=int, output=Path, gate=Path)
