"""Loading tokenizers, which needs no torch, and refusing model folders that cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from grpo_cot.common.errors import InputError
from grpo_cot.models.turns import use_turn_end


def load_tokenizer(folder: Path, padding_side: str = "left") -> PreTrainedTokenizerBase:
    """A model's tokenizer, padding on the left as generation needs it; its end token ends the template's turns.

    Raises:
        InputError: the folder holds no readable tokenizer.
    """
    with refusing_corrupt(folder):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, padding_side=padding_side)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    use_turn_end(tokenizer)
    return tokenizer


@contextmanager
def refusing_corrupt(folder: Path) -> Iterator[None]:
    """Turn the libraries' errors on missing, cut or garbled files into one sentence.

    Raises:
        InputError: the folder does not exist, or the block failed to read it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder")
    try:
        yield
    except Exception as error:  # the tokenizers library raises nothing narrower on a garbled file
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: the model cannot be loaded, its files are corrupt or incomplete ({reason}); restore them"
        ) from error


@contextmanager
def without_report() -> Iterator[None]:
    """Keep Transformers from reporting the weights that a folder lacks by intention: a layer that is to be trained."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
