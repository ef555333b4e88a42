"""What of LoraConfig this pipeline carries through training, evaluation, merging and vLLM, and what it refuses by name.

With the adapter switched off the model must be the base: its answers before training, the reference of the KL and the
merge rest on it. So every adapter starts beside the base and leaves it alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peft import LoraConfig

from grpo_cot.common.errors import InputError, nearest

# Values of init_lora_weights that leave the base as it is. PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA and MiCA take the
# adapter's start out of the base; EVA reads activations of the data, which nothing here collects for it; the orthogonal
# start fails on 4 bits.
KEEPING_THE_BASE = (True, False, "gaussian")
CARRIED = {
    "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "modules_to_save",
    "trainable_token_indices", "ensure_weight_tying",
}  # fmt: skip
# What vLLM reads of an adapter's configuration. Of the rest it refuses a part and ignores a part.
SERVED = {
    "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern",
}  # fmt: skip


def check_lora(lora: Mapping[str, Any], where: str) -> None:
    """Refuse what the pipeline does not carry from training to the merged model.

    Raises:
        InputError: the first such setting, and what to do.
    """
    for name, value in lora.items():
        if name == "init_lora_weights":
            if value not in KEEPING_THE_BASE:
                raise InputError(
                    f"{where}.init_lora_weights is {value!r}; expected true, false or 'gaussian': the others change "
                    "the base when the adapter is put on it, so that without the adapter it is not the base that "
                    "figures are compared with, or they do not fit every base"
                )
        elif name == "bias":
            if value != "none":
                raise InputError(
                    f"{where}.bias is {value!r}, which trains the base's own biases, so that the model without the "
                    "adapter is no longer the base that figures are compared with; expected 'none'"
                )
        elif name not in CARRIED and value != getattr(LoraConfig(), name):
            raise InputError(f"{where}.{name}: this pipeline does not carry it from training to the merge; take it out")
    for field, name, expression in _expressions(lora):
        try:
            re.compile(expression)
        except re.error as error:
            raise InputError(f"{where}.{field}: {name!r} is no regular expression: {error}") from None


def check_served(lora: Mapping[str, Any], where: str, instead: str) -> None:
    """Refuse what vLLM would not apply, or would leave out in silence; `lora` may be all of an adapter_config.json.

    Raises:
        InputError: the first such setting; the sentence ends in `instead`.
    """
    for name, value in lora.items():
        if name in CARRIED - SERVED | {"bias"} and value not in (None, False, "none", {}, []):
            raise InputError(f"{where}.{name} is {value!r}, which vLLM cannot apply; take it out, or {instead}")


def _expressions(lora: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The regular expressions of an adapter's settings: the field, the text, and how PEFT fits it to a whole name."""
    for field in ("target_modules", "exclude_modules"):
        if isinstance(name := lora.get(field), str) and name not in ("", "all-linear"):
            yield field, name, name
    for field in ("rank_pattern", "alpha_pattern"):
        for name in lora.get(field) or ():
            yield field, name, rf"(.*\.)?({name})"


def single_alternatives(expression: str) -> Iterator[tuple[str, str]]:
    r"""Every alternative of a regular expression, with the expression in which it stands without the others.

    Left out are those in a part that may be repeated, which fit together, and those that others refer to.

    >>> list(single_alternatives(r"h\.(0|1)\.x"))
    [('0', 'h\\.(0)\\.x'), ('1', 'h\\.(1)\\.x')]
    """
    # What counts: an escaped character, a class of characters, a comment, a group's start with its kind, an end, a bar.
    part = re.compile(
        r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?#[^)]*\)|\((?:\?(?:P<\w+>|<?[=!]|>|[a-zA-Z-]*:))?|[)|]", re.DOTALL
    )
    flags = re.findall(r"^\(\?[aiLmsux]+\)|^", expression)[0]  # which count for all of it
    open_groups: list[list[int]] = [[0]]  # where the alternatives of each begin
    groups: list[list[tuple[int, int]]] = []  # the places of the alternatives of each, inner groups first
    for found in part.finditer(expression):
        if found[0] == "|":
            open_groups[-1].append(found.end())
        elif found[0] == ")":
            groups.append(_places(open_groups.pop(), found.start()))
        elif found[0][0] == "(" and not found[0].endswith(")"):
            open_groups.append([found.end()])
    groups.append(_places(open_groups[0], len(expression)))
    for number, group in enumerate(groups):
        around = [
            other for other in groups[number + 1 :] if other[0][0] <= group[0][0] and group[-1][1] <= other[-1][1]
        ]
        if any(expression[other[-1][1] + 1 :][:1] in ("*", "+", "{") for other in (group, *around)):
            continue
        for start, stop in group if len(group) > 1 else ():
            alone, left, right = expression[start:stop], group[0][0], group[-1][1]
            for other in around:  # of these only the alternative that holds it is left
                [(first, last)] = [place for place in other if place[0] <= left and right <= place[1]]
                alone = expression[first:left] + alone + expression[right:last]
                left, right = other[0][0], other[-1][1]
            whole = expression[:left] + alone + expression[right:]
            if start < stop and _compiles(whole := whole if whole.startswith(flags) else flags + whole):
                yield expression[start:stop], whole


