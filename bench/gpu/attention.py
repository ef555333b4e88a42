"""flash_attention_2 against sdpa on the same weights and texts: how far log-probabilities are apart, and how fast.

    python bench/gpu/attention.py --base FOLDER [--rows 8] [--length 1280]

Rows are padded at the left as in training, to different lengths. The last line is a JSON object:
`log_probability_gap` (mean absolute difference of the tokens' log-probabilities), `largest_gap`, `noise` (the same
mean between sdpa and eager attention, both exact up to rounding), and the seconds of a forward pass of each.
"""

import argparse
import gc
import json
from pathlib import Path

import torch
from ceilings import seconds
from shape import longest_prompts

from grpo_cot.models.loading import DEVICE, check_attention, load_base
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.recipe import ModelSection, PromptSection


def batch(base: Path, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask (rows, length), each row shorter than the one before, padded at the left."""
    section = PromptSection(
        system=None, examples=[], also_with=[], max_prompt_length=length, chat_template_kwargs={}, thinking="refuse"
    )
    tokenizer = load_tokenizer(base)
    texts = [
        tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True)["input_ids"]
        for row in longest_prompts(base, section, rows)
    ]
    shorter = [{"input_ids": ids[: length - 16 * number]} for number, ids in enumerate(texts)]
    padded = tokenizer.pad(shorter, padding="max_length", max_length=length, return_tensors="pt").to(DEVICE)
    return padded["input_ids"], padded["attention_mask"]


def main() -> None:
    """Compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=1280)
    args = parser.parse_args()
    check_attention(ModelSection(dtype="bfloat16", attn_implementation="flash_attention_2", threads=8))
    ids, mask = batch(args.base, args.rows, args.length)
    counted = (mask[:, 1:] * mask[:, :-1]).bool()
    chosen, times = {}, {}
    for attention in ("eager", "sdpa", "flash_attention_2"):
        model = load_base(
            args.base, ModelSection(dtype="bfloat16", attn_implementation=attention, threads=8), quantization=None
        )
        with torch.inference_mode():

            def forward(model: torch.nn.Module = model) -> torch.Tensor:
                logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
                return logits

            logits = forward()[:, :-1]
            picked = [
                row.float().log_softmax(-1).gather(-1, target[:, None])[:, 0]
                for row, target in zip(logits, ids[:, 1:], strict=True)
            ]
            chosen[attention] = torch.stack(picked)[counted]
            times[attention] = seconds(forward)
        del model, logits, forward
        gc.collect()
    gaps = (chosen["flash_attention_2"] - chosen["sdpa"]).abs()
    print(
        json.dumps(
            {
                "log_probability_gap": gaps.mean().item(),
                "largest_gap": gaps.max().item(),
                "noise": (chosen["eager"] - chosen["sdpa"]).abs().mean().item(),
                **{f"{attention}_seconds": value for attention, value in times.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
