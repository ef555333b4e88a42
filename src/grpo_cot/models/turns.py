"""Which token ends an assistant's turn: the one that the chat template writes after an answer.

A model has up to three answers to that question: its generation_config, its tokenizer's end token (which in some
families ends a document and not a turn), and its chat template, by which it was trained. The template decides here:
`load_tokenizer` makes the token that it writes the tokenizer's end token. So sampling stops at it, targets end in it,
likelihoods count it, and the libraries, which ask the tokenizer, do the same.
"""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message, read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Texts that no template changes.
SYSTEM, QUESTION, ANSWER, NEXT = "thesystem", "firstquestion", "firstanswer", "nextquestion"


class TurnEnd(NamedTuple):
    """The token that ends an answer, and the template's text from the answer up to its end: the token, after a space
    perhaps."""

    token: str
    text: str


def turn_end(tokenizer: "PreTrainedTokenizerBase") -> TurnEnd | None:
    """How the tokenizer's chat template ends an assistant's turn; without a template of its own, the end token.

    It is seen in a rendered conversation: the first token of the vocabulary's added ones after the last answer. Where
    nothing follows the last answer (GLM-4), it is the token that the next turn begins with. A template of plain text
    marks no end, and then the tokenizer's end token is taken. None: there is no end token either.
    """
    last = _after_the_answer(tokenizer, [])
    following = _after_the_answer(tokenizer, [{"role": "user", "content": NEXT}]).partition(NEXT)[0]
    if last and (found := _first_token(tokenizer, last)):
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(last, following, strict=False))
        return _up_to_the_end_token(tokenizer, found, "".join(one for one, _ in alike))
    found = None if last.strip() else _first_token(tokenizer, following)
    if found and found.token != tokenizer.bos_token and following.lstrip().startswith(found.token):
        return TurnEnd(found.token, found.token)
    return TurnEnd(tokenizer.eos_token, tokenizer.eos_token) if tokenizer.eos_token is not None else None


def _after_the_answer(tokenizer: "PreTrainedTokenizerBase", more: list[Message]) -> str:
    """What a rendered conversation holds after its answer; nothing where the template refuses to render one."""
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}, *more]
    for system in ([], [{"role": "system", "content": SYSTEM}]):  # some templates refuse one, some need one
        try:
            return str(tokenizer.apply_chat_template([*system, *messages], tokenize=False)).rpartition(ANSWER)[2]
        except Exception:  # a template is a program: what a recipe's conversations meet, `grpo_cot.prompts` says
            continue
    return ""


def _first_token(tokenizer: "PreTrainedTokenizerBase", text: str) -> TurnEnd | None:
    """The first of the vocabulary's added tokens in a text; blanks among them (Gemma has some) mark nothing."""
    added = {token for token in (*tokenizer.get_added_vocab(), tokenizer.eos_token) if token and token.strip()}
    places = [(text.find(token), -len(token), token) for token in added if token in text]
    if not places:
        return None
    place, _, token = min(places)
    before = text[:place]
    return TurnEnd(token, before + token if not before.strip(" ") else token)


def _up_to_the_end_token(tokenizer: "PreTrainedTokenizerBase", found: TurnEnd, turn: str) -> TurnEnd:
    """The tokenizer's end token where only other added tokens stand before it in every turn (Command R7B closes its
    response first), and `found` elsewhere: Phi-4-mini writes its end token after a whole conversation alone."""
    before, end, _ = turn.partition(tokenizer.eos_token or "\0")
    between = before.removeprefix(found.text)
    for token in sorted(tokenizer.get_added_vocab(), key=len, reverse=True):
        between = between.replace(token, "")
    return TurnEnd(end, before + end) if end and before.startswith(found.text) and not between else found


def use_turn_end(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Make the template's turn end the tokenizer's end token."""
    end = turn_end(tokenizer)
    if end is not None and end.token != tokenizer.eos_token:
        tokenizer.eos_token = end.token


def answer_ids(tokenizer: "PreTrainedTokenizerBase", answers: Sequence[str]) -> list[list[int]]:
    """The token ids of every answer, its turn's end included: what a model writes after its prompt.

    Raises:
        InputError: nothing ends a turn.
    """
    end = turn_end(tokenizer)
    if end is None:
        raise InputError(
            "neither the base's chat template nor its tokenizer has a token that ends an answer, so that a model never "
            "stops; choose a base that has one"
        )
    ids: list[list[int]] = tokenizer([answer + end.text for answer in answers], add_special_tokens=False)["input_ids"]
    return ids


def end_tokens(ids: int | list[int] | None) -> set[int]:
    """A configuration's end tokens, which may be none, one or several."""
    return set() if ids is None else {ids} if isinstance(ids, int) else set(ids)


def stop_tokens(ids: int | list[int] | None, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The tokens at which generation stops: a model's own (`ids`, from its generation_config), and the turn's end."""
    return sorted(end_tokens(ids) | end_tokens(tokenizer.eos_token_id))


def state_turn_end(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Have a model folder's generation_config.json name the turn's end, where it does not; other settings stay."""
    file = folder / "generation_config.json"
    # Without the file Transformers takes the end token from the model's configuration.
    settings: dict[str, Any] = read_json(file) if file.is_file() else {}
    own = settings if file.is_file() else read_json(folder / "config.json")
    named = end_tokens(own.get("eos_token_id"))
    stops = stop_tokens(own.get("eos_token_id"), tokenizer)
    if set(stops) != named:
        write_json(file, settings | {"eos_token_id": stops if len(stops) > 1 else stops[0]})
