"""Inputs from strangers: texts of a corpus, changed at random, always the same ones for a seed."""

import random
from collections.abc import Iterator, Sequence

TOKENS = (
    "<reasoning>", "</reasoning>", "<answer>", "</answer>", "####", "<|im_end|>", "</script><script>", "onerror=",
    "=cmd|' /C calc'!A0", "\x1b[2J\x1b]0;x\x07", "{{ 7*7 }}", "{% for x in y %}", "---\n", "&a [*a, *a]",
    "!!python/object/apply:os.system", "../../etc/passwd", "\x00", "\ufeff", "\u202e", "\ud800", "\U0010ffff",
    "\u00a0", "\u0664\u0662", "\u2212", "9" * 400, "1e999999", "-0", ".", ",", "1,2,3,4", "1/0", "\u221e", "NaN",
    "\n\n", "\t", "$", "%", " = ", "\\boxed{", "}", "null", "true", "0x1F", "1_000", "2026-11-27", "<<3+4=7>>",
    "ngh\u00ecn", "dozen", "( " * 50, "[" * 50, "a" * 300,
)  # fmt: skip
MOST = 4_000  # characters of a case


def mutated(corpus: Sequence[str], count: int, seed: int) -> Iterator[str]:
    """`count` texts of the corpus with one to six changes each (a token or a character put in, a part taken out,
    doubled or turned round, a piece of another text in its place)."""
    rng = random.Random(seed)
    for _ in range(count):
        text = rng.choice(corpus)
        for _ in range(rng.randint(1, 6)):
            begin, end = sorted(rng.randint(0, len(text)) for _ in range(2))
            end = min(end, begin + 40)
            kind = rng.randrange(6)
            if kind == 0:
                text = text[:begin] + rng.choice(TOKENS) + text[begin:]
            elif kind == 1:
                text = text[:begin] + chr(rng.randrange(0x110000)) + text[begin:]
            elif kind == 2:
                text = text[:begin] + text[end:]
            elif kind == 3:
                text = text[:end] + text[begin:]
            elif kind == 4:
                text = text[:begin] + text[begin:end][::-1] + text[end:]
            else:
                other = rng.choice(corpus)
                start = rng.randint(0, len(other))
                text = text[:begin] + other[start : start + 60] + text[end:]
        yield text[:MOST]
