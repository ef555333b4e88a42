"""How near a text comes to the worked solution, by the libraries that the field reports: SacreBLEU and ROUGE.

Both compare wording, not correctness: a right solution in other words scores low, and a wrong one in the same words
high. They stand beside the accuracies because others publish them.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from grpo_cot.statistics import RESAMPLES

ROUGE = ("rouge1", "rouge2", "rougeL")
_WORD = re.compile(r"[^\W_]+")


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Corpus-level SacreBLEU (Post, 2018), 0 to 100, one reference a hypothesis.

    The interval is SacreBLEU's own: the mean of its bootstrap resamples plus or minus half the width of their central
    95 %; so the value need not lie in its middle.

    Returns:
        value, low, high, and the signature that says how it was computed.
    """
    from sacrebleu import BLEU

    metric = BLEU(force=True)  # no warning that text whose full stops stand alone looks tokenized
    score = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=RESAMPLES)
    signature = str(metric.get_signature())
    entry = json.loads(score.format(width=12, signature=signature, is_json=True))
    mean, half_width = entry.get("confidence_mean", 0.0), entry.get("confidence_var", 0.0)  # absent where the mean is 0
    return {"value": score.score, "low": mean - half_width, "high": mean + half_width, "signature": signature}


def rouge(hypothesis: str, reference: str, locale: str) -> dict[str, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004), each 0 to 1, as rouge-score computes them on `words`.

    >>> {name: round(value, 2) for name, value in rouge("She had two apples", "She has two apples left", "en").items()}
    {'rouge1': 0.67, 'rouge2': 0.29, 'rougeL': 0.67}
    """
    scores = _scorer(locale).score(reference, hypothesis)
    return {name: float(scores[name].fmeasure) for name in ROUGE}


def words(text: str, locale: str) -> list[str]:
    """A text's words for ROUGE: lower case, letters and digits of any script, with Porter's stemmer in English only.

    rouge-score's own tokenizer keeps a to z and 0 to 9 and takes every other letter for a space, which leaves little of
    Vietnamese ("đáp số" becomes "p s"). On English text of ASCII characters this one gives the same words.

    >>> words("Đáp số: 70.000 đồng", "vi"), words("Tickets, 2 dollars", "en")
    (['đáp', 'số', '70', '000', 'đồng'], ['ticket', '2', 'dollar'])
    """
    stem = _stemmer() if locale == "en" else str
    return [stem(word) if len(word) > 3 else word for word in plain_words(text)]


def plain_words(text: str) -> list[str]:
    """A text's words in lower case: its runs of letters and digits of any script."""
    return _WORD.findall(unicodedata.normalize("NFC", text.lower()))  # composed: a combining mark is no letter


class _Tokenizer:
    """A tokenizer in the form that rouge-score expects."""

    def __init__(self, locale: str) -> None:
        self.locale = locale

    def tokenize(self, text: str) -> list[str]:
        return words(text, self.locale)


@lru_cache
def _scorer(locale: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # here, because importing it takes two seconds

    return RougeScorer(list(ROUGE), tokenizer=_Tokenizer(locale))


@lru_cache
def _stemmer() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer

    return lru_cache(maxsize=100_000)(PorterStemmer().stem)
