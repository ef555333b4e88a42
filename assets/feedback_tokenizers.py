"""Train the two tokenizers of the base tiny-feedback on generated feedback: of the policy, and of its scorer.

    python -m assets.feedback_tokenizers

The policy's is a byte-level BPE with the embedded base's chat template. The scorer's is of another kind, a lower-cased
WordPiece as BERT's, so that nothing can take the tokens of one for the other's. Seconds on a CPU; the result depends
only on this file, `grpo_cot.data.generated.feedback` and the locked packages.
"""

import itertools
import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from assets.tiny.pretrain import CHAT_TEMPLATE
from grpo_cot.data.generated.feedback import feedback

OUTPUT = Path("assets/tiny-feedback")
SEED, SENTENCES = 20, 20_000
POLICY_TOKENS = 1024  # at most
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main() -> None:
    """Train both and write them."""
    texts = [sentence.text for sentence in itertools.islice(feedback("train", SEED), SENTENCES)]
    for folder, tokenizer in (("tokenizer", policy(texts)), ("scorer-tokenizer", scorer(texts))):
        tokenizer.save_pretrained(OUTPUT / folder)
        print(f"{len(tokenizer)} tokens: {OUTPUT / folder}")


def policy(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=POLICY_TOKENS, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([*texts, "system\nuser\nassistant\n"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE,
        model_max_length=128, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def scorer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A WordPiece of the lower-cased words, and of single characters for others.

    The library's trainer would number the pieces by the order of a hash, another one each time.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    characters = sorted({*string.ascii_lowercase, *string.digits, *string.punctuation})
    pieces = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    pieces += sorted(words - set(pieces))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, splitter, decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=128, clean_up_tokenization_spaces=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
