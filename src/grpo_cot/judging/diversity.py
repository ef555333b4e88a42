"""How much a model's texts differ from each other: a policy that writes one sentence again and again is seen here."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

ORDER = 4  # words of the longest n-gram of BLEU
_WORD = re.compile(r"[^\W_]+")


def distinct_n(texts: Sequence[str], n: int) -> float | None:
    """The different n-grams of words in all texts together, as a share of all their n-grams (Li et al., 2016).

    It falls with the number of texts and their lengths: compare models on the same number. None where no text has n
    words. The paper divides by the number of words; here, as in most programs since, a share cannot be above 1.

    >>> distinct_n(["the room is small", "the room is dark"], 1), distinct_n(["the room is small"] * 2, 2)
    (0.625, 0.5)
    """
    grams = []
    for text in texts:
        words = _WORD.findall(text.lower())
        grams += list(zip(*(words[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def self_bleu(texts: Sequence[str]) -> dict[str, Any]:
    """The mean BLEU of each text with all others as references, 0 (all different) to 100 (all the same) (Zhu et al.,
    2018), as SacreBLEU gives it for a sentence: up to 4-grams, as many as the text has, exponential smoothing.

    SacreBLEU would count every reference again for each text, 45 seconds for 300 texts. Here each text is counted once:
    of every n-gram, the two largest counts in a text say what the largest count in the others is.

    Returns:
        value, n, and the signature that says how it was computed.

    Raises:
        ValueError: there are fewer than two texts.
    """
    from sacrebleu import BLEU
    from sacrebleu.metrics.helpers import extract_all_word_ngrams

    if len(texts) < 2:
        raise ValueError(f"expected at least two texts to compare, found {len(texts)}")
    metric = BLEU(lowercase=True, effective_order=True)
    counted = [extract_all_word_ngrams(metric.tokenizer(text.lower().rstrip()), 1, ORDER) for text in texts]
    lengths = Counter(length for _, length in counted)
    largest: dict[tuple[str, ...], list[int]] = {}
    for grams, _ in counted:
        for gram, count in grams.items():
            largest[gram] = sorted((*largest.get(gram, (0, 0)), count))[-2:]
    total = 0.0
    for grams, length in counted:
        correct, shown = [0] * ORDER, [0] * ORDER
        for gram, count in grams.items():
            second, first = largest[gram]
            correct[len(gram) - 1] += min(count, second if count == first else first)
            shown[len(gram) - 1] += count
        others = lengths - Counter([length])
        nearest = min(others, key=lambda other: (abs(other - length), other))
        total += BLEU.compute_bleu(correct, shown, length, nearest, smooth_method="exp", effective_order=True).score
    metric.num_refs = len(texts) - 1  # which the signature states, and a call with references would have set
    return {"value": total / len(texts), "n": len(texts), "signature": str(metric.get_signature())}
