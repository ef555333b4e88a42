"""Step merge: one 16-bit model that plain Transformers loads, gated on parity with what was trained."""

from argparse import Namespace
from pathlib import Path

import torch
from step import run

from grpo_cot.files import InputError, new_directory, read_jsonl, write_json
from grpo_cot.merging import gate, merge, parity, save
from grpo_cot.models import load
from grpo_cot.recipes import load_recipe


def main(args: Namespace) -> str:
    """The merged folder, and merge.json with the parity figures."""
    recipe = load_recipe(args.recipe)
    section = recipe.merge
    trained, tokenizer, description = load(args.model)
    prompts = read_jsonl(args.prompts / "eval-test.jsonl")[: section.prompts]
    with new_directory(args.output) as output:
        save(
            merge(description, args.model.parent / description.path, section), tokenizer, Path(description.base), output
        )
        figures = parity(
            trained, output, tokenizer, [row["messages"] for row in prompts], recipe.prompt.chat_template_kwargs,
            section, getattr(torch, description.model.dtype),
        )  # fmt: skip
        try:
            holds = gate(figures, section, quantized=bool(description.quantization))
        except InputError as error:
            raise InputError(f"{args.recipe}: {error}") from None
    base = section.base if description.quantization else "trained"
    write_json(args.figures, {"base": base, "dtype": section.dtype, "parity_holds": holds, **figures})
    return (
        f"{section.dtype} on the {base} base: {figures['token_agreement']:.2%} of {figures['tokens']} greedy tokens "
        f"agree, logits differ by {figures['logit_difference']:.3%}{'' if holds else '; PARITY DOES NOT HOLD'}"
    )


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, model=Path, output=Path, figures=Path)
