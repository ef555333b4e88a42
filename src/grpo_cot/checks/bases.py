"""Whether a base's source file describes a model that the step base can make."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_cot.bases.examination import examine
from grpo_cot.bases.fetching import agreement_of, check_pins
from grpo_cot.bases.making import make_base
from grpo_cot.bases.scorers import encoder_class, make_scorer, padding_tokenizer
from grpo_cot.bases.sources import Base, Scorer, Source, files_here
from grpo_cot.checks.pretraining import check_pretraining, check_processor
from grpo_cot.common.errors import InputError, naming, validated
from grpo_cot.common.files import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

MOST_LAYERS = 10_000
MOST_PARAMETERS = 10**13
OF_THE_TOKENIZER = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")  # the step base sets them


def check_base(root: Path, name: str) -> None:
    """Check a base's source file, and the files of the checkout that it names.

    Raises:
        InputError: it does not fit, a file is missing or not the pinned one, the chat template is none, Transformers
            knows no such model, or the model is broken (`grpo_cot.bases.examination`).
    """
    path = root / f"sources/bases/{name}.yaml"
    source = validated(Base, read_yaml(path), path)
    _check_files(root, source, path)
    if source.licence.agreement and (here := _here(root, source)):
        agreement_of(source.model_copy(update={"kind": "embedded", "path": str(here), "folder_variable": None}), path)
    if source.chat_template is not None:
        with naming(path):
            _check_chat_template(source.chat_template)
    if source.kind == "embedded":
        _examine(root, source, path)
    if source.config or source.shape or source.path:
        configuration = _check_architecture(root, name, source, path)
        if source.pretraining:
            with naming(path):
                check_pretraining(root, source, source.pretraining, configuration)
    if source.scorer:
        _check_scorer(root, name, source.scorer, f"{path}: scorer")


def check_image(root: Path, name: str, image: str, where: str) -> None:
    """Check that a base can be made in its image; `where` names it in params.yaml.

    Raises:
        InputError: it needs a GPU.
    """
    path = root / f"sources/bases/{name}.yaml"
    source = validated(Base, read_yaml(path), path)
    if source.pretraining and image == "cpu" and source.tokenizer and source.tokenizer.path:
        parameters = sum(weight.numel() for weight in _model(root, name, source, path)[0].parameters())
        check_processor(parameters, source.pretraining, where)


def _here(root: Path, source: Source) -> Path | None:
    return files_here(source.model_copy(update={"kind": "folder"}) if source.kind == "gguf" else source, root)


def _check_files(root: Path, source: Source, where: object) -> None:
    """Refuse a folder of the checkout that is not there or not the pinned one, and one of this machine that lacks a
    file which the source names."""
    folder = source.path or (source.tokenizer.path if source.tokenizer else None)
    if folder is not None:
        if not (root / folder).is_dir():
            raise InputError(f"{where}: path is {folder!r}, and there is no such folder in the checkout")
        check_pins(source, root / folder, where)
    if (here := _here(root, source)) is None:
        return
    for name in [source.file.path] if isinstance(source, Base) and source.file else source.sha256:
        if not (here / name).is_file():
            raise InputError(f"{where}: {name} is pinned, and {here} has no such file; put it there, or take it out")


def _check_scorer(root: Path, name: str, source: Scorer, where: str) -> None:
    """Check the source of the model that a reward model starts from, and make it where the checkout has its files."""
    _check_files(root, source, where)
    if source.config or source.shape:
        _check_architecture(root, name, source, where)
    if source.tokenizer and source.tokenizer.path:
        with naming(where):
            padding_tokenizer(root / source.tokenizer.path)
    if source.path:
        with tempfile.TemporaryDirectory() as folder:
            here = source.model_copy(update={"path": str(root / source.path)})
            make_scorer(here, Path(folder) / "scorer", where.removesuffix(": scorer"))


def _examine(root: Path, source: Base, path: Path) -> None:
    """Make the base in a folder of its own, as the step will, and examine it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / path.stem
        output.mkdir()
        alone = source.model_copy(update={"path": str(root / str(source.path)), "scorer": None})
        make_base(alone, output, path, output)
        with naming(path):
            examine(output, answer=False)


