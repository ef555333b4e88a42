"""`make plan EXPERIMENT=NAME`: what a recipe would do and the GPU memory that it needs, before anything runs."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from grpo_cot.common.errors import InputError
from grpo_cot.memory.plan import CARDS, PhasePlan, Plan, plan
from grpo_cot.training.workload import USABLE


def main() -> None:
    """Print the plan, or say in one sentence why there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", nargs="?", help="a recipe (experiments/NAME.yaml), or a run of params.yaml")
    parser.add_argument("--dataset", help="where params.yaml does not say it: sources/datasets/NAME.yaml")
    parser.add_argument("--base", help="where params.yaml does not say it: sources/bases/NAME.yaml")
    args = parser.parse_args()
    root = Path(__file__).parent.parent
    try:
        if args.experiment is None:
            raise InputError("name a recipe (experiments/NAME.yaml) or a run of params.yaml: make plan EXPERIMENT=NAME")
        result = plan(root, args.experiment, args.dataset, args.base)
    except InputError as error:
        sys.exit(f"plan: {str(error).replace(f'{root}/', '')}")
    print("\n".join(lines(result)))


def lines(found: Plan) -> Iterator[str]:
    """The plan as text."""
    yield f"{found.recipe} on {found.dataset} from {found.base}: valid for the installed libraries."
    quantized = f", {found.quantized_parameters:,} of them quantized" if found.quantized_parameters else ""
    yield f"  parameters: {found.parameters:,}{quantized}; trained: {found.trained_parameters:,}"
    yield f"  training rows: {'unknown' if found.rows.count is None else f'{found.rows.count:,}'} ({found.rows.origin})"
    if found.processes > 1:
        yield f"  processes: {found.processes}; memory is one process's, nothing sharded"
    if found.reward_model:
        yield ""
        yield "Reward model, before the phases"
        yield from _phase(found.reward_model)
    for number, phase in enumerate(found.phases, start=1):
        yield ""
        yield f"Phase {number}, {phase.method}"
        yield from _phase(phase)


def _phase(phase: PhasePlan) -> Iterator[str]:
    unit = {
        "grpo": "completions", "ppo": "completions", "dpo": "pairs", "rejection_sampling": "own right completions",
        "reward_model": "texts", "sft": "given answers",
    }  # fmt: skip
    steps = "unknown until the rows are" if phase.steps is None else f"{phase.steps:,}"
    epochs = "unknown until the rows are" if phase.epochs is None else f"{phase.epochs:.2f}"
    yield f"  steps: {steps}; epochs over the training rows: {epochs}"
    prompts = (
        f"{phase.prompts:,} {'prompt' if phase.prompts == 1 else 'prompts'} and " if phase.method == "grpo" else ""
    )
    examples = f"{phase.examples:,} {unit.get(phase.method, 'worked solutions')}"
    yield f"  a step: {prompts}{examples}, at most {phase.tokens:,} tokens"
    for note in phase.notes:
        yield f"  note: {note}"
    yield "  GPU memory, estimated, not measured:"
    memory = phase.memory
    moments = [
        ("throughout", memory.kept),
        ("in a training step", memory.training),
        ("in the optimiser's step", memory.update),
        ("while sampling", memory.sampling),
    ]
    for moment, parts in moments:
        for part, size in parts.items():
            yield f"    {part:<18} {_size(size)}  {moment}"
    yield f"    {'peak':<18} {_size(memory.total)}  throughout, and the fullest of the others"
    with_vllm = f", vLLM's {phase.vllm.share:.0%} included" if phase.vllm else ""
    cards = [f"{card} GB {'yes' if phase.fits(card) else 'no'}" for card in CARDS]
    yield f"    fits a card ({USABLE:.0%} of it is used at most{with_vllm}): {', '.join(cards)}"


def _size(size: int) -> str:
    return f"{size / 2**30:8,.2f} GiB" if size >= 2**30 else f"{size / 2**20:8,.1f} MiB"


if __name__ == "__main__":
    main()
