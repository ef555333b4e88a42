"""A generator of student feedback: single sentences, each negative, neutral or positive.

A sentence's *structure* is its frame (`never-good`) and its aspect (`exams`), or two aspects. No structure belongs to
two splits, so that no phrasing of a test sentence occurs in training, whatever the seed. Opener, closer, the aspect's
name and its adjectives are free: there are some millions of different sentences. The class is in the whole of a
frame and not in one of its words: `not`, `clear` and `confusing` stand in sentences of all three classes.

The split `judge` trains a judge of sentences that other models write; those models train on `train`.
"""

import hashlib
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from grpo_cot.common.files import read_yaml

FeedbackSplit = Literal["train", "judge", "test"]
Label = Literal["negative", "neutral", "positive"]
LABELS: tuple[Label, ...] = get_args(Label)

# Ten places of a wheel. A frame's hash turns it, and the aspects follow each other on it: so every frame has aspects in
# every split, and what a split lacks is known to the others by its parts alone.
WHEEL: tuple[FeedbackSplit, ...] = (
    "train", "test", "judge", "train", "judge", "train", "test", "train", "judge", "train"
)  # fmt: skip

_PHRASINGS = read_yaml(Path(__file__).with_name("feedback.yaml"))
FRAMES: dict[Label, dict[str, str]] = _PHRASINGS["frames"]
ASPECTS: list[str] = list(_PHRASINGS["aspects"])


class Sentence(NamedTuple):
    """One sentence; `masked` has the names of its slots in place of their words, but for the aspects."""

    text: str
    label: Label
    structure: str
    masked: str


@cache
def split_of(frame: str, *aspects: str) -> FeedbackSplit:
    """The split to which a frame's sentences on one aspect, or on two, belong."""
    turned = int.from_bytes(hashlib.sha256(frame.encode()).digest()[:8])
    return WHEEL[(turned + sum(map(ASPECTS.index, aspects))) % len(WHEEL)]


def sentences(split: FeedbackSplit, seed: int | str) -> Iterator[Sentence]:
    """An endless stream of sentences of one split, a third of each class; the same seed gives the same stream."""
    rng = random.Random(f"feedback-{split}-{seed}")
    while True:
        label, aspects = rng.choice(LABELS), rng.sample(ASPECTS, 2)
        names = [name for name, pattern in FRAMES[label].items() if split_of(name, *_told(pattern, aspects)) == split]
        if names:  # chosen last, so that an aspect says nothing of the class
            frame = rng.choice(names)
            yield _sentence(rng, label, frame, _told(FRAMES[label][frame], aspects))


def _told(pattern: str, aspects: list[str]) -> list[str]:
    """The aspects that a frame tells of: both, or the first."""
    return aspects if "{t}" in pattern else aspects[:1]


def _sentence(rng: random.Random, label: Label, frame: str, aspects: list[str]) -> Sentence:
    words = _words(rng, aspects[0]) | {
        name: rng.choice(_PHRASINGS[f"{name}s"]) for name in ("opener", "closer", "fact")
    }
    words["mid"] = rng.choice(_PHRASINGS["mid"])
    if len(aspects) > 1:
        second = _words(rng, aspects[1])
        words |= {"t": second["s"], "are": second["is"], "tgood": second["good"], "tbad": second["bad"]}
    pattern = FRAMES[label][frame]
    masks = {name: name.upper() for name in words} | dict(zip("st", aspects, strict=False))
    return Sentence(
        _spelt(f"{words['opener']}{pattern.format_map(words)}{words['closer']}"), label,
        " ".join((frame, *aspects)), pattern.format_map(masks),
    )  # fmt: skip


def _words(rng: random.Random, aspect: str) -> dict[str, Any]:
    """The words of one aspect by slot: its name, the verb and the pronouns that go with it, and its adjectives."""
    forms = _PHRASINGS["aspects"][aspect]
    singular, plural = forms.get("singular", []), forms.get("plural", [])
    name = rng.choice(singular + plural)
    good, good2 = rng.sample(_PHRASINGS["good"] + forms["good"], 2)
    bad, bad2 = rng.sample(_PHRASINGS["bad"] + forms["bad"], 2)
    if name in singular:
        grammar = {"is": "is", "they": forms.get("they", "it"), "them": forms.get("them", "it")}
    else:
        grammar = {"is": "are", "they": "they", "them": "them"}
    return {"s": name, "good": good, "good2": good2, "bad": bad, "bad2": bad2, **grammar}


def _spelt(text: str) -> str:
    """A sentence with its first letter large and a full stop."""
    return f"{text[0].upper()}{text[1:]}."
