"""The model that a reward model starts from: made in the folder `scorer` of its base, and examined there."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_cot.bases.examination import check_vocabulary, too_large
from grpo_cot.bases.fetching import TOKENIZER_FILES, check_pins, collect, download
from grpo_cot.bases.mending import plain_tokenizer, reading
from grpo_cot.bases.scratch import drawn
from grpo_cot.bases.sources import Scorer
from grpo_cot.common.errors import InputError, naming
from grpo_cot.models.tokenizers import without_report

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

TEXTS, TOKENS = ["good", "the room is too small"], 8  # of different lengths, and at most so long


def make_scorer(source: Scorer, output: Path, where: object) -> None:
    """Fill a new folder with the files of a scorer; `where` is the source file of its base.

    Raises:
        InputError: a file is missing or not the pinned one, the Hub cannot be reached, or it is no model that could be
            trained to classify texts.
    """
    output.mkdir()
    field, place = f"{where}: scorer", source.tokenizer
    collect(source, output, field)
    if place and place.id:
        download(place.id, str(place.revision), output, field, TOKENIZER_FILES)
    folder = Path(place.path) if place and place.path else output
    check_pins(source, folder, field)
    with naming(field):
        if source.config:
            tokenizer = padding_tokenizer(folder)
            tokenizer.save_pretrained(output)
            drawn(source, tokenizer, encoder_class).save_pretrained(output)
        _examine(output)


def padding_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """A scorer's tokenizer.

    Raises:
        InputError: there is none, or it has no padding token.
    """
    tokenizer = plain_tokenizer(folder)
    if tokenizer.pad_token is None:
        raise InputError(
            "its tokenizer has no padding token, with which texts of different lengths are made into a batch; take a "
            "model whose tokenizer_config.json names a 'pad_token'"
        )
    return tokenizer


def encoder_class(configuration: "PreTrainedConfig") -> Any:
    """The class of Transformers that makes a scorer without the layer that classifies: this one training draws.

    Raises:
        InputError: Transformers has no classifier of texts in this architecture.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModel

    if type(configuration) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise InputError(
            f"Transformers has no classifier of texts (AutoModelForSequenceClassification) in the architecture "
            f"{configuration.model_type!r}; take another one, such as bert, distilbert or roberta"
        )
    return AutoModel


def _examine(folder: Path) -> None:
    """Classify two texts with a scorer, its layer that classifies drawn at random.

    Raises:
        InputError: it cannot, or weights are missing or misshapen.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = padding_tokenizer(folder)
    with reading():
        encoder_class(AutoConfig.from_pretrained(folder))
    check_vocabulary(folder, tokenizer)
    if too_large(folder):
        return
    settings = {"padding": True, "truncation": True, "max_length": TOKENS, "return_tensors": "pt"}
    with reading(), without_report():
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=2, ignore_mismatched_sizes=True, output_loading_info=True
        )
        within = f"{model.base_model_prefix}."
        names = [*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])]
        # Models that were trained to guess words have no pooler: it is drawn as the layer after it is.
        absent = sorted(name for name in names if name.startswith(within) and "pooler" not in name)
        with torch.inference_mode():
            logits = model.eval()(**tokenizer(TEXTS, **settings)).logits
    if absent:
        raise InputError(
            f"its files lack {len(absent)} of the weights that its config.json asks for, or have them in another "
            f"shape, {absent[0]} first: take the configuration and the weights of the same model"
        )
    if not logits.isfinite().all():
        raise InputError("its weights make no numbers (NaN) of a short text: take another copy")
