"""Train the tokenizer of the gpu-small bases on the text that they are pretrained on.

    python -m assets.gpu_small_tokenizer

A byte-level BPE with one token a digit, as the embedded base's, and with its chat template. Seconds on a CPU; the
result depends only on this file, `grpo_cot.bases.pretraining`, the source file's `pretraining` and the locked packages.
"""

import itertools
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from assets.tiny.pretrain import CHAT_TEMPLATE
from grpo_cot.bases.pretraining import conversations
from grpo_cot.bases.sources import Base
from grpo_cot.common.errors import validated
from grpo_cot.common.files import read_yaml

SOURCE = Path("sources/bases/gpu-small.yaml")
OUTPUT = Path("assets/gpu-small/tokenizer")
VOCABULARY, CONVERSATIONS = 1024, 20_000  # at most so many tokens: the text's words make 784


def main() -> None:
    """Train the tokenizer and write it."""
    source = validated(Base, read_yaml(SOURCE), SOURCE)
    assert source.pretraining is not None and source.seed is not None
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    texts = (
        message["role"] + "\n" + message["content"]
        for messages in itertools.islice(conversations(source.pretraining, source.seed, 0), CONVERSATIONS)
        for message in messages
    )
    tokenizer.train_from_iterator(texts, trainer)
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE,
        model_max_length=2048, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    whole.save_pretrained(OUTPUT)
    print(f"{len(whole)} tokens: {OUTPUT}")


if __name__ == "__main__":
    main()
