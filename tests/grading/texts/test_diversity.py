"""distinct-n and self-BLEU, by hand and against SacreBLEU."""

import doctest

import pytest
from sacrebleu import sentence_bleu

from grpo_cot.grading.texts import diversity
from grpo_cot.grading.texts.diversity import distinct, self_bleu

TEXTS = ["The course is dull.", "The course is long and dull!", "the exercises help", ""]


def test_doctests() -> None:
    assert doctest.testmod(diversity).failed == 0


def test_distinct_counts_n_grams_of_all_texts_once_each() -> None:
    assert distinct(TEXTS, 1) == pytest.approx(8 / 13)  # the course is dull long and exercises help
    assert distinct(TEXTS, 2) == pytest.approx(8 / 10)
    assert distinct(["same words"] * 50, 2) == pytest.approx(1 / 50)
    assert distinct(["one", "", "!"], 2) is None


def test_self_bleu_is_each_texts_bleu_with_the_others_as_references() -> None:
    spoken = TEXTS[:3]
    expected = [sentence_bleu(text, [other for other in spoken if other != text]).score for text in spoken]
    assert self_bleu(TEXTS) == {"value": pytest.approx(sum(expected) / 3), "n": 3}  # the empty text is none
    assert self_bleu(["word after word after word"] * 4) == {"value": pytest.approx(100), "n": 4}
    assert self_bleu(["one", "", "!"]) is None


def test_of_many_texts_a_sample_is_compared_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "SAMPLE", 5)
    texts = [f"text number {number} of {number % 7}" for number in range(40)]
    found = self_bleu(texts)
    assert found is not None and found["n"] == 5 and found == self_bleu(texts)
