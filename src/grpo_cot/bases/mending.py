"""What a source file sets right in the base that it names: its end token, its padding token, its chat template."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_cot.bases.sources import Base, Tokens
from grpo_cot.common.errors import InputError, nearest, shown
from grpo_cot.common.files import read_json, write_json, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = {"eos": "end token", "pad": "padding token"}
CONFIGURATIONS = ("config.json", "generation_config.json")


@contextmanager
def reading() -> Iterator[None]:
    """Turn whatever Transformers raises on a base's files into one sentence.

    Raises:
        InputError: the block failed.
    """
    try:
        yield
    except InputError:
        raise
    except pickle.UnpicklingError:  # torch reads its own format with weights_only, and its message says how to go on
        raise InputError(
            "its weights are a Python pickle of more than tensors, which could run a stranger's code, and were not "
            "loaded: take a copy in safetensors"
        ) from None
    except Exception as error:  # it raises what it likes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"Transformers cannot load it ({reason}): its files are corrupt, or do not belong together"
        ) from None


def refuse_own_code(folder: Path) -> None:
    """Refuse a model that brings Python code of its own, before Transformers asks the terminal whether to run it.

    A model that Transformers knows may name such code as well (`auto_map`): its own is used then.

    Raises:
        InputError: it does.
    """
    import transformers

    for name, key, known in (
        ("config.json", "model_type", transformers.CONFIG_MAPPING),
        ("tokenizer_config.json", "tokenizer_class", dir(transformers)),
    ):
        try:
            settings = read_json(folder / name)
        except InputError:  # it is not there, or Transformers says what is wrong with it
            continue
        if isinstance(settings, dict) and "auto_map" in settings and settings.get(key) not in known:
            raise InputError(
                f"its {name} has the {key} {shown(settings.get(key))}, which Transformers does not know, and names "
                "Python code of its own (auto_map). No step runs a stranger's code: take a model that Transformers has"
            )


def plain_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer as anybody would load it, its end and padding tokens as the base's files name them.

    Raises:
        InputError: there is none, its files are corrupt, or the model needs code of its own.
    """
    from transformers import AutoTokenizer

    refuse_own_code(folder)
    # Of a model's configuration alone some classes make a tokenizer without a vocabulary.
    if not any(any(folder.glob(name)) for name in ("tokenizer.json", "*.model", "vocab.*", "vocab-*")):
        raise InputError(
            "it has no tokenizer (tokenizer.json, or a vocabulary): take a folder that holds one, and name its "
            "files in the source file"
        )
    with reading():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return tokenizer


def name_tokens(tokenizer: "PreTrainedTokenizerBase", tokens: Tokens) -> None:
    """Give a tokenizer the end and padding tokens of a source file.

    Raises:
        InputError: its vocabulary has no such token.
    """
    for role, token in tokens.model_dump(exclude_none=True).items():
        if token not in tokenizer.get_vocab():
            raise InputError(
                f"tokens.{role} is {token!r}, which is no token of the base's vocabulary; "
                f"{nearest(token, tokenizer.get_added_vocab() or ['none that is special'])}"
            )
        setattr(tokenizer, f"{role}_token", token)


def mend(source: Base, folder: Path) -> list[str]:
    """Put a source file's chat template and tokens into a base's folder; a sentence for each change of what was there.

    Raises:
        InputError: the base has no readable tokenizer, or its vocabulary lacks such a token.
    """
    if source.chat_template is None and source.tokens is None:
        return []
    tokenizer = plain_tokenizer(folder)
    changed = []
    if source.chat_template is not None:
        if tokenizer.chat_template != source.chat_template:
            brought = "in place of the base's own" if tokenizer.chat_template else "where the base brought none"
            changed.append(f"chat template: the source file's, {brought}")
        write_text(folder / "chat_template.jinja", source.chat_template)
    if source.tokens is not None:
        named = {role: getattr(tokenizer, f"{role}_token") for role in ROLES}
        name_tokens(tokenizer, source.tokens)
        for role, token in source.tokens.model_dump(exclude_none=True).items():
            number = tokenizer.convert_tokens_to_ids(token)
            if was := _name(folder, role, token, number, named[role]):
                changed.append(f"{ROLES[role]}: {token!r}, where {was}")
    return changed


def _name(folder: Path, role: str, token: str, number: int, named: str | None) -> str:
    """Write one token into every file that names it; what stood there before, or nothing where it was the same."""
    before = [] if named == token else [f"the tokenizer named {named!r}" if named else "the tokenizer named none"]
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file() or name == "tokenizer_config.json":
            settings: dict[str, Any] = read_json(folder / name) if (folder / name).is_file() else {}
            if settings.get(f"{role}_token") != token or f"{role}_token_id" in settings:
                numbered = {f"{role}_token_id": number} if f"{role}_token_id" in settings else {}
                write_json(folder / name, settings | {f"{role}_token": token} | numbered)
    for name in CONFIGURATIONS:
        if (folder / name).is_file():
            settings = read_json(folder / name)
            found = settings.get(f"{role}_token_id")
            if found not in (number, [number]):
                before.append(f"{name} named {'none' if found is None else f'number {found}'}")
                write_json(folder / name, settings | {f"{role}_token_id": number})
    return ", ".join(before)
