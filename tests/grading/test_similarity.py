"""BLEU and ROUGE against the libraries called directly, and what they must not do to Vietnamese."""

import doctest
import json
import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from grpo_cot.grading import similarity
from grpo_cot.grading.similarity import ROUGE, bleu, rouge, words

ENGLISH = [
    ("He had 2 apples left, running.", "He has two apples left; he runs."),
    ("", "Nothing was answered."),
    ("The same words.", "The same words."),
    ("apples apples apples\napples", "She buys\n\napples and pears, $4.50 each."),
]
VIETNAMESE = [
    ("Cô ấy có 70.000 đồng, đáp số là 5.", "Đáp số: cô ấy có 70.000 đồng."),
    ("Mỗi ngày Nam ăn 3 quả trứng", "Nam ăn ba quả trứng mỗi ngày và bán phần còn lại"),
]


def test_doctests() -> None:
    assert doctest.testmod(similarity).failed == 0


def test_bleu_is_sacrebleu_over_the_whole_corpus() -> None:
    hypotheses, references = zip(*ENGLISH * 5, *VIETNAMESE * 5, strict=True)
    found = bleu(hypotheses, references)
    assert found["value"] == pytest.approx(sacrebleu.corpus_bleu(list(hypotheses), [list(references)]).score, abs=1e-9)
    metric = sacrebleu.BLEU()
    score = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=1000)
    assert (found["low"], found["high"]) == pytest.approx((score._mean - score._ci, score._mean + score._ci), abs=1e-9)
    assert found["signature"] == str(metric.get_signature())
    assert found["signature"].startswith("nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_every_reference_counts() -> None:
    """A list of references shaped as one document each would compare the first hypothesis only."""
    texts = [f"Problem {number} has the answer {number * 7}, which is easily seen." for number in range(20)]
    assert bleu(texts, texts)["value"] == pytest.approx(100)
    assert bleu(texts, [texts[0], *texts[:0:-1]])["value"] < 90


def test_bleu_of_nothing_in_common_is_zero_with_its_interval() -> None:
    found = bleu([""], ["something"])
    assert (found["value"], found["low"], found["high"]) == (0, 0, 0)


@pytest.mark.parametrize(("hypothesis", "reference"), ENGLISH)
def test_rouge_of_english_is_rouge_score_with_its_stemmer(hypothesis: str, reference: str) -> None:
    expected = RougeScorer(list(ROUGE), use_stemmer=True).score(reference, hypothesis)
    found = rouge(hypothesis, reference, "en")
    assert found == pytest.approx({name: expected[name].fmeasure for name in ROUGE}, abs=1e-9)


def test_rouge_of_gsm8k_is_rouge_score_with_its_stemmer(gsm8k_folder: Path) -> None:
    lines = (gsm8k_folder / "test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [text for line in lines if (text := json.loads(line)["answer"]).isascii()][:60]
    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    for hypothesis, reference in pairwise(answers):
        assert words(hypothesis, "en") == DefaultTokenizer(use_stemmer=True).tokenize(hypothesis)
        expected = scorer.score(reference, hypothesis)
        found = rouge(hypothesis, reference, "en")
        assert found == pytest.approx({name: expected[name].fmeasure for name in ROUGE}, abs=1e-9)


@pytest.mark.parametrize(("hypothesis", "reference"), VIETNAMESE)
def test_rouge_of_vietnamese_is_rouge_score_on_its_words(hypothesis: str, reference: str) -> None:
    """rouge-score's own tokenizer, given each word as a name that it can read, and no stemmer."""
    names: dict[str, str] = {}

    def readable(text: str) -> str:
        return re.sub(r"\w+", lambda word: names.setdefault(word.group(), f"w{len(names)}"), text.lower())

    expected = RougeScorer(list(ROUGE), use_stemmer=False).score(readable(reference), readable(hypothesis))
    found = rouge(hypothesis, reference, "vi")
    assert found == pytest.approx({name: expected[name].fmeasure for name in ROUGE}, abs=1e-9)


def test_vietnamese_keeps_its_letters_however_they_are_encoded() -> None:
    text = "Đáp số: những kết quả"
    assert DefaultTokenizer(use_stemmer=False).tokenize(text) == ["p", "s", "nh", "ng", "k", "t", "qu"]
    assert words(text, "vi") == words(unicodedata.normalize("NFD", text), "vi") == "đáp số những kết quả".split()


def test_the_stemmer_is_english_only() -> None:
    assert words("chips bananas running", "vi") == ["chips", "bananas", "running"]
    assert words("chips bananas running", "en") == ["chip", "banana", "run"]
