"""Whether a base's source file describes a model that the step base can make."""

import tempfile
from pathlib import Path

from grpo_cot.bases.examination import examine
from grpo_cot.bases.making import check_pins, make_base
from grpo_cot.bases.sources import Base
from grpo_cot.common.errors import InputError, naming, validated
from grpo_cot.common.files import read_yaml

MOST_LAYERS = 10_000


def check_base(root: Path, name: str) -> None:
    """Check a base's source file, and the files of the checkout that it names.

    Raises:
        InputError: it does not fit, a file is missing or not the pinned one, the chat template is none, Transformers
            knows no such model, or the model is broken (`grpo_cot.bases.examination`).
    """
    path = root / f"sources/bases/{name}.yaml"
    source = validated(Base, read_yaml(path), path)
    folder = source.path or (source.tokenizer.path if source.tokenizer else None)
    if folder is not None:
        if not (root / folder).is_dir():
            raise InputError(f"{path}: path is {folder!r}, and there is no such folder in the checkout")
        check_pins(source, root / folder, path)
    if source.chat_template is not None:
        with naming(path):
            _check_chat_template(source.chat_template)
    if source.kind == "embedded":
        _examine(root, source, path)
    if source.config or source.shape or source.path:
        _check_architecture(root, name, source, path)


def _examine(root: Path, source: Base, path: Path) -> None:
    """Make the base in a folder of its own, as the step will, and examine it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / path.stem
        output.mkdir()
        make_base(source.model_copy(update={"path": str(root / str(source.path))}), output, path, output)
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


def _check_architecture(root: Path, name: str, source: Base, path: Path) -> None:
    """Refuse a configuration or sizes of which Transformers makes no model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from grpo_cot.memory.architecture import architecture

    for part, settings in (("config", source.config or {}), ("shape", source.shape or {})):
        for key, value in settings.items():
            if isinstance(value, int) and value < 0 and not key.endswith("_id"):  # a negative size makes nothing of it
                raise InputError(f"{path}: {part}.{key} is {value}, expected no negative number")
            if isinstance(value, int) and "layer" in key and value > MOST_LAYERS:  # each is made, which would not end
                raise InputError(f"{path}: {part}.{key} is {value}, expected at most {MOST_LAYERS}")
    if source.tokenizer and source.tokenizer.id and "vocab_size" not in (source.shape or {}):
        source = source.model_copy(update={"shape": {**(source.shape or {}), "vocab_size": 1000}})
    configuration, _ = architecture(root, name, source)
    kind = AutoModelForSeq2SeqLM if configuration.is_encoder_decoder else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            kind.from_config(configuration)
    except Exception as error:  # its classes raise what they like
        where = "config" if source.config else "shape"
        raise InputError(
            f"{path}: {where}: Transformers makes no model of it: {' '.join(str(error).split())[:200]}"
        ) from None
