"""The rewards that a recipe may name: ours, the published ones, and the functions of the checkout's my_rewards.py."""

import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn, Protocol

from grpo_cot.common.errors import InputError, nearest
from grpo_cot.common.files import Row
from grpo_cot.rewards import ours, published
from grpo_cot.rewards.promise import Reward, promise_of
from grpo_cot.schema import TAGS

OWN = "my_rewards"  # the steps run in the checkout's root, and dvc.yaml tracks the file my_rewards.py there
TRAINED = "reward_model"  # the reward that is trained first, as the recipe's section of that name says


class Tokenizer(Protocol):
    """A tokenizer of Transformers, or what splits texts in its stead."""

    def __call__(self, text: list[str], *, add_special_tokens: bool) -> Mapping[str, Any]:
        """Token ids of each text, as `input_ids`."""


class Measure(NamedTuple):
    """What rewards on length read beside a completion: the policy's tokenizer, and the phase's longest completion."""

    tokenizer: Tokenizer
    max_completion_length: int  # tokens


def _promised(module: ModuleType) -> dict[str, Reward]:
    return {name: value for name, value in vars(module).items() if callable(value) and promise_of(value)}


REWARDS = _promised(ours)
PUBLISHED_REWARDS = _promised(published)


def reward_functions(
    section: Mapping[str, float], reward_model: Reward | None = None, measure: Measure | None = None
) -> tuple[list[Reward], list[float]]:
    """Functions and weights, in order, of a recipe's `rewards: {name: weight}`. A weight of 0 logs and does not pay.

    Names are those of `REWARDS`, those of `PUBLISHED_REWARDS`, `my_rewards.NAME` for a function of my_rewards.py, and
    `reward_model`, which is the given function; without one, it is there and cannot be called. A function with a
    parameter `reasoning_tokens` gets the number of tokens before each completion's first `<answer>`, tokenised again,
    and one with a parameter `max_completion_length` the phase's; without a `measure` the former cannot be called, and
    the latter takes its default.

    Raises:
        InputError: a name is not known (the message gives the nearest one), my_rewards.py cannot be imported, or two
            functions have the same name, under which the trainer logs them.

    >>> functions, weights = reward_functions({"correctness": 1.0, "soft_format": 0.0})
    >>> [function.__name__ for function in functions], weights
    (['correctness', 'soft_format'], [1.0, 0.0])
    """
    trained = reward_model or untrained
    functions = [trained if name == TRAINED else _reward(name) for name in section]
    if measure is not None:
        functions = [measured(function, measure) for function in functions]
    names = [function.__name__ for function in functions]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two rewards are called {min(twice)!r}: rename the one in {OWN}.py")
    return functions, list(section.values())