def _check_chat_template(template: str) -> None:
    """Refuse what is no Jinja template, and one that fails on every question, whatever a recipe gives it."""
    from jinja2 import TemplateSyntaxError, UndefinedError
    from transformers.utils.chat_template_utils import render_jinja_template

    question = {"role": "user", "content": "question"}
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "</s>"}
    failures = []
    for conversation in ([question], [{"role": "system", "content": "system"}, question]):
        try:
            [text], _ = render_jinja_template(
                [conversation], chat_template=template, add_generation_prompt=True, **tokens
            )
            if question["content"] not in text:
                raise InputError("chat_template: it leaves the question out of the prompt; write message['content']")
        except InputError:
            raise
        except TemplateSyntaxError as error:
            raise InputError(f"chat_template: not a Jinja template: {error.message} (line {error.lineno})") from None
        except UndefinedError:  # it may be in prompt.chat_template_kwargs
            return
        except Exception as error:  # a template is a program, and raises what it likes
            failures.append(" ".join(str(error).split())[:200] or type(error).__name__)
    if len(failures) == 2:
        raise InputError(f"chat_template: it fails on a question: {failures[0]}")


def _check_architecture(root: Path, name: str, source: Source, path: object) -> "PreTrainedConfig":
    """Refuse a configuration or sizes of which Transformers makes no model, or none that could be trained."""
    if given := [key for key in OF_THE_TOKENIZER if key in (source.config or {})]:
        raise InputError(f"{path}: config.{given[0]}: the step base takes it from the tokenizer; take it out")
    for part, settings in _parts(source):
        for key, value in settings.items():
            positive = isinstance(value, int) or any(word in key for word in ("initializer", "eps"))
            if positive and isinstance(value, int | float) and value < 0 and not key.endswith("_id"):
                raise InputError(f"{path}: {part}.{key} is {value}, expected no negative number")
            if isinstance(value, int) and "layer" in key and value > MOST_LAYERS:  # each is made, which would not end
                raise InputError(f"{path}: {part}.{key} is {value}, expected at most {MOST_LAYERS}")
    if source.tokenizer and source.tokenizer.id and "vocab_size" not in (source.shape or {}):
        source = source.model_copy(update={"shape": {**(source.shape or {}), "vocab_size": 1000}})
    model, configuration = _model(root, name, source, path)
    _check_sizes(model, source, path)
    return configuration


def _parts(source: Source) -> tuple[tuple[str, dict[str, Any]], ...]:
    return ("config", source.config or {}), ("shape", source.shape or {})


def _model(root: Path, name: str, source: Source, path: object) -> "tuple[PreTrainedModel, PreTrainedConfig]":
    """A source's model without content, and its configuration.

    Raises:
        InputError: Transformers makes none of it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from grpo_cot.library.trial import quiet, reason_of
    from grpo_cot.memory.architecture import architecture

    with quiet():
        configuration, _ = architecture(root, name, source)
        kind = AutoModelForSeq2SeqLM if configuration.is_encoder_decoder else AutoModelForCausalLM
        if isinstance(source, Scorer):
            with naming(path):
                kind = encoder_class(configuration)
        try:
            with torch.device("meta"):
                return kind.from_config(configuration), configuration
        except Exception as error:  # its classes raise what they like
            where = "config" if source.config else "shape"
            raise InputError(f"{path}: {where}: Transformers makes no model of it: {reason_of(error)}") from None


def _check_sizes(model: "PreTrainedModel", source: Source, path: object) -> None:
    """Refuse a model without layers, with weights without values, or beyond all machines."""
    from torch.nn import ModuleList

    hollow = [name for name, part in model.named_modules() if isinstance(part, ModuleList) and not len(part)]
    empty = [name for name, weight in model.named_parameters() if not weight.numel()]
    for part, settings in _parts(source):
        for key, value in settings.items():
            if type(value) is int and value == 0 and (empty or (hollow and "layer" in key)):
                raise InputError(f"{path}: {part}.{key} is 0, expected at least 1: a part would be empty")
    if empty:
        raise InputError(f"{path}: the model's weight {empty[0]} would have no values; look at the sizes")
    if (parameters := sum(weight.numel() for weight in model.parameters())) > MOST_PARAMETERS:
        raise InputError(f"{path}: it makes a model of {parameters:,} parameters, expected at most {MOST_PARAMETERS:,}")
