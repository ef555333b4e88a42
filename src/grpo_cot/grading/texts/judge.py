"""An independent judge of texts: naive Bayes on their words, trained on labelled texts that nothing else learnt from.

The policy is rewarded by a neural classifier, and may find texts that only this classifier takes for the wanted class.
A judge of another kind, with other training texts and other faults, shows that.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_jsonl
from grpo_cot.grading.similarity import plain_words

SEEN = 2  # a feature of fewer training texts says nothing about others


class Judge:
    """nltk's naive Bayes classifier on a text's words and pairs of neighbouring words, present or not."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Train on labelled texts. The same ones give the same judge."""
        from nltk.classify import NaiveBayesClassifier  # here, because importing it takes two seconds

        found = [_features(text) for text in texts]
        counts = Counter(feature for features in found for feature in features)
        self._known = {feature for feature, count in counts.items() if count >= SEEN}
        examples = zip((self._present(features) for features in found), labels, strict=True)
        self._classifier = NaiveBayesClassifier.train(list(examples))

    def label(self, text: str) -> str:
        """The likeliest class of a text; where it has no word that the judge knows, the most frequent class."""
        return str(self._classifier.classify(self._present(_features(text))))

    def _present(self, features: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], bool]:
        return {feature: True for feature in features if feature in self._known}


def _features(text: str) -> list[tuple[str, ...]]:
    """Words and pairs, each once and in a fixed order, so that the same sums come out of every process."""
    words = plain_words(text)
    return list(dict.fromkeys([*((word,) for word in words), *itertools.pairwise(words)]))


def load_judge(file: Path, judged: Collection[str]) -> Judge:
    """The judge that is trained on prepare's rows of the split `judge`.

    Args:
        judged: the texts of the evaluation sets, on which the judge's accuracy is measured.

    Raises:
        InputError: there are no such rows, they have one class alone, or one of them is among `judged`.
    """
    if not file.is_file():
        raise InputError(
            f"{file}: no such file, so that there is no independent judge of the texts: hold rows out for it, as the "
            "split 'judge' in the source file of the data set"
        )
    rows = read_jsonl(file)
    classes = sorted({row["label"] for row in rows})
    if len(classes) < 2:
        raise InputError(
            f"{file}: every row's label is {classes[0]!r}, but a judge learns from texts of at least two classes; give "
            "the split 'judge' rows of every class"
        )
    tested = set(judged)
    if seen := next((row["id"] for row in rows if row["text"] in tested), None):
        raise InputError(
            f"{file}: row {seen} has a text that is evaluated on, too: a judge that was trained on it is no judge of "
            "it; leave the split 'judge' out of evaluate.sets, and the text out of one of the two splits"
        )
    return Judge([row["text"] for row in rows], [row["label"] for row in rows])
