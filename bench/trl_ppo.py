"""TRL 0.11.4's PPO on prompts of token ids, timed: the peer that `bench/ppo_step.py` starts with a Python of its own.

It reads JSON, and its last line is a JSON list: the seconds of each rollout with its epochs.
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer


def main() -> None:
    """Train as the JSON on standard input says."""
    given = json.load(sys.stdin)
    torch.set_num_threads(given["threads"])
    settings, base = given["settings"], given["base"]
    # Its Transformers do not know the class that ours write into a tokenizer's configuration.
    named = json.loads((Path(base) / "tokenizer_config.json").read_text())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(base) / "tokenizer.json"), eos_token=named["eos_token"], pad_token=named["pad_token"],
        padding_side="left",
    )  # fmt: skip
    models = [AutoModelForCausalLMWithValueHead.from_pretrained(base, torch_dtype=torch.float32) for _ in range(2)]
    size = settings["batch_size"]
    configuration = PPOConfig(
        seed=1, batch_size=size, mini_batch_size=size, ppo_epochs=settings["ppo_epochs"],
        learning_rate=settings["learning_rate"], init_kl_coef=settings["init_kl_coef"], adap_kl_ctrl=False,
        gamma=settings["gamma"], lam=settings["lam"], cliprange=settings["cliprange"],
        cliprange_value=settings["cliprange_value"], vf_coef=settings["vf_coef"], optimize_cuda_cache=False,
    )  # fmt: skip
    trainer = PPOTrainer(configuration, *models, tokenizer)
    sampling = {
        "do_sample": True, "top_k": 0, "top_p": 1.0, "max_new_tokens": given["tokens"],
        "min_new_tokens": given["tokens"], "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    seconds = []
    for start in range(0, len(given["prompts"]), size):
        began = time.perf_counter()
        queries = [torch.tensor(ids) for ids in given["prompts"][start : start + size]]
        responses = trainer.generate(queries, return_prompt=False, batch_size=size, **sampling)
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        trainer.step(queries, responses, [torch.tensor(text.count("1") / 10) for text in texts])
        seconds.append(time.perf_counter() - began)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
