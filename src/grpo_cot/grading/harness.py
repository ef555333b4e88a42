"""Exact match as lm-evaluation-harness 0.4 counts it on GSM8K (its task `gsm8k`, version 3): strict and flexible.

These are the figures that others publish, for comparison with ours, and no better: `strict_match` finds an answer only
after GSM8K's own `####`, which our schema does not write, and `flexible_extract` takes the last number, whatever it is.
The harness is not a dependency; a test compares this module with its own filters and metric. Everything is linear in
the length of its input, where the harness's pattern `(?s).*#### ` is quadratic.
"""

import re

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_RUN = re.compile(r"[-$0-9.,]+")  # no match reaches beyond one


def strict_match(completion: str) -> str | None:
    """The first number after `####` (filter strict-match), or None.

    >>> strict_match("2 + 3 = 5\\n#### 5."), strict_match("The answer is 5.") is None
    ('5.', True)
    """
    match = _STRICT.search(completion)
    return match[1] if match else None


def flexible_extract(completion: str) -> str | None:
    """The last thing that looks like a number (filter flexible-extract), or None.

    >>> flexible_extract("She pays $1,234.50 in 2 days"), flexible_extract("It is 5..."), flexible_extract("")
    ('2', '5...', None)
    """
    for run in _RUN.finditer(completion[::-1]):  # from the end, where the answer is
        if matches := _FLEXIBLE.findall(run.group()[::-1]):
            return str(matches[-1])
    return None


def exact_match(extracted: str | None, gold: str) -> bool:
    """Whether an extracted text is the gold answer, but for commas, dollar signs and one closing full stop.

    >>> exact_match("$1,234.", "1234"), exact_match("18.0", "18"), exact_match(None, "18")
    (True, False, False)
    """
    return extracted is not None and _normalised(extracted) == _normalised(gold)


def _normalised(text: str) -> str:
    return text.replace(",", "").replace("$", "").rpartition("#### ")[2].removesuffix(".").lower()
