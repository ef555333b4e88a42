"""A base's architecture, before the base is there."""

from pathlib import Path
from typing import TYPE_CHECKING

from grpo_cot.bases.mending import refuse_own_code
from grpo_cot.bases.sources import Base, Scorer, Source, files_here
from grpo_cot.common.errors import InputError, naming, validated
from grpo_cot.common.files import read_json, read_yaml
from grpo_cot.library.names import hint
from grpo_cot.recipes.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def check_kind(configuration: "PreTrainedConfig", recipe: Recipe, base: str) -> None:
    """Check that the recipe's methods train models of the base's kind.

    Raises:
        InputError: they do not.
    """
    encoder_decoder = bool(configuration.is_encoder_decoder)
    if encoder_decoder != (recipe.phases[0].architecture == "seq2seq"):
        kind = "an encoder-decoder" if encoder_decoder else "a causal model"
        raise InputError(f"the base {base!r} is {kind}, which {recipe.phases[0].method!r} cannot train")


def architecture(root: Path, base: str, source: Source | None = None) -> "tuple[PreTrainedConfig, bool]":
    """The configuration of a base, or of its scorer, from its own file where that is there, else from its source (by
    default its source file's content); and whether its files hold an output matrix of their own, whatever its class
    does.

    Raises:
        InputError: neither says it, or Transformers refuses it.
    """
    from transformers import AutoConfig

    path = root / f"sources/bases/{base}.yaml"
    source = source or validated(Base, read_yaml(path), path)
    made, field = root / f"models/{base}", f"{path}"
    if isinstance(source, Scorer):
        made, field = made / "scorer", f"{path}: scorer"
    for folder in (made, files_here(source, root)):
        if folder and (folder / "config.json").is_file():
            settings = read_json(folder / "config.json")
            with naming(field):
                refuse_own_code(folder)
            return AutoConfig.from_pretrained(folder), settings.get("tie_word_embeddings") is False
    settings, tokens = {**(source.config or {}), **(source.shape or {})}, {}
    if source.tokenizer and source.tokenizer.path:
        from grpo_cot.models.tokenizers import load_tokenizer

        tokenizer = load_tokenizer(root / source.tokenizer.path)
        settings["vocab_size"] = len(tokenizer)
        # As the step base does: a class's own padding token may be beyond the vocabulary.
        tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for name in ("model_type", "vocab_size"):
        if name not in settings:
            raise InputError(
                f"{field}: 'shape' lacks {name!r}, and models/{base} is not there yet; add it, or run "
                f"dvc repro base@{base} first"
            )
    try:
        configuration = AutoConfig.for_model(**settings, **tokens)
    except Exception as error:  # its classes raise what they like
        raise InputError(f"{field}: shape: Transformers refuses it: {' '.join(str(error).split())[:200]}") from None
    known = type(configuration)().to_dict()
    if not source.config:  # the config.json that a shape is copied from may have another name of a key
        known |= type(configuration).attribute_map
    if unknown := sorted(settings.keys() - known.keys()):
        part = "config" if source.config and unknown[0] in source.config else "shape"
        near = hint(unknown[0], known, f"transformers.{type(configuration).__name__}")
        raise InputError(f"{field}: {part}: unknown key {unknown[0]!r}; {near}")
    return configuration, settings.get("tie_word_embeddings") is False
