"""An independent judge of a text's class: naive Bayes on word n-grams, of another kind than the models that it judges.

It learns from rows that neither the policy nor the reward model saw. Its file holds whole numbers, so that the same
rows give the same bytes on every machine.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.files import Row, read_json, write_text
from grpo_cot.data.overlap import text_key

LONGEST = 3  # words of an n-gram
FEWEST = 2  # rows that show an n-gram that counts
SMOOTHING = 0.1  # added to every count, so that an n-gram that a class never showed does not decide alone
_WORD = re.compile(r"[^\W_]+")

Counts = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]


class Judge(BaseModel):
    """A trained judge as its file holds it.

    With n(g, c) the rows of class c that show the n-gram g, a text with the n-grams G belongs to the class with the
    largest

        log n(c) + Σ_{g in G} log((n(g, c) + a) / (Σ_h n(h, c) + a V))

    over the V n-grams that the judge knows: multinomial naive Bayes on what a text shows, not on how often (Wang and
    Manning, ACL 2012).

    Attributes:
        classes: the number of rows of each class that it learned from.
        ngrams: for each n-gram, the number of rows of each class that show it.
        trained_on: hashes of the texts that it learned from.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["naive Bayes on word n-grams"] = "naive Bayes on word n-grams"
    longest: int = Field(gt=0, le=10)
    smoothing: float = Field(gt=0)
    classes: dict[str, Annotated[int, Field(gt=0)]] = Field(min_length=2)
    ngrams: dict[str, Counts] = Field(min_length=1)
    trained_on: list[str]

    @model_validator(mode="after")
    def _one_count_a_class(self) -> "Judge":
        if wrong := [ngram for ngram, counts in self.ngrams.items() if len(counts) != len(self.classes)]:
            raise ValueError(f"the n-gram {wrong[0]!r} has not one count for each of the {len(self.classes)} classes")
        return self

    @cached_property
    def _seen(self) -> frozenset[str]:
        return frozenset(self.trained_on)

    @cached_property
    def _log_totals(self) -> list[float]:
        totals = [sum(counts[position] for counts in self.ngrams.values()) for position in range(len(self.classes))]
        return [math.log(total + self.smoothing * len(self.ngrams)) for total in totals]

    def probabilities(self, text: str) -> dict[str, float]:
        """Of each class, for one text. A text of unknown words has the classes' shares of the training rows."""
        scores = [math.log(rows) for rows in self.classes.values()]
        for ngram in sorted(_ngrams(text, self.longest) & self.ngrams.keys()):
            for position, count in enumerate(self.ngrams[ngram]):
                scores[position] += math.log(count + self.smoothing) - self._log_totals[position]
        largest = max(scores)
        weights = [math.exp(score - largest) for score in scores]
        return {label: weight / sum(weights) for label, weight in zip(self.classes, weights, strict=True)}

    def verdicts(self, texts: Sequence[str]) -> list[str | None]:
        """The likeliest class of each text that a model wrote; None where it has no word."""
        verdicts: list[str | None] = []
        for text in texts:
            probabilities = self.probabilities(text)
            verdicts.append(max(probabilities, key=lambda label: probabilities[label]) if _words(text) else None)
        return verdicts

    def of_rows(self, rows: Sequence[Row], where: object) -> list[str | None]:
        """The likeliest class of each row of a data set.

        Args:
            rows: id and text.
            where: their split or file, for an error.

        Raises:
            InputError: the judge learned from one of them.
        """
        if known := [row["id"] for row in rows if _hash(row["text"]) in self._seen]:
            raise InputError(
                f"{where}: the judge was trained on {len(known)} of these {len(rows)} rows ({known[0]} first), so that "
                "its verdicts on them are no evidence; train it on another split"
            )
        return self.verdicts([row["text"] for row in rows])


def train_judge(rows: Sequence[Row], others: Mapping[str, Sequence[Row]]) -> Judge:
    """A judge that learned from rows of text and label.

    Args:
        rows: its own.
        others: by split, the rows that other models learn from or that are to be judged.

    Raises:
        InputError: the rows have fewer than two classes or no word twice, or one of their texts is another split's.
    """
    texts = {_hash(row["text"]): row["id"] for row in rows}
    for name, split in others.items():
        for row in split:
            if (own := texts.get(_hash(row["text"]))) is not None:
                raise InputError(
                    f"row {own} of the judge's rows has the text of row {row['id']} of the split {name!r}, but a judge "
                    "that is to be independent learns from rows of its own; take it out of one of them"
                )
    classes = Counter(row["label"] for row in rows)
    if len(classes) < 2:
        raise InputError(f"the judge's rows have {len(classes)} class ({', '.join(classes)}), expected at least two")
    labels = sorted(classes)
    counts: dict[str, list[int]] = {}
    for row in rows:
        position = labels.index(row["label"])
        for ngram in _ngrams(row["text"], LONGEST):
            counts.setdefault(ngram, [0] * len(labels))[position] += 1
    ngrams = {ngram: counts[ngram] for ngram in sorted(counts) if sum(counts[ngram]) >= FEWEST}
    if not ngrams:
        raise InputError(f"no word of the judge's {len(rows)} rows is in two of them; give it more rows")
    return Judge(
        longest=LONGEST, smoothing=SMOOTHING, classes={label: classes[label] for label in labels}, ngrams=ngrams,
        trained_on=sorted(texts),
    )  # fmt: skip


def save_judge(judge: Judge, path: Path) -> None:
    """Write the judge's file, JSON, whole or not at all."""
    write_text(path, json.dumps(judge.model_dump(), ensure_ascii=False, separators=(",", ":")) + "\n")


def load_judge(path: Path) -> Judge:
    """Read a judge's file.

    Raises:
        InputError: it is missing, no JSON, or no judge.
    """
    return validated(Judge, read_json(path), path)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFC", text.lower()))


def _ngrams(text: str, longest: int) -> set[str]:
    """The different runs of 1 to `longest` words of a text."""
    words = _words(text)
    return {
        " ".join(words[start : start + length])
        for length in range(1, longest + 1)
        for start in range(len(words) - length + 1)
    }


def _hash(text: str) -> str:
    """By which two texts are the same: 64 bits of the sha256 of their key."""
    return hashlib.sha256(text_key(text).encode()).hexdigest()[:16]
