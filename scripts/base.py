"""Step base: put a base model under DVC, each file checked against its pinned hash."""

import shutil
from argparse import Namespace
from pathlib import Path

from step import run

from grpo_cot.files import InputError, file_hashes, new_directory, read_yaml, write_json, write_text
from grpo_cot.recipes import Base
from grpo_cot.validation import nearest, validated

TOKENIZER_FILES = ["tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json",
                   "chat_template*", "config.json"]  # fmt: skip
MODEL_FILES = ["*.safetensors", "*.safetensors.index.json", "generation_config.json", *TOKENIZER_FILES]


def main(args: Namespace) -> str:
    """The files that the source pins, and base.json, which says what they are."""
    source = validated(Base, read_yaml(args.source), args.source)
    with new_directory(args.output) as output:
        if source.kind == "embedded":
            for name in source.sha256:
                path = Path(str(source.path)) / name
                if not path.is_file():
                    raise InputError(f"{path}: no such file, though {args.source} pins it")
                shutil.copyfile(path, output / name)
        elif source.kind == "hub":
            download(str(source.id), str(source.revision), output, args.source, MODEL_FILES)
            if not list(output.glob("*.safetensors")):  # older repositories have torch's own files alone
                download(str(source.id), str(source.revision), output, args.source, ["pytorch_model*.bin*"])
        else:
            from_scratch(source, output, args.source)
        pinned = Path(source.tokenizer.path) if source.tokenizer and source.tokenizer.path else output
        found = file_hashes(pinned)
        for name, expected in source.sha256.items():
            if found.get(name) != expected:
                raise InputError(
                    f"{args.source}: {name} has sha256 {found.get(name)}, expected {expected}: not the pinned file"
                )
        if source.chat_template is not None:
            write_text(output / "chat_template.jinja", source.chat_template)
        write_json(output / "base.json", {"name": args.source.stem, "id": source.id, "revision": source.revision})
    facts = source.model_dump(exclude={"path", "chat_template", "shape"})
    write_json(args.provenance, {"name": args.source.stem, **facts})
    return f"{len(list(args.output.iterdir()))} files in {args.output}"


def download(repository: str, revision: str, output: Path, source: Path, files: list[str]) -> None:
    """The files of a Hub repository at a commit.

    Raises:
        InputError: they cannot be had.
    """
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        snapshot_download(repository, revision=revision, local_dir=output, allow_patterns=files)
    except (HfHubHTTPError, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: {repository} cannot be downloaded: {reason}") from None
    shutil.rmtree(output / ".cache", ignore_errors=True)


def from_scratch(source: Base, output: Path, where: Path) -> None:
    """A tokenizer, and random weights in the architecture that the source describes.

    Raises:
        InputError: Transformers does not know the architecture, or refuses its sizes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, set_seed

    from grpo_cot.tokenization import load_tokenizer

    place = source.tokenizer
    folder = Path(str(place.path)) if place and place.path else output
    if place and place.id:
        download(place.id, str(place.revision), output, where, TOKENIZER_FILES)
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token is None:
        raise InputError(f"{where}: the tokenizer has no end token, without which a model never stops")
    tokenizer.save_pretrained(output)
    settings = dict(source.config or {})
    # Unknown keys are kept by the configuration's class, and would be ignored in silence.
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
        model = kind.from_config(configuration)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{where}: config: Transformers refuses it: {' '.join(str(error).split())[:200]}") from None
    model.save_pretrained(output)


if __name__ == "__main__":
    run(main, __doc__, source=Path, output=Path, provenance=Path)
