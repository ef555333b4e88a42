"""Pretraining a small base in the pipeline, on generated problems, so that a real story needs no download.

The corpus is of the kind that the embedded base saw (assets/tiny/pretrain.py, the record of its weights): a mixture of
answer styles. So the model can do the task but does not know yet which style pays, as a real base model. It may show
its steps or blurt out a guess, inside the schema or outside it. Held-out structures never enter it.

Differences from there: the shares stand in the source file, the stream comes in chunks with seeds of their own, so that
a resumed training goes on where the interrupted one stopped, and a GPU computes in bfloat16 where it can. On one device
the same source gives the same bytes; on another device, or with other packages, other ones.
"""

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProgressCallback, Trainer, TrainingArguments

from grpo_cot.bases.sources import Pretraining
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message
from grpo_cot.ending import resume_training
from grpo_cot.models.turns import answer_ids
from grpo_cot.problems.generators import GENERATORS, Problem
from grpo_cot.resuming import last_whole_checkpoint
from grpo_cot.schema import SYSTEM_PROMPT, worked

GUESSES = ("It must be {value}.", "That makes {value}.", "So there are {value}.")
CHUNK = 16  # batches that are sorted by length together
THREADS = 2  # on a CPU; results depend on it
# Parameters times examples: some three hours on two CPU cores (the embedded base's 1.4e11 took half an hour).
CPU_LIMIT = 1e12
LOGGING_STEPS = 10
Example = dict[str, list[int]]


def write(problem: Problem, style: str, rng: random.Random) -> str:
    """The problem's answer in one of the styles (`grpo_cot.bases.sources.Styles`)."""
    if style == "bare":
        return str(problem.value)
    steps = "\n".join(problem.steps)
    if style == "steps":
        return f"{steps}\nThe answer is {problem.value}."
    reasoning = steps if style == "schema_steps" else rng.choice(GUESSES).format(value=problem.value)
    return worked(reasoning, str(problem.value))


def conversations(settings: Pretraining, seed: int, chunk: int) -> Iterator[list[Message]]:
    """The chunk's endless stream of conversations that end with the answer to be learnt."""
    rng = random.Random(f"{seed}.{chunk}")
    stream = GENERATORS[settings.problems]("train", f"{seed}.{chunk}")
    while True:
        problems = list(itertools.islice(stream, 2 if rng.random() < settings.earlier_exchange else 1))
        system = rng.random() < settings.system_prompt
        styles = settings.styles[len(problems[-1].steps)] if system else settings.styles_without_system_prompt
        shares = styles.model_dump()
        style = rng.choices(list(shares), list(shares.values()))[0]
        messages = [{"role": "system", "content": SYSTEM_PROMPT}] if system else []
        for problem in problems:
            messages.append({"role": "user", "content": problem.question})
            messages.append({"role": "assistant", "content": write(problem, style, rng)})
        yield messages


