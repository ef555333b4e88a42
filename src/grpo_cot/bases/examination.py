"""A base is examined when it arrives, whatever its kind: better one sentence now than a night of training that failed.

What would spoil a training is refused, with the setting of the source file that mends it where there is one. What is
only good to know is a remark: it is printed and recorded, and stops nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_cot.bases.mending import plain_tokenizer, reading
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message, read_json
from grpo_cot.models.turns import TurnEnd, end_tokens, turn_end
from grpo_cot.schema import SYSTEM_PROMPT, worked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What templates are known to change: white space inside, quotes, brackets, letters beyond ASCII.
QUESTION = 'Ann has 3 < 5 & "two"  pens.\n\n\tLan có 2,5 kg – how many?'
SUM = "What is 2 + 3? Answer with the number alone."
LIMIT = 64  # tokens for the answer to that
PLAIN = "chat_template: \"{% for message in messages %}{{ message['content'] + '\\n\\n' }}{% endfor %}\""
COMPUTED = worked("0 + 1 - 2 * 3 / 4 = 5.6,\n\n7  89", "10")
PARTS = {"system": SYSTEM_PROMPT, "user": QUESTION, "assistant": worked("3 + 2 = 5", "5")}


def examine(folder: Path, *, answer: bool = True) -> list[str]:
    """Examine a base's folder; remarks, one sentence each.

    Without `answer` no text is generated: for random weights, and where only what is refused counts.

    Raises:
        InputError: the base is broken, in one sentence.
    """
    tokenizer = plain_tokenizer(folder)
    remarks = check_template(tokenizer)
    end = _check_end(tokenizer, folder)
    remarks += _check_padding(tokenizer, end)
    check_vocabulary(folder, tokenizer)
    remarks += check_text(tokenizer)
    if unseen := too_large(folder):
        return [*remarks, unseen]
    model = _load(folder)
    return remarks + (_answer(model, tokenizer) if answer else [])


def check_template(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Check that the chat template writes what a system, a user and an assistant say, and writes it as it is.

    Raises:
        InputError: there is no template, it fails on a question, leaves a message out, or changes a text.
    """
    from jinja2 import UndefinedError

    if not tokenizer.chat_template:
        raise InputError(
            f"the base has no chat template: write one into the source file, for instance {PLAIN}; for a model that "
            "was trained on one, copy that"
        )
    user, assistant = ({"role": role, "content": PARTS[role]} for role in ("user", "assistant"))
    system = {"role": "system", "content": SYSTEM_PROMPT}
    failure = "it leaves the message out or changes its text"
    try:
        alone = _rendered(tokenizer, [user])
        texts = {"user": alone, "assistant": _rendered(tokenizer, [user, assistant])}
    except UndefinedError as error:  # a recipe may give it, in prompt.chat_template_kwargs
        return [f"its chat template asks for something that a recipe must give ({error}), and was not examined"]
    except Exception as error:  # a template is a program, and raises what it likes
        raise InputError(
            f"its chat template fails on a question and its answer ({_short(error)}); write another into the source "
            "file, as chat_template"
        ) from None
    remarks = []
    try:
        texts["system"] = _rendered(tokenizer, [system, user])
        if len(_rendered(tokenizer, [system | {"content": ""}, user])) < len(alone):
            remarks.append("where a conversation has no system message, its chat template adds one of its own")
    except Exception as error:
        remarks.append(f"its chat template refuses a system message ({_short(error)}): prompt.system must be null")
    for role, text in texts.items():
        if PARTS[role] not in text:
            raise InputError(
                f"its chat template does not write what the {role} says as it is ({failure}); write another into the "
                "source file, as chat_template"
            )
    return remarks


def _rendered(tokenizer: "PreTrainedTokenizerBase", messages: list[Message]) -> str:
    asks = messages[-1]["role"] == "user"
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks))


def _short(error: object) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__


def generation_ends(folder: Path) -> set[int]:
    """The numbers of the tokens at which Transformers ends a generation of the folder's model.

    Raises:
        InputError: its configuration cannot be read.
    """
    from transformers import AutoConfig

    if (folder / "generation_config.json").is_file():
        return end_tokens(read_json(folder / "generation_config.json").get("eos_token_id"))
    with reading():
        return end_tokens(AutoConfig.from_pretrained(folder).get_text_config(decoder=True).eos_token_id)