def _compiles(expression: str) -> bool:
    try:
        re.compile(expression)
    except re.error:
        return False
    return True


def _places(starts: Sequence[int], end: int) -> list[tuple[int, int]]:
    """The start and the end of each alternative, between which there are bars."""
    return list(zip(starts, [*(later - 1 for later in starts[1:]), end], strict=True))


def _check_expressions(lora: Mapping[str, Any], modules: Sequence[str], ends: set[str], where: str) -> None:
    """Refuse a regular expression that no module fits, or one of whose alternatives none fits."""
    for field, name, expression in _expressions(lora):
        for alternative, alone in [("", expression), *single_alternatives(expression)]:
            if any(re.fullmatch(alone, module) for module in modules):
                continue
            part = f"the alternative {alternative!r} of {name!r}" if alternative else f"{name!r}"
            word = max(re.findall(r"\w+", alternative or name), key=len, default="")
            there = next((module for module in modules if word in module.split(".")), modules[-1])
            known = word in ends or not word or word.isdigit()
            hint = f"a module's name is {there!r}" if known else nearest(word, ends)
            raise InputError(f"{where}.{field}: {part} fits no module; {hint}")


def check_names(
    lora: Mapping[str, Any], modules: Sequence[str], vocabulary: int, where: str, targeted: Sequence[str] | None = None
) -> None:
    """Refuse names, layers and tokens that the base does not have, each by itself: PEFT leaves such a one out, in
    silence where another one fits.

    Args:
        lora: LoraConfig's settings.
        modules: The names of the base's modules, `model.layers.0.mlp.up_proj`.
        vocabulary: How many tokens the base has an embedding of.
        where: What a sentence begins with.
        targeted: The modules that PEFT gives an adapter, where that is known.

    Raises:
        InputError: the first one, and the nearest that there is.

    >>> check_names({"target_modules": ["up_porj"]}, ["layers.0.up_proj"], 9, "lora")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    grpo_cot.common.errors.InputError: lora.target_modules names 'up_porj', which no module is called; did you mean ...
    """
    ends = {module.rpartition(".")[2] for module in modules if not module.rpartition(".")[2].isdigit()}
    for field in ("target_modules", "exclude_modules", "modules_to_save", "rank_pattern", "alpha_pattern"):
        pattern, start = (
            field.endswith("_pattern"),
            ".*" if field == "modules_to_save" else r"(.*\.)?",
        )  # as PEFT reads it
        for name in lora.get(field) or () if not isinstance(lora.get(field), str) else ():
            fits = re.compile(rf"{start}({name if pattern else re.escape(name)})$")
            if not any(fits.match(module) for module in modules):
                raise InputError(f"{where}.{field} names {name!r}, which no module is called; {nearest(name, ends)}")
    _check_expressions(lora, modules, ends, where)
    for field in ("rank_pattern", "alpha_pattern") if targeted is not None else ():
        for name in lora.get(field) or ():
            if not any(re.fullmatch(rf"(.*\.)?({name})", module) for module in targeted or ()):
                raise InputError(f"{where}.{field} names {name!r}, which target_modules does not; add it there")
    layers = {int(part) for module in modules for part in module.split(".") if part.isdigit()}
    asked = lora.get("layers_to_transform") or []
    for layer in [asked] if isinstance(asked, int) else asked:
        if layer not in layers:
            raise InputError(
                f"{where}.layers_to_transform names {layer}, expected layers from 0 to {max(layers, default=0)}"
            )
    tokens = lora.get("trainable_token_indices") or []
    for token in tokens if isinstance(tokens, list) else [token for listed in tokens.values() for token in listed]:
        if not 0 <= token < vocabulary:
            raise InputError(
                f"{where}.trainable_token_indices names {token}, expected tokens from 0 to {vocabulary - 1}"
            )
