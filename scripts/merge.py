"""Step merge: one 16-bit model that plain Transformers loads, gated on parity with what was trained."""

import sys
import time
from argparse import Namespace
from pathlib import Path

from grpo_cot.common.errors import naming
from grpo_cot.common.files import new_directory, read_jsonl, write_json
from grpo_cot.common.step import run
from grpo_cot.merging.parity import gate, loss, parity_process, peak_memory, resident_memory
from grpo_cot.models.description import read_description
from grpo_cot.recipes.recipe import load_recipe


def main(args: Namespace) -> str:
    """The merged folder, and merge.json with the parity figures; peaks of memory go to the record."""
    recipe = load_recipe(args.recipe, "prompt", "merge")
    section = recipe.merge
    description = read_description(args.model)
    conversations = [row["messages"] for row in read_jsonl(args.prompts / "eval-test.jsonl")[: section.prompts]]
    with new_directory(args.output) as output, parity_process() as parity:
        # Here, so that both processes import torch at the same time.
        from grpo_cot.merging.merge import merge
        from grpo_cot.models.tokenizers import load_tokenizer
        from grpo_cot.models.turns import state_turn_end

        imported = resident_memory()
        tokenizer = load_tokenizer(Path(description.base))
        started = time.monotonic()
        reason = merge(description, args.model.parent / description.path, section, tokenizer, output)
        state_turn_end(output, tokenizer)
        if reason:
            print(f"Merged with the whole model in memory, because {reason}.", file=sys.stderr)
        args.measured["merging_seconds"] = round(time.monotonic() - started, 2)
        args.measured["merging_mib_above_imports"] = (peak_memory() - imported) // 2**20
        figures, peak = parity(args.model, output, conversations, recipe.prompt.chat_template_kwargs, section)
        args.measured["parity_mib_above_imports"] = peak // 2**20
        with naming(args.recipe):
            holds = gate(figures, section, quantized=bool(description.quantization))
    base = section.base if description.quantization else "trained"
    sentence = loss(figures, section.dtype) if holds else None
    write_json(args.figures, {"base": base, "dtype": section.dtype, "parity_holds": holds, "loss": sentence, **figures})
    kept = "" if figures["kept"] is None else f", {figures['kept']:.1%} of the training's effect kept"
    return (
        f"{section.dtype} on the {base} base: {figures['token_agreement']:.2%} of {figures['tokens']} greedy tokens "
        f"agree{kept}{'' if holds else '; PARITY DOES NOT HOLD'}{f'. {sentence}' if sentence else ''}"
    )


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, model=Path, output=Path, figures=Path)
