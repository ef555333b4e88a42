"""Random weights in an architecture that a source describes, with the tokenizer that they are for."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_cot.bases.fetching import TOKENIZER_FILES, download
from grpo_cot.bases.mending import name_tokens
from grpo_cot.bases.sources import Base, Source
from grpo_cot.common.errors import InputError, naming, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def from_scratch(source: Base, output: Path, where: Path) -> "PreTrainedModel":
    """Random weights in the architecture that the source describes; the tokenizer is written to `output`.

    Raises:
        InputError: Transformers does not know the architecture, or refuses its sizes.
    """
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.models.turns import use_turn_end

    place = source.tokenizer
    if place and place.id:
        download(place.id, str(place.revision), output, where, TOKENIZER_FILES)
    tokenizer = load_tokenizer(Path(place.path) if place and place.path else output)
    if source.tokens:
        with naming(where):
            name_tokens(tokenizer, source.tokens)
    if source.chat_template is not None:
        tokenizer.chat_template = source.chat_template
        use_turn_end(tokenizer)
    if tokenizer.eos_token is None:
        raise InputError(f"{where}: the tokenizer has no end token, without which a model never stops")
    tokenizer.save_pretrained(output)
    with naming(where):
        return drawn(source, tokenizer, _policy_class)


def _policy_class(configuration: "PreTrainedConfig") -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if configuration.is_encoder_decoder else AutoModelForCausalLM


def drawn(
    source: Source, tokenizer: "PreTrainedTokenizerBase", kind: "Callable[[PreTrainedConfig], Any]"
) -> "PreTrainedModel":
    """Random weights in the architecture that a source describes, for a tokenizer; `kind` gives the class of models.

    Raises:
        InputError: Transformers does not know the architecture, or refuses its sizes.
    """
    from transformers import AutoConfig, set_seed

    settings = source.config or {}
    # The configuration's class would keep unknown keys in silence.
    try:
        configuration = AutoConfig.for_model(
            **settings, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        )  # fmt: skip
        known = type(configuration)().to_dict()
        if unknown := sorted(settings.keys() - known.keys()):
            raise InputError(f"config: unknown key {unknown[0]!r}; {nearest(unknown[0], known)}")
        if configuration.is_encoder_decoder and getattr(configuration, "decoder_start_token_id", None) is None:
            configuration.decoder_start_token_id = tokenizer.pad_token_id
        set_seed(int(source.seed or 0))
        model: PreTrainedModel = kind(configuration).from_config(configuration)
    except InputError:
        raise
    except Exception as error:  # its classes raise what they like
        raise InputError(f"config: Transformers refuses it: {' '.join(str(error).split())[:200]}") from None
    return model
