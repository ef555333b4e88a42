"""Whether a base's pretraining can run as its source file says."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_cot.bases.sources import Base, Pretraining
from grpo_cot.common.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# More is a slip of the pen; the texts of 16 batches are written at once.
MOST = {"steps": 10**8, "batch_size": 2**16, "learning_rate": 1, "weight_decay": 100}
DRAWN = 1000  # texts, of the kind that is longest


def check_pretraining(root: Path, source: Base, settings: Pretraining, configuration: "PreTrainedConfig") -> None:
    """Check a pretraining's settings, and that its texts fit into the model's positions.

    Raises:
        InputError: they do not.
    """
    for field, most in MOST.items():
        if (value := getattr(settings, field)) > most:
            raise InputError(f"pretraining.{field} is {value}, expected at most {most}; lower it")
    if settings.warmup_steps > settings.steps:
        raise InputError(
            f"pretraining.warmup_steps is {settings.warmup_steps}, more than the {settings.steps} of "
            "pretraining.steps: the learning rate would never be reached; lower it"
        )
    positions = getattr(configuration, "max_position_embeddings", None)
    if positions is None or configuration.is_encoder_decoder or not (source.tokenizer and source.tokenizer.path):
        return
    longest = _longest(root / source.tokenizer.path, source, settings)
    if longest > positions:
        key = configuration.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        raise InputError(
            f"config.{key} is {positions}, but texts of its pretraining have up to {longest} tokens; raise it, or set "
            "pretraining.earlier_exchange to 0"
        )


def check_processor(parameters: int, settings: Pretraining, where: str) -> None:
    """Check that a base whose step runs in the image without a GPU can be pretrained there.

    Raises:
        InputError: it would take days.
    """
    from grpo_cot.bases.pretraining import CPU_LIMIT

    if parameters * settings.steps * settings.batch_size > CPU_LIMIT:
        raise InputError(
            f"{where} is 'cpu', but its pretraining needs a GPU ({parameters:,} parameters on "
            f"{settings.steps * settings.batch_size:,} examples); set it to cuda"
        )


def _longest(folder: Path, source: Base, settings: Pretraining) -> int:
    """The tokens of the longest of some of the texts, with all that a text may have in it."""
    from grpo_cot.bases.mending import name_tokens
    from grpo_cot.bases.pretraining import CHUNK, Corpus
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.models.turns import use_turn_end

    tokenizer = load_tokenizer(folder)
    if source.tokens:
        name_tokens(tokenizer, source.tokens)
    if source.chat_template is not None:
        tokenizer.chat_template = source.chat_template
        use_turn_end(tokenizer)
    whole = {name: 1.0 for name in ("system_prompt", "earlier_exchange") if getattr(settings, name)}
    corpus = Corpus(
        tokenizer, settings.model_copy(update={**whole, "batch_size": DRAWN // CHUNK}), int(source.seed or 0), 0,
        encoder_decoder=False,
    )  # fmt: skip
    return max(len(example["input_ids"]) for example in itertools.islice(corpus, DRAWN))
