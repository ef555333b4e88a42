"""Speed of the rewards on one core: completions of 200 tokens per second, and the worst adversarial megabyte.

Run it as `python bench/rewards.py`. The lenient reader, which grades and never rewards, is on the last line.
"""

import random
import time
from collections.abc import Sequence
from typing import Any

from grpo_cot.answers import same_answer
from grpo_cot.grading.lenient import lenient_answer
from grpo_cot.rewards.promise import Reward
from grpo_cot.rewards.registry import REWARDS

COMPLETIONS = 20_000
REPEATS = 5
DEFAULT_SET = ("correctness", "strict_format", "soft_format", "xml_count", "integer_answer")
MEGABYTE = 1_000_000
UNITS = (
    *(
        "<reasoning>",
        "</reasoning>",
        "<answer>",
        "</answer>",
        "<answer>1",
        "1,",
        "1,234,",
        "7",
        "\uff17",
        "1 ",
        "1/",
        "=",
    ),
    *(" ", "\n", "-", "####", "#### 1. x ", "\\boxed{", "answer is 1 or 2 ", "Q:\n", "**", "\\frac{", "a\u0301", ". "),
)


def completions() -> list[str]:
    """Completions of about 600 characters: half in the schema, some with trailing text, some without any tag."""
    rng = random.Random(0)
    texts = []
    for _ in range(COMPLETIONS):
        steps = "\n".join(f"Then there are {rng.randint(1, 99)} + {rng.randint(1, 99)} apples." for _ in range(18))
        answer = rng.choice(("14", "$1,234", "-5", "18.0", "15 apples", "x"))
        schema = f"<reasoning>\n{steps}\n</reasoning>\n<answer>\n{answer}\n</answer>"
        texts.append(rng.choice((schema, schema, schema + "\nDone.", f"{steps}\nThe answer is {answer}.")))
    return texts


def lenient(prompts: Sequence[str], completions: Sequence[str], gold: Sequence[str], **columns: Any) -> list[float]:
    """Reader and comparison, in the shape of a reward."""
    pairs = zip(completions, gold, strict=True)
    return [float(same_answer(lenient_answer(completion), expected)) for completion, expected in pairs]


def default_set(**batch: Any) -> list[float]:
    """The five rewards that a recipe pays by default, one after the other."""
    return [sum(paid) for paid in zip(*(REWARDS[name](**batch) for name in DEFAULT_SET), strict=True)]


def seconds(reward: Reward, texts: Sequence[str]) -> float:
    """The best of several times, which is the one that other processes disturbed least."""
    batch = {
        "prompts": ["How many apples are there now?"] * len(texts),
        "completions": texts,
        "gold": ["14"] * len(texts),
        "completion_ids": [range(200)] * len(texts),
    }
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        reward(**batch)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print the table."""
    texts = completions()
    adversarial = [
        start + unit * (MEGABYTE // len(unit)) + end
        for unit in UNITS
        for start, end in (("", ""), ("<reasoning>\n", "\n</answer>"), ("<answer>\n", "</answer>"))
    ]
    print(f"{'reward':24}{'completions/s':>15}{'worst 1 MB, ms':>16}")
    judged: dict[str, Reward] = {**REWARDS, "(default set)": default_set, "(lenient reader)": lenient}
    for name, reward in judged.items():
        rate = len(texts) / seconds(reward, texts)
        worst = max(seconds(reward, [text]) for text in adversarial)
        print(f"{name:24}{rate:>15,.0f}{1000 * worst:>16.1f}")


if __name__ == "__main__":
    main()
