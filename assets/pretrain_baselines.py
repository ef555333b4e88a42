"""Pretrain the embedded counterparts of GPT-2 and mT5: small models of these architectures that know the problems.

    python -m assets.pretrain_baselines gpt2 --output assets/tiny-gpt2/model
    python -m assets.pretrain_baselines mt5 --output assets/tiny-mt5/model

They read the same corpus in the same tokens as the embedded base (assets/tiny/pretrain.py), in far fewer steps:
like the models that they stand for, they have seen the language but do not yet follow the schema. Some ten minutes
each on one CPU core.
"""

import argparse
import itertools
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    GPT2Config,
    GPT2LMHeadModel,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_cosine_schedule_with_warmup,
    set_seed,
)

from assets.tiny.pretrain import corpus

SEED, BATCH, LEARNING_RATE, WARMUP = 21, 64, 3e-3, 50
STEPS = {"gpt2": 800, "mt5": 500}
TOKENIZER = Path("assets/tiny/model")


def new_model(architecture: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Random weights: 0.7 million parameters of either architecture."""
    if architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_positions=512, n_embd=128, n_layer=3, n_head=4, bos_token_id=None,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
    return MT5ForConditionalGeneration(
        MT5Config(
            vocab_size=len(tokenizer), d_model=96, d_kv=24, d_ff=192, num_layers=3, num_decoder_layers=3, num_heads=4,
            dropout_rate=0.0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


def batches(architecture: str, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Iterator[Any]:
    """Endless batches of examples of similar length, with labels on the answer alone."""
    collate = DataCollatorForSeq2Seq(tokenizer, model if architecture == "mt5" else None, padding=True)
    tokenizer.padding_side = "right"
    examples = corpus(SEED)
    order = random.Random(SEED)
    while True:
        encoded = []
        for _, messages in itertools.islice(examples, BATCH * 16):
            prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
            prompt_ids = tokenizer(prompt)["input_ids"]
            answer_ids = tokenizer(messages[-1]["content"] + tokenizer.eos_token)["input_ids"]
            if architecture == "mt5":
                encoded.append({"input_ids": prompt_ids, "labels": answer_ids})
            else:
                labels = [-100] * len(prompt_ids) + answer_ids
                encoded.append({"input_ids": prompt_ids + answer_ids, "labels": labels})
        encoded.sort(key=lambda example: len(example["input_ids"]))
        groups = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
        order.shuffle(groups)
        for group in groups:
            yield collate([{**row, "attention_mask": [1] * len(row["input_ids"])} for row in group])


def main() -> None:
    """Train the model, and write it beside its log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=("gpt2", "mt5"))
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    set_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    model = new_model(args.architecture, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS[args.architecture])
    args.output.mkdir(parents=True, exist_ok=True)
    log = (args.output.parent / "pretrain.log.jsonl").open("w")
    started, total = time.monotonic(), 0.0
    stream = itertools.islice(batches(args.architecture, tokenizer, model), STEPS[args.architecture])
    for step, batch in enumerate(stream, start=1):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.item()
        if step % 50 == 0:
            print(f"step {step}: loss {total / 50:.4f}, {(time.monotonic() - started) / step:.2f} s a step", flush=True)
            log.write(json.dumps({"step": step, "loss": round(total / 50, 4)}) + "\n")
            total = 0.0
    model.to(torch.bfloat16).save_pretrained(args.output)
    for path in TOKENIZER.iterdir():
        if path.name.startswith(("tokenizer", "chat_template")):
            shutil.copyfile(path, args.output / path.name)


if __name__ == "__main__":
    main()
