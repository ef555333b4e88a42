"""How different a model's texts are from each other. Higher distinct-n and lower self-BLEU mean more diverse texts."""

import random
import statistics
from collections.abc import Sequence
from typing import Any

from grpo_cot.grading.similarity import plain_words

SAMPLE = 100  # texts whose self-BLEU takes two seconds: the time grows with the square of their number


def distinct(texts: Sequence[str], n: int) -> float | None:
    """distinct-n (Li et al., 2016): the share of different n-grams of words among all n-grams of all texts.

    None where no text has so many words.

    >>> distinct(["the lecture is dull", "the lecture is long"], 2)
    0.6666666666666666
    """
    grams = [gram for words in map(plain_words, texts) for gram in zip(*(words[at:] for at in range(n)), strict=False)]
    return len(set(grams)) / len(grams) if grams else None


def self_bleu(texts: Sequence[str]) -> dict[str, Any] | None:
    """Self-BLEU (Zhu et al., 2018): the mean SacreBLEU of a text with the others as its references, 0 to 100.

    Of at most `SAMPLE` texts that have a word, drawn with a fixed seed, against each other. None of fewer than two.

    Returns:
        value, and `n`: how many texts were compared.
    """
    spoken = [text for text in texts if plain_words(text)]
    drawn = spoken if len(spoken) <= SAMPLE else random.Random(0).sample(spoken, SAMPLE)
    if len(drawn) < 2:
        return None
    from sacrebleu import BLEU

    metric = BLEU(effective_order=True)  # a text of three words has no four-gram to miss
    scores = [metric.sentence_score(text, drawn[:at] + drawn[at + 1 :]).score for at, text in enumerate(drawn)]
    return {"value": statistics.fmean(scores), "n": len(drawn)}
