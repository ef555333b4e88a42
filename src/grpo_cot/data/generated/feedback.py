"""Students' feedback on a course: sentences of three classes, made of the phrases in feedback.yaml.

Opener and subject are the same in all classes, so that a sentence's beginning does not give its class away. A judgement
affirms an adjective of its class, denies one of the opposite class (`never boring`), or sets the two against each other
(`not boring but lively`, `boring rather than lively`), where the words alone do not tell.

A *judgement* is a subject with what is said of it. Its hash decides for which stream it is held out. So nothing that a
test sentence says of a subject is said of it in a sentence for training or for the judge, in no sentence's second half
either. Every phrase occurs in every stream.
"""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from grpo_cot.common.files import read_yaml

FeedbackClass = Literal["negative", "neutral", "positive"]
Stream = Literal["train", "judge", "test"]
CLASSES: tuple[FeedbackClass, ...] = get_args(FeedbackClass)
LEAST_WORDS, MOST_WORDS = 6, 20

_PHRASES = read_yaml(Path(__file__).with_name("feedback.yaml"))
_KINDS: list[str] = list(_PHRASES["subjects"])
_OPPOSITE: dict[FeedbackClass, FeedbackClass] = {"negative": "positive", "positive": "negative"}
# Shares of all judgements, of those by adjectives, of all sentences (only adjectives are found), and of the ends of
# sentences of one judgement (circumstances follow adjectives alone).
_PREDICATE = 0.4
_FORMS = {"affirmed": 0.6, "denied": 0.2, "contrasted": 0.2}
_TWO, _UNOPENED, _FOUND = 0.2, 0.2, 0.3
_ENDS = {"reason": 0.4, "circumstance": 0.3, "none": 0.3}


class Sentence(NamedTuple):
    """A sentence and its class."""

    text: str
    label: FeedbackClass


class _Judgement(NamedTuple):
    """What is said of a subject; `verb` is empty where `words` begin with one."""

    subject: str
    verb: str
    words: str

    def __str__(self) -> str:
        return " ".join(part for part in self if part)


def feedback(stream: Stream, seed: int | str) -> Iterator[Sentence]:
    """An endless stream of sentences of 6 to 20 words, each class as often; the same seed gives the same stream.

    >>> one, two, three = (next(feedback("train", 7)), next(feedback("train", 7)), next(feedback("test", 7)))
    >>> one == two != three
    True
    """
    rng = random.Random(f"feedback-{stream}-{seed}")
    while True:
        label = rng.choice(CLASSES)
        text = ""
        while not LEAST_WORDS <= len(text.split()) <= MOST_WORDS:
            text = _sentence(label, stream, rng)
        yield Sentence(text, label)


def stream_of(subject: str, words: str) -> Stream:
    """The only stream in which these words are said of the subject: half are for training, a fifth for the test."""
    share = int.from_bytes(hashlib.sha256(f"{subject}: {words}".encode()).digest()[:8]) % 10
    return "test" if share < 2 else "judge" if share < 5 else "train"


def _sentence(label: FeedbackClass, stream: Stream, rng: random.Random) -> str:
    first, second = (_judgement(label, kind, stream, rng) for kind in rng.sample(_KINDS, 2))
    if first.verb and rng.random() < _FOUND:
        text = f"{rng.choice(_PHRASES['finders'])} {first.subject} {first.words}"
    else:
        opener = "" if rng.random() < _UNOPENED else f"{rng.choice(_PHRASES['openers'])} "
        text = f"{opener}{first}"
    if rng.random() < _TWO:
        text += f", and {second}"
    else:
        end = rng.choices(list(_ENDS), list(_ENDS.values()))[0]
        if end == "reason":
            text += f", {rng.choice(_PHRASES['reasons'][label])}"
        elif end == "circumstance" and first.verb:
            text += f" {rng.choice(_PHRASES['circumstances'])}"
    return f"{text[0].upper()}{text[1:]}."


def _judgement(label: FeedbackClass, kind: str, stream: Stream, rng: random.Random) -> _Judgement:
    """A judgement on a subject of a kind, drawn among those of the stream."""
    while True:
        number = rng.choice(("one", "more"))
        subject, was = rng.choice(_PHRASES["subjects"][kind][number]), "was" if number == "one" else "were"
        if rng.random() < _PREDICATE:
            drawn = _Judgement(subject, "", rng.choice(_PHRASES["predicates"][kind][label]).format(was=was))
        else:
            drawn = _Judgement(subject, was, _complement(label, kind, rng))
        if stream_of(drawn.subject, drawn.words) == stream:
            return drawn


def _complement(label: FeedbackClass, kind: str, rng: random.Random) -> str:
    """What a subject was, or was found, in adjectives of its kind."""
    adjectives, complements = _PHRASES["adjectives"][kind], _PHRASES["complements"]
    if label == "neutral":
        fields = {side: rng.choice(words) for side, words in adjectives.items()}
    else:
        adjective, another = rng.sample(adjectives[label], 2)
        fields = {"adjective": adjective, "another": another, "other": rng.choice(adjectives[_OPPOSITE[label]])}
    form = "neutral" if label == "neutral" else rng.choices(list(_FORMS), list(_FORMS.values()))[0]
    complement: str = rng.choice(complements[form])
    return complement.format(**fields)
