"""Diversity, worked by hand and compared with NLTK's and SacreBLEU's own."""

import itertools
import re

import pytest
from nltk.util import ngrams
from sacrebleu import BLEU

from grpo_cot.data.generated.feedback import sentences
from grpo_cot.judging.diversity import distinct_n, self_bleu

TEXTS = [sentence.text for sentence in itertools.islice(sentences("test", 3), 40)]


def test_distinct_n_worked_by_hand() -> None:
    """the room is small, the room is dark: 5 different of 8 words; 4 different of 6 pairs."""
    texts = ["The room is small.", "the room is dark"]
    assert distinct_n(texts, 1) == 5 / 8 and distinct_n(texts, 2) == 4 / 6
    assert distinct_n(["a a a a"], 1) == 1 / 4
    assert distinct_n(["one", ""], 2) is None


def test_distinct_n_by_another_ngram_reader() -> None:
    words = [re.sub("[^a-z]", " ", text.lower()).split() for text in TEXTS]
    for n in (1, 2, 3):
        grams = [gram for text in words for gram in ngrams(text, n)]
        assert distinct_n(TEXTS, n) == len(set(grams)) / len(grams)


def test_self_bleu_is_the_mean_of_sacrebleus_own_scores() -> None:
    texts = [*TEXTS, TEXTS[0], "One", "one one one one one one", "the the the", ""]
    metric = BLEU(lowercase=True, effective_order=True)
    expected = [
        metric.sentence_score(text, [*texts[:position], *texts[position + 1 :]]).score
        for position, text in enumerate(texts)
    ]
    found = self_bleu(texts)
    assert found["value"] == pytest.approx(sum(expected) / len(expected), abs=1e-9)
    assert found["n"] == len(texts) and found["signature"] == str(metric.get_signature())


def test_self_bleu_tells_one_sentence_again_and_again_from_different_ones() -> None:
    assert self_bleu(["The room is far too dark."] * 5)["value"] == pytest.approx(100)
    assert self_bleu(["alpha beta gamma delta", "one two three four"])["value"] == 0
    assert self_bleu(TEXTS)["value"] < 90
    with pytest.raises(ValueError, match="at least two texts to compare, found 1"):
        self_bleu(["alone"])
