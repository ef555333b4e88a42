"""The generator of student feedback: repeatable, varied, split by structure, and read from no single word."""

import itertools
import re
from collections import Counter, defaultdict

import pytest

from grpo_cot.data.generated.feedback import (
    ASPECTS,
    FRAMES,
    LABELS,
    WHEEL,
    FeedbackSplit,
    Sentence,
    sentences,
    split_of,
)

SPLITS: tuple[FeedbackSplit, ...] = ("train", "judge", "test")


@pytest.fixture(scope="module")
def drawn() -> dict[FeedbackSplit, list[Sentence]]:
    return {split: list(itertools.islice(sentences(split, 3), 6000)) for split in SPLITS}


def test_the_same_seed_gives_the_same_stream() -> None:
    first, second, other = (list(itertools.islice(sentences("test", seed), 50)) for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_no_phrasing_of_a_split_occurs_in_another_one(drawn: dict[FeedbackSplit, list[Sentence]]) -> None:
    for field in ("structure", "masked", "text"):
        seen = [{getattr(sentence, field) for sentence in drawn[split]} for split in SPLITS]
        assert not any(one & other for one, other in itertools.combinations(seen, 2)), field


def test_every_frame_and_every_aspect_is_in_every_split() -> None:
    assert len(set(WHEEL)) == len(SPLITS)
    places: dict[str, set[FeedbackSplit]] = defaultdict(set)
    for frame in (frame for frames in FRAMES.values() for frame in frames):
        for aspect in ASPECTS:
            places[frame].add(split_of(frame, aspect))
            places[aspect].add(split_of(frame, aspect))
    assert {len(splits) for splits in places.values()} == {len(SPLITS)}


def test_the_classes_are_balanced_and_a_text_has_one(drawn: dict[FeedbackSplit, list[Sentence]]) -> None:
    for split in SPLITS:
        counts = Counter(sentence.label for sentence in drawn[split])
        assert min(counts[label] for label in LABELS) > 1800
    classes: dict[str, set[str]] = defaultdict(set)
    for sentence in itertools.chain(*drawn.values()):
        classes[sentence.text].add(sentence.label)
    assert {len(labels) for labels in classes.values()} == {1}


def test_sentences_are_whole(drawn: dict[FeedbackSplit, list[Sentence]]) -> None:
    for sentence in itertools.chain(*drawn.values()):
        assert re.fullmatch(r"[A-Z][A-Za-z ,:-]+\.", sentence.text), sentence
        assert not re.search(r"\b(the slides|tutors|exams|topics) (is|it)\b", sentence.text), sentence


def test_there_are_more_than_a_hundred_thousand_different_sentences(drawn: dict[FeedbackSplit, list[Sentence]]) -> None:
    """Of N equally likely ones, n draws repeat n²/2N; where some are likelier, there are more than this N."""
    texts = [sentence.text for sentence in drawn["train"]]
    repeats = len(texts) - len(set(texts))
    assert len(texts) ** 2 / (2 * max(repeats, 1)) > 200_000


def test_no_word_alone_tells_the_class(drawn: dict[FeedbackSplit, list[Sentence]]) -> None:
    """By the best rule of the form: this class where the word occurs, that one where it does not."""
    rows, everyone = drawn["train"], Counter(sentence.label for sentence in drawn["train"])
    with_word: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in rows:
        for word in set(re.findall(r"\w+", sentence.text.lower())):
            with_word[word][sentence.label] += 1
    right = {word: max(counts.values()) + max((everyone - counts).values()) for word, counts in with_word.items()}
    assert max(right.values()) < 0.5 * len(rows)
    for word in ("not", "clear", "confusing", "pleasant", "unpleasant", "call"):
        assert len(with_word[word]) == 3, word