def untrained(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> NoReturn:
    """In the place of the reward `reward_model` before there is one.

    Raises:
        InputError: always.
    """
    raise InputError(f"{TRAINED} is trained in the step train and can judge nothing before")


untrained.__name__ = TRAINED


def reads_gold(reward: Reward) -> bool:
    """Whether a reward compares completions with final answers: it has a parameter for them.

    >>> reads_gold(ours.correctness), reads_gold(ours.soft_format)
    (True, False)
    """
    return "gold" in inspect.signature(reward).parameters


def reads_reasoning(reward: Reward) -> bool:
    """Whether a reward reads how many tokens stand before the answer: it has a parameter for that.

    >>> reads_reasoning(published.published_length_cosine), reads_reasoning(ours.length_cosine)
    (True, False)
    """
    return "reasoning_tokens" in inspect.signature(reward).parameters


def measured(reward: Reward, measure: Measure) -> Reward:
    """A reward that is given what it has parameters for: `reasoning_tokens`, counted in the text before the first
    `<answer>` or in all of it, and `max_completion_length`. A reward with neither is returned as it is.

    >>> split = lambda text, add_special_tokens: {"input_ids": [part.split() for part in text]}
    >>> cosine = measured(published.published_length_cosine, Measure(split, 6))
    >>> texts = ["so many words <answer>5</answer> and more", "<answer>5</answer>"]
    >>> [round(paid, 6) for paid in cosine(prompts=[""] * 2, completions=texts, gold=["5"] * 2)]
    [3.535534, 5.0]
    """
    parameters = inspect.signature(reward).parameters.keys() & {"reasoning_tokens", "max_completion_length"}
    if not parameters:
        return reward

    @functools.wraps(reward)
    def with_lengths(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Sequence[float | None]:
        if "reasoning_tokens" in parameters:
            before = [ours.completion_text(completion).partition(TAGS[2])[0] for completion in completions]
            counts = list(map(len, measure.tokenizer(before, add_special_tokens=False)["input_ids"]))
            columns["reasoning_tokens"] = counts
        if "max_completion_length" in parameters:
            columns["max_completion_length"] = measure.max_completion_length
        return reward(prompts=prompts, completions=completions, **columns)

    return with_lengths


def check_golds(prompts: Sequence[Row]) -> None:
    """Refuse prompts without the final answers that rewards compare with.

    Raises:
        InputError: one has none.
    """
    if strange := next((row["id"] for row in prompts if row["gold"] is None), None):
        raise InputError(
            f"row {strange} has no final answer, which the rewards compare with; name its column as columns.gold in "
            "the source file of the data set, or learn from its pairs alone"
        )


def check_columns(rewards: Mapping[str, float], prompts: Sequence[Row]) -> None:
    """Refuse prompts that lack what one of the named rewards reads.

    Raises:
        InputError: one has no final answer, and a reward compares with it.
    """
    if any(map(reads_gold, reward_functions(rewards)[0])):
        check_golds(prompts)


def classes(prompts: Sequence[Row], others: Mapping[str, Sequence[Row]]) -> list[str]:
    """The classes of the training rows, sorted, which a reward model is to tell apart; `others` are the other splits.

    Raises:
        InputError: a row has no label, there are fewer than two classes, or another split has one more.
    """
    for row in (row for rows in (prompts, *others.values()) for row in rows):
        if row.get("label") is None or row.get("wanted") is None:
            raise InputError(
                f"row {row['id']} has no label, from which a reward model learns: name a data set of texts (rows: "
                "text), or set 'reward_model' to null"
            )
    names = sorted({row["label"] for row in prompts})
    if len(names) < 2:
        raise InputError(
            f"all training rows have the label {names[0]!r}: a reward model needs at least two classes to tell apart"
        )
    for split, rows in others.items():
        for row in rows:
            if row["label"] not in names:
                raise InputError(
                    f"row {row['id']} of {split} has the label {row['label']!r}, which no training row has "
                    f"({', '.join(names)}): a reward model would not know it"
                )
    if strange := next((row for row in prompts if row["wanted"] not in names), None):
        raise InputError(
            f"row {strange['id']} wants the class {strange['wanted']!r}, which no training row has; "
            f"{nearest(strange['wanted'], names)}"
        )
    return names


def _reward(name: str) -> Reward:
    known = REWARDS | PUBLISHED_REWARDS
    if name in known:
        return known[name]
    module, _, function = name.rpartition(".")
    if module and module != OWN:
        raise InputError(f"{name!r} is in {module}, which no step tracks: write the reward into {OWN}.py")
    if not module:
        raise InputError(f"unknown reward {name!r}; {nearest(name, [*known, TRAINED])}")
    functions = vars(_own_module())
    if not callable(functions.get(function)):
        raise InputError(f"{OWN}.py has no function {function!r}; {nearest(function, _promised(_own_module()))}")
    reward: Reward = functions[function]
    return reward


def _own_module() -> ModuleType:
    path = Path(f"{OWN}.py").resolve()
    loaded = sys.modules.get(OWN)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    specification = spec_from_file_location(OWN, path)
    if not path.is_file() or specification is None or specification.loader is None:
        raise InputError(f"{path} does not exist: rewards of one's own stand there")
    module = module_from_spec(specification)
    sys.modules[OWN] = module  # before the code runs, as Python's import does
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[OWN]
        raise InputError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module
