"""Settings tried on something tiny: what a library refuses only at work is refused before hours of it.

The constructors of GenerationConfig and of the trainers' configurations take values that sampling, the optimiser or the
schedule refuses later (`top_p: 7`, `adam_beta1: 2`, a schedule without its own settings). No list of ours could follow
the libraries, so a model of a few numbers is sampled from, and an optimiser of one parameter is made.
"""

import contextlib
import copy
import functools
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from grpo_cot.common.errors import InputError

# How something is computed, and not what: a GPU's ways cannot be tried on every machine.
WAYS = ("cache_implementation", "cache_config", "compile_config", "disable_compile")
TOKENS, MOST_TOKENS = 2**10, 2**20  # a setting may name a token, up to more than any vocabulary has
STEPS = 100


def try_sampling(sampling: Mapping[str, Any], where: str) -> None:
    """Sample two tokens with GenerationConfig's parameters, as the steps do.

    Raises:
        InputError: the library, or the pipeline, cannot sample so.
    """
    if sampling.get("cache_implementation") == "paged":
        raise InputError(
            f"{where}.cache_implementation is 'paged', with which Transformers answers in another form and order than "
            "the steps read; take it out, or name another one"
        )
    if sampling.get("cache_implementation") == "quantized":
        raise InputError(
            f"{where}.cache_implementation is 'quantized', which needs a package that the images lack; take it out, or "
            "name another one"
        )
    settings = {key: value for key, value in sampling.items() if key not in WAYS}
    settings["max_new_tokens"] = min(2, settings.get("max_new_tokens", 2))
    if problem := _sampling_problem(json.dumps(settings, sort_keys=True)):
        raise InputError(f"{where}: no text can be sampled so: {problem}")


@functools.cache
def _sampling_problem(settings: str) -> str | None:
    from grpo_cot.models.generation import generate

    sampling = json.loads(settings)
    largest = max((int(number) for number in re.findall(r"\d+", settings)), default=0)
    model, tokenizer = tiny(TOKENS if largest < TOKENS else MOST_TOKENS)
    try:
        with quiet():
            generate(model, tokenizer, [[2, 3, 4], [2, 3]], sampling, batch_size=2, seed=0, progress="trial")
    except Exception as error:  # the libraries raise what they like
        return reason_of(error)
    return None


@functools.cache
def tiny(tokens: int) -> tuple[Any, Any]:
    """A decoder of two dimensions, and a tokenizer of two words and many numbers."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"padding": 0, "end": 1}, unk_token="padding"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="padding", eos_token="end")
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=tokens, n_embd=2, n_layer=1, n_head=1, n_positions=64, bos_token_id=None, eos_token_id=1,
            pad_token_id=0,
        )
    )  # fmt: skip
    return model.eval(), tokenizer


def try_optimiser(configuration: Any, where: str) -> None:
    """Make the optimiser and the schedule of a trainer's configuration, for one parameter.

    Raises:
        InputError: the library cannot make one, or the optimiser does not read a setting.
    """
    import torch
    from transformers import Trainer, get_scheduler

    steps = configuration.max_steps if configuration.max_steps > 0 else STEPS
    try:
        with quiet():
            kind, arguments = Trainer.get_optimizer_cls_and_kwargs(configuration, tiny(TOKENS)[0])
            parameters = [torch.nn.Parameter(torch.zeros(2, 2))]
            optimiser = parameters if "optimizer_dict" in arguments else kind(parameters, **arguments)
            if "optimizer_dict" not in arguments:
                get_scheduler(
                    configuration.lr_scheduler_type, optimiser, num_training_steps=steps,
                    num_warmup_steps=configuration.get_warmup_steps(steps),
                    scheduler_specific_kwargs=configuration.lr_scheduler_kwargs,
                )  # fmt: skip
    except Exception as error:  # the libraries raise what they like
        raise InputError(f"{where}: no optimiser or schedule can be made so: {reason_of(error)}") from None
    with quiet():
        unread = _unread(configuration)
    if unread:
        raise InputError(
            f"{where}.{unread}, which the optimiser {str(configuration.optim.value)!r} does not read; take it out, or "
            "set optim to one that does"
        )


def _unread(configuration: Any) -> str | None:
    """A setting of the optimiser that changes nothing of it, by trying other values: only its code knows which it
    reads."""
    given = [part for part in (configuration.optim_args or "").replace(" ", "").split(",") if part]
    for part in given:
        name, others = part.partition("=")[0], [other for other in given if other != part]
        without = _optimiser(configuration, optim_args=",".join(others))
        # Where a number is expected text fails, and where a truth is expected one of these is another one.
        tried = [_optimiser(configuration, optim_args=",".join([*others, f"{name}={text}"])) for text in ("true", "?")]
        if all(outcome == without for outcome in tried):
            return f"optim_args names {name!r}"
    fields = type(configuration).__dataclass_fields__
    for name in ("optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon"):
        value, default = getattr(configuration, name), fields[name].default
        if value != default and _optimiser(configuration) == _optimiser(configuration, **{name: default}):
            return f"{name} is {value!r}"
    return None


def _optimiser(configuration: Any, **changes: Any) -> str:
    """The class and the arguments of a configuration's optimiser, or the refusal, as text that can be compared."""
    from transformers import Trainer

    changed = copy.copy(configuration)
    for name, value in changes.items():
        setattr(changed, name, value)
    try:
        return repr(Trainer.get_optimizer_cls_and_kwargs(changed, tiny(TOKENS)[0]))
    except Exception as error:  # the libraries raise what they like
        return repr(error)


def reason_of(error: Exception) -> str:
    """A library's error as a part of a sentence."""
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' warnings and progress bars from the user: these are not of a run."""
    import warnings

    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
