"""Pretrain the embedded base model: about one million parameters, half an hour on two CPU cores.

    python assets/tiny/pretrain.py --output assets/tiny/model

The corpus is a *mixture of answer styles*, so that the model can do the task but does not yet know what pays, as a
real base model: it may show its steps or blurt out a guess, inside the schema or outside it, and the shorter a
problem is the likelier it answers with a bare number. A third of the examples carry one earlier exchange whose style
the answer follows, which is what makes one-shot prompting work. Evaluation structures never enter the corpus.

The result depends only on this file, `grpo_cot.problems`, the locked packages and the processor's arithmetic.
"""

import argparse
import itertools
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    get_cosine_schedule_with_warmup,
    set_seed,
)

from grpo_cot.problems.generators import Problem, problems, split_of
from grpo_cot.schema import SYSTEM_PROMPT

SEED, STEPS, BATCH, LEARNING_RATE, WARMUP, VOCABULARY = 20, 2400, 64, 2e-3, 100, 640
STYLES = ("schema, steps", "schema, guess", "steps", "bare")
WITH_SYSTEM_PROMPT = {1: (0.12, 0.18, 0.15, 0.55), 2: (0.14, 0.31, 0.15, 0.40), 3: (0.15, 0.45, 0.20, 0.20)}
WITHOUT_SYSTEM_PROMPT = (0.02, 0.03, 0.45, 0.50)
GUESSES = ("It must be {value}.", "That makes {value}.", "So there are {value}.")
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)


def write(problem: Problem, style: str, rng: random.Random) -> str:
    """The problem's answer in one of the styles."""
    steps = "\n".join(problem.steps)
    if style == "bare":
        return str(problem.value)
    if style == "steps":
        return f"{steps}\nThe answer is {problem.value}."
    reasoning = steps if style == "schema, steps" else rng.choice(GUESSES).format(value=problem.value)
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{problem.value}\n</answer>"


def corpus(seed: int) -> Iterator[tuple[list[Problem], list[dict[str, str]]]]:
    """An endless stream of (problems shown, conversation that ends with the answer to be learnt)."""
    rng = random.Random(seed)
    stream = problems("train", seed)
    while True:
        shown = list(itertools.islice(stream, 2 if rng.random() < 1 / 3 else 1))
        if any(split_of(problem.structure) == "test" for problem in shown):
            raise ValueError(f"an evaluation structure reached the corpus: {[p.structure for p in shown]}")
        system = rng.random() < 0.75
        weights = WITH_SYSTEM_PROMPT[len(shown[0].steps)] if system else WITHOUT_SYSTEM_PROMPT
        style = rng.choices(STYLES, weights)[0]
        messages = [{"role": "system", "content": SYSTEM_PROMPT}] if system else []
        for problem in shown:
            messages.append({"role": "user", "content": problem.question})
            messages.append({"role": "assistant", "content": write(problem, style, rng)})
        yield shown, messages


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with one token a digit, trained on the corpus's own text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    texts = (
        message["role"] + "\n" + message["content"]
        for _, messages in itertools.islice(corpus(seed), 20_000)
        for message in messages
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE,
        model_max_length=2048, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Endless (input ids, attention mask, labels), each (BATCH, length), of examples of similar length."""
    examples = corpus(seed)
    order = random.Random(seed)
    while True:
        encoded = []
        for _, messages in itertools.islice(examples, BATCH * 16):
            prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
            prompt_ids = tokenizer(prompt)["input_ids"]
            answer_ids = tokenizer(messages[-1]["content"] + tokenizer.eos_token)["input_ids"]
            encoded.append((prompt_ids + answer_ids, len(prompt_ids)))
        encoded.sort(key=lambda example: len(example[0]))
        groups = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
        order.shuffle(groups)
        for group in groups:
            length = max(len(ids) for ids, _ in group)
            input_ids = torch.full((BATCH, length), tokenizer.pad_token_id)
            mask, labels = torch.zeros_like(input_ids), torch.full_like(input_ids, -100)
            for row, (ids, prompt_length) in enumerate(group):
                input_ids[row, : len(ids)] = torch.tensor(ids)
                mask[row, : len(ids)] = 1
                labels[row, prompt_length : len(ids)] = torch.tensor(ids[prompt_length:])
            yield input_ids, mask, labels


def main() -> None:
    """Train the tokenizer and the model, and write both with the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    torch.set_num_threads(2)
    set_seed(SEED)
    tokenizer = train_tokenizer(SEED)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True,
            rope_theta=10_000.0, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS)
    output.mkdir(parents=True, exist_ok=True)
    log = (output.parent / "pretrain.log.jsonl").open("w")
    started, total = time.monotonic(), 0.0
    for step, (input_ids, mask, labels) in enumerate(itertools.islice(batches(tokenizer, SEED), STEPS), start=1):
        hidden = model.model(input_ids=input_ids, attention_mask=mask).last_hidden_state[:, :-1]
        answer = labels[:, 1:] != -100  # logits are computed only where a label stands
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[answer]), labels[:, 1:][answer])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.item()
        if step % 50 == 0:
            print(
                f"step {step}/{STEPS}: loss {total / 50:.4f}, {(time.monotonic() - started) / step:.2f} s a step",
                flush=True,
            )
            log.write(json.dumps({"step": step, "loss": round(total / 50, 4)}) + "\n")
            total = 0.0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens: {output}")


if __name__ == "__main__":
    main()