class Corpus(IterableDataset[Example]):
    """Endless examples, token ids and labels, from the batch of a step on; a batch's examples are of similar length.

    A causal model reads prompt and answer as one text, labelled on the answer alone; an encoder-decoder the prompt.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: Pretraining, seed: int, first: int, *, encoder_decoder: bool
    ) -> None:
        """A stream of batches from number `first` (the first is 0)."""
        self.tokenizer, self.settings, self.seed, self.first = tokenizer, settings, seed, first
        self.encoder_decoder = encoder_decoder

    def __iter__(self) -> Iterator[Example]:
        """The examples, a batch's one after the other."""
        start = self.first % CHUNK
        for chunk in itertools.count(self.first // CHUNK):
            yield from itertools.chain.from_iterable(self._batches(chunk)[start:])
            start = 0

    def _batches(self, chunk: int) -> list[list[Example]]:
        size = self.settings.batch_size
        texts = list(itertools.islice(conversations(self.settings, self.seed, chunk), size * CHUNK))
        prompts = self.tokenizer.apply_chat_template(
            [messages[:-1] for messages in texts], add_generation_prompt=True, tokenize=False
        )
        answers = answer_ids(self.tokenizer, [messages[-1]["content"] for messages in texts])
        prompt_ids = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
        pairs = zip(prompt_ids, answers, strict=True)
        examples = sorted((self._example(*pair) for pair in pairs), key=lambda example: len(example["input_ids"]))
        batches = [examples[start : start + size] for start in range(0, len(examples), size)]
        random.Random(f"order-{self.seed}.{chunk}").shuffle(batches)
        return batches

    def _example(self, prompt: list[int], answer: list[int]) -> Example:
        if self.encoder_decoder:
            return {"input_ids": prompt, "labels": answer}
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def pretrain(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Pretraining, seed: int, checkpoints: Path
) -> list[dict[str, float]]:
    """Train the model in place, from the last whole checkpoint in a folder where there is one; the curve of the loss.

    Raises:
        InputError: there is no GPU, and a CPU would take too long; or the system told this process to end, and a
            checkpoint was written first.
    """
    gpu = torch.cuda.is_available()
    size, examples = model.num_parameters(), settings.steps * settings.batch_size
    if not gpu and size * examples > CPU_LIMIT:
        raise InputError(
            f"pretraining {size:,} parameters on {examples:,} examples needs a GPU, and torch finds none here; run it "
            "where there is one (in containers: in the image cuda, by `bases` in params.yaml), or choose a smaller "
            "'config' or fewer 'steps'"
        )
    # Without these, sums of a GPU come in another order every time. The variable is read at the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(THREADS)
    checkpoint = last_whole_checkpoint(checkpoints)
    first = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    encoder_decoder = bool(model.config.is_encoder_decoder)
    bfloat16 = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    arguments = TrainingArguments(
        output_dir=str(checkpoints), use_cpu=not gpu, bf16=bfloat16, seed=seed, max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size, learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine", warmup_steps=settings.warmup_steps, adam_beta2=settings.adam_beta2,
        weight_decay=settings.weight_decay, max_grad_norm=settings.max_grad_norm, optim="adamw_torch",
        save_strategy="steps", save_steps=settings.save_steps, save_total_limit=2, logging_steps=LOGGING_STEPS,
        report_to="none", remove_unused_columns=False, ignore_data_skip=True,  # the corpus starts where it has to
        dataloader_num_workers=int(gpu), dataloader_prefetch_factor=CHUNK if gpu else None,
        dataloader_pin_memory=gpu, accelerator_config={"dispatch_batches": False},
    )  # fmt: skip
    arguments._n_gpu = min(1, arguments.n_gpu)  # of several, one: the source decides the batch
    trainer = Trainer(
        model=model, args=arguments,
        train_dataset=Corpus(tokenizer, settings, seed, first, encoder_decoder=encoder_decoder),
        data_collator=_Padding(int(tokenizer.pad_token_id), encoder_decoder),
    )  # fmt: skip
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Progress())
    resume_training(trainer, checkpoint)
    return [
        {"step": entry["step"], "loss": round(entry["loss"], 4)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


class _Padding:
    """Examples of a batch as tensors (examples, tokens), padded at their end.

    A causal model needs no mask: padding comes after every token that counts, and without a mask attention has its
    fastest form.
    """

    def __init__(self, padding: int, encoder_decoder: bool) -> None:
        self.padding, self.encoder_decoder = padding, encoder_decoder

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        ids, labels = ([torch.tensor(example[key]) for example in examples] for key in ("input_ids", "labels"))
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.padding),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        }
        if self.encoder_decoder:
            batch["attention_mask"] = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        return batch


class _Progress(ProgressCallback):  # type: ignore[misc]  # Transformers has no types
    """The trainer's progress bar with the loss beside it, instead of a line a figure."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")
