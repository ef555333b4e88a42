"""Step base: put a base model under DVC, each file checked against its pinned hash, or make one."""

import shutil
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import grpo_cot
from grpo_cot.bases.sources import Base, Pretraining
from grpo_cot.errors import nearest, validated
from grpo_cot.files import InputError, file_hashes, new_directory, read_yaml, write_json, write_jsonl, write_text
from grpo_cot.resuming import Callers, exclusive, scratch_folder
from grpo_cot.step import run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENIZER_FILES = ["tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json",
                   "chat_template*", "config.json"]  # fmt: skip
# Of the library, what a pretraining's result depends on.
DECISIVE = ("phrasings.py", "pretraining.py", "problems.py", "schema.py", "tokenization.py")
MODEL_FILES = ["*.safetensors", "*.safetensors.index.json", "generation_config.json", *TOKENIZER_FILES]


def main(args: Namespace) -> str:
    """The files that the source pins, and base.json, which says what they are."""
    source = validated(Base, read_yaml(args.source), args.source)
    model = None
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
            model = from_scratch(source, output, args.source)
        check_pins(source, output, args.source)
        if source.chat_template is not None:
            write_text(output / "chat_template.jinja", source.chat_template)
        if model is not None:
            if source.pretraining:
                pretrained(model, source.pretraining, source, output, args)
            model.save_pretrained(output)
        write_json(output / "base.json", {"name": args.source.stem, "id": source.id, "revision": source.revision})
    unsaid = () if source.pretraining else ("pretraining",)
    facts = source.model_dump(exclude={"path", "chat_template", "shape", *unsaid})
    write_json(args.provenance, {"name": args.source.stem, **facts})
    return f"{len(list(args.output.iterdir()))} files in {args.output}"


def check_pins(source: Base, output: Path, where: Path) -> None:
    """Compare the files that came, or those of the embedded tokenizer, with the hashes that the source pins.

    Raises:
        InputError: a file is missing, or another one.
    """
    found = file_hashes(Path(source.tokenizer.path) if source.tokenizer and source.tokenizer.path else output)
    for name, expected in source.sha256.items():
        if found.get(name) != expected:
            raise InputError(f"{where}: {name} has sha256 {found.get(name)}, expected {expected}: not the pinned file")


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


def from_scratch(source: Base, output: Path, where: Path) -> "PreTrainedModel":
    """Random weights in the architecture that the source describes; the tokenizer is written to `output`.

    Raises:
        InputError: Transformers does not know the architecture, or refuses its sizes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, set_seed

    from grpo_cot.models.tokenizers import load_tokenizer

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
        model: PreTrainedModel = kind.from_config(configuration)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{where}: config: Transformers refuses it: {' '.join(str(error).split())[:200]}") from None
    return model


def pretrained(model: "PreTrainedModel", settings: Pretraining, source: Base, output: Path, args: Namespace) -> None:
    """Train random weights as the source says, going on where an interrupted training stopped; they end in bfloat16.

    Raises:
        InputError: it needs a GPU, and there is none.
    """
    import torch

    from grpo_cot.bases.pretraining import pretrain
    from grpo_cot.models.tokenizers import load_tokenizer

    callers = Callers()
    with exclusive(args.scratch):
        decisive = {
            "source": source.model_dump(exclude={"licence", "shape"}),
            "packages": {name: version(name) for name in ("torch", "transformers", "accelerate", "tokenizers")},
            "code": [file_hashes(Path(grpo_cot.__file__).parent)[name] for name in DECISIVE],
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }
        scratch = scratch_folder(args.scratch, decisive)
        try:
            curve = pretrain(model, load_tokenizer(output), settings, int(source.seed or 0), scratch)
        except InputError as error:
            raise InputError(f"{args.source}: {error}") from None
        write_jsonl(output / "pretraining.jsonl", curve)
        if callers.alive():  # otherwise nobody records this model, and the next run ends at its last checkpoint
            shutil.rmtree(scratch)
    model.to(torch.bfloat16)


if __name__ == "__main__":
    run(main, __doc__, source=Path, output=Path, provenance=Path, scratch=Path)
