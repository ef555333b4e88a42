"""Generated feedback: what the beginning of a sentence leaves open, its end decides."""

import itertools
import math
from collections import Counter, defaultdict

import pytest

from grpo_cot.data.generated.feedback import _PHRASES, CLASSES, Sentence, Stream, feedback

STREAMS: tuple[Stream, ...] = ("train", "judge", "test")


def drawn(stream: Stream, count: int, seed: int = 7) -> list[Sentence]:
    return list(itertools.islice(feedback(stream, seed), count))


@pytest.fixture(scope="module")
def training() -> list[Sentence]:
    return drawn("train", 4000)


def test_the_same_seed_gives_the_same_sentences_and_each_class_as_often(training: list[Sentence]) -> None:
    assert training[:50] == drawn("train", 50) != drawn("train", 50, seed=8)
    counts = Counter(sentence.label for sentence in training)
    assert set(counts) == set(CLASSES) and min(counts.values()) > 0.3 * len(training)
    assert len(set(training)) > 0.97 * len(training)


def test_sentences_are_written_out(training: list[Sentence]) -> None:
    for text, _ in training:
        assert 6 <= len(text.split()) <= 20 and text == " ".join(text.split())
        assert text[0].isupper() and text.endswith(".") and not set("{}") & set(text)


def test_no_text_has_two_classes_or_is_in_two_streams() -> None:
    classes, streams = defaultdict(set), defaultdict(set)
    for stream in STREAMS:
        for text, label in drawn(stream, 3000):
            classes[text].add(label)
            streams[text].add(stream)
    assert all(len(found) == 1 for found in [*classes.values(), *streams.values()])


@pytest.mark.parametrize(("words", "shared"), [(2, 0.97), (3, 0.9), (4, 0.7)])
def test_a_beginning_leaves_the_class_open(training: list[Sentence], words: int, shared: float) -> None:
    """Most beginnings of a few words begin sentences of all classes, and the class that each begins most often is the
    right one of an unseen sentence hardly more often than any."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for text, label in training:
        classes[" ".join(text.split()[:words])][label] += 1
    assert sum(count.total() for count in classes.values() if len(count) == 3) > shared * len(training)
    unseen = drawn("test", 1500)
    guesses = [classes[" ".join(text.split()[:words])].most_common(1) for text, _ in unseen]
    right = sum(bool(guess) and guess[0][0] == label for guess, (_, label) in zip(guesses, unseen, strict=True))
    assert right / len(unseen) < 0.4


def words_of(text: str) -> set[str]:
    return set(text.lower().rstrip(".").replace(",", "").split())


def test_the_words_of_a_whole_sentence_give_the_class_mostly_and_not_always() -> None:
    """Naive Bayes on words: well above the third of the beginnings; word order and negation keep it from all."""
    counts: dict[str, Counter[str]] = {label: Counter() for label in CLASSES}
    for text, label in drawn("judge", 3000):
        counts[label].update(words_of(text))

    def likelihood(text: str, label: str) -> float:
        found = counts[label]
        return sum(math.log((found[word] + 0.5) / found.total()) for word in words_of(text))

    unseen = drawn("test", 1000)
    right = sum(max(CLASSES, key=lambda label: likelihood(text, label)) == own for text, own in unseen)
    assert 0.75 < right / len(unseen) < 0.97


def test_a_class_has_many_judgements() -> None:
    for side in ("positive", "negative"):
        parts = (_PHRASES["adjectives"], _PHRASES["predicates"])
        assert len({phrase for part in parts for kind in part.values() for phrase in kind[side]}) >= 80