def _check_end(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> TurnEnd:
    """Check that the token that ends a turn ends a generation, and that the tokenizer takes no other one for the end.

    Raises:
        InputError: it does not, or nothing ends a turn.
    """
    end = turn_end(tokenizer)
    if end is None:
        raise InputError(
            "neither its chat template nor its tokenizer has a token that ends an answer, so that a model never stops: "
            "name one in the source file, as tokens: {eos: ...}"
        )
    ends = generation_ends(folder)
    own = {tokenizer.convert_tokens_to_ids(end.token): end.token}
    setting = f"set tokens: {{eos: {end.token!r}}} in the source file"
    if not own.keys() <= ends:
        named = ", ".join(repr(tokenizer.convert_ids_to_tokens(number)) for number in sorted(ends)) or "none"
        raise InputError(
            f"its chat template ends a turn with {end.token!r}, which is not among the tokens that end a generation "
            f"({named}), so that a model never stops: {setting}"
        )
    if tokenizer.eos_token_id not in ends:
        other = f"takes {tokenizer.eos_token!r} for the end token" if tokenizer.eos_token else "names no end token"
        raise InputError(
            f"its chat template ends a turn with {end.token!r}, but its tokenizer {other}, and trainers believe the "
            f"tokenizer: {setting}"
        )
    return end


def _check_padding(tokenizer: "PreTrainedTokenizerBase", end: TurnEnd) -> list[str]:
    """Check that what fills short rows is no answer's end, which a library might then not learn.

    Raises:
        InputError: it is, or there is none, and the vocabulary has a better token.
    """
    pad = tokenizer.pad_token
    if pad is not None and pad != end.token:
        return []
    found = f"its padding token {pad!r} is the token that ends a turn" if pad else "it has no padding token"
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    taken = {end.token, tokenizer.eos_token, tokenizer.bos_token}
    free = [token for token in special if token not in taken and token not in str(tokenizer.chat_template)]
    if not free:
        return [f"{found}, and its vocabulary has no other special one: {end.token!r} pads, masked everywhere"]
    best = next((token for part in ("pad", "endoftext", "unk") for token in free if part in token), free[0])
    raise InputError(f"{found}: set tokens: {{pad: {best!r}}} in the source file, or another token that no text holds")


def check_vocabulary(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Check that a model has an embedding for every token of its tokenizer.

    Raises:
        InputError: it has fewer.
    """
    from transformers import AutoConfig

    with reading():
        rows = AutoConfig.from_pretrained(folder).get_text_config(decoder=True).vocab_size
    token, highest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    if highest >= rows:
        raise InputError(
            f"the tokenizer's token {token!r} has the number {highest}, but the model has embeddings for the numbers "
            f"0 to {rows - 1} alone (vocab_size in its config.json); take a copy of the base whose embeddings were "
            "resized to its tokenizer"
        )


def check_text(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Check that a text comes out of the tokenizer as it went in: a completion of the schema at least but for its white
    space, which some tokenizers join, and that no other kind of tokenizer's settings are in its file.

    Raises:
        InputError: they are, or characters of the schema or digits are lost.
    """
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    single = {f"<0x{byte:02X}>" for byte in range(256)}
    if getattr(model, "byte_fallback", False) and single.isdisjoint(tokenizer.get_vocab()):
        raise InputError(
            "its tokenizer is set to write unknown characters as single bytes (byte_fallback in tokenizer.json), but "
            "has no tokens for them (<0x00> to <0xFF>): the settings are another tokenizer's; take a copy whose "
            "tokenizer.json is the model's own"
        )
    remarks = []
    for text in (COMPUTED, QUESTION):
        back = str(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))).strip()
        if text == COMPUTED and "".join(text.split()) != "".join(back.split()):
            raise InputError(
                f"its tokenizer gives {text!r} back as {back!r}, so that no answer could be read: take another base"
            )
        if text != back:
            remarks.append(f"its tokenizer gives {text!r} back as {back!r}")
    return remarks


def too_large(folder: Path) -> str:
    """Why a model's weights are not looked at: where they might not fit into this machine's memory."""
    import psutil

    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    if 1.5 * size < psutil.virtual_memory().available:
        return ""
    return f"its weights take {size / 2**30:.1f} GiB, too much for the memory that is free here, and were not examined"


def _load(folder: Path) -> "PreTrainedModel":
    """The model as anybody would load it.

    Raises:
        InputError: its weights do not fit its configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    with reading():
        configuration = AutoConfig.from_pretrained(folder)
        loader = AutoModelForSeq2SeqLM if configuration.is_encoder_decoder else AutoModelForCausalLM
        loaded: tuple[PreTrainedModel, dict[str, Any]] = loader.from_pretrained(
            folder, dtype="auto", ignore_mismatched_sizes=True, output_loading_info=True
        )
    if bars:
        logging.enable_progress_bar()
    model, loading = loaded
    for name, found, expected in sorted(map(tuple, loading["mismatched_keys"])):
        raise InputError(
            f"its weight {name} has the shape {tuple(found)}, but its config.json makes it {tuple(expected)}: take the "
            "configuration and the weights of the same model"
        )
    if absent := sorted(map(str, loading["missing_keys"])):
        raise InputError(
            f"its files lack {len(absent)} of the weights that its config.json asks for, {absent[0]} first: take the "
            "configuration and the weights of the same model"
        )
    rows, matrix = model.get_input_embeddings().weight, model.get_output_embeddings()
    # By the file and not by the class: that of T5 and mT5 always ties, whatever their files say and hold.
    said = read_json(folder / "config.json").get("tie_word_embeddings")
    tied = configuration.get_text_config(decoder=True).tie_word_embeddings and said is not False
    if tied and matrix is not None and matrix.weight is not rows:
        raise InputError(
            "its config.json ties the output matrix to the embeddings (tie_word_embeddings), but its files hold two "
            "that differ: take a copy whose config.json says false"
        )
    return model


def _answer(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Whether a greedy answer ends by itself, generated with nothing but the base's own settings.

    Raises:
        InputError: its weights make no numbers.
    """
    import torch

    try:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": SUM}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    except Exception:  # it asks for what a recipe gives
        return []
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    settings = {"do_sample": False, "max_new_tokens": LIMIT, "pad_token_id": tokenizer.pad_token_id}
    with torch.inference_mode():
        result = model.generate(**given, **settings, return_dict_in_generate=True, output_logits=True)
    if result.logits[0].isnan().any():
        raise InputError("its weights make no numbers (NaN) of a short question: take another copy")
    ends = end_tokens(model.generation_config.eos_token_id)
    if int(result.sequences[0, -1]) in ends:
        return []
    return [f"its greedy answer to {SUM!r} did not end within {LIMIT} tokens"]
