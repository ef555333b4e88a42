"""Time to grade 100,000 frozen completions, as the step runs: `scripts/grade.py` as a process, from files to files.

Run it as `python bench/grading.py`. Two cases: few problems with many samples each and with worked solutions (pass@k,
majority@k, perplexity, SacreBLEU, ROUGE), and many problems with one completion each and without solutions.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grpo_cot.common.files import Row, read_json, write_jsonl
from grpo_cot.schema import worked

ROOT = Path(__file__).parent.parent
REPEATS = 3
LIMIT = 10  # seconds
CASES = {  # problems, samples beside the greedy completion, worked solutions
    "500 problems, 99 samples": (500, 99, True),
    "50,000 problems": (50_000, 0, False),
}


def solution(rng: random.Random) -> str:
    """Worked steps of the length of GSM8K's: about 600 characters, of which other draws share most words."""
    return "\n".join(
        f"Then {rng.choice(('Ann', 'Ben', 'Cleo'))} gets {rng.randint(1, 99)} + {rng.randint(1, 99)} = "
        f"{rng.randint(2, 198)} {rng.choice(('apples', 'dollars', 'hours'))} {rng.choice(('today', 'in all', 'more'))}."
        for _ in range(14)
    )


def completion(rng: random.Random, gold: str) -> str:
    """A model's answer: mostly in the schema, right in half of the draws, else one of many wrong numbers."""
    answer = gold if rng.random() < 0.5 else str(int(rng.expovariate(0.05)))
    steps = solution(rng)
    return worked(steps, answer) if rng.random() < 0.8 else f"{steps}\nThe answer is {answer} apples."


def write_case(folder: Path, problems: int, samples: int, solved: bool) -> None:
    """The files that prepare and evaluate leave."""
    rng = random.Random(0)
    prompts: list[Row] = []
    completions: list[Row] = []
    for number in range(problems):
        gold, identifier = str(rng.randint(1, 200)), f"problem-{number}"
        prompts.append(
            {
                "id": identifier, "messages": [{"role": "user", "content": "How many apples are there now?"}],
                "gold": gold, "locale": "en", "solution": solution(rng) if solved else None, "tokens": 60,
            }
        )  # fmt: skip
        row: Row = {"id": identifier, "set": "test", "before": None}
        for model in ("base", "trained"):
            row[model] = {
                "completion": completion(rng, gold), "tokens": 200, "reasoning_tokens": rng.randint(100, 200),
                "truncated": False, "gold_log_likelihood": -rng.uniform(50, 150) if solved else None,
                "gold_tokens": rng.randint(100, 200) if solved else None,
                "samples": [completion(rng, gold) for _ in range(samples)] or None,
            }  # fmt: skip
        completions.append(row)
    write_jsonl(folder / "prompts/eval-test.jsonl", prompts)
    write_jsonl(folder / "completions.jsonl", completions)


def main() -> None:
    """Print each case's seconds, and exit with 1 when one takes longer than the limit."""
    slow = False
    for name, (problems, samples, solved) in CASES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_case(folder, problems, samples, solved)
            command: list[str | Path] = [
                sys.executable, ROOT / "scripts/grade.py", "--recipe", ROOT / "experiments/tiny-grpo.yaml",
                "--prompts", folder / "prompts", "--completions", folder / "completions.jsonl",
                "--predictions", folder / "predictions.jsonl", "--metrics", folder / "metrics.json",
                "--record", folder / "record.json",
            ]  # fmt: skip
            times = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                times.append(time.perf_counter() - start)
            count = 2 * problems * (1 + samples)
            memory = read_json(folder / "record.json")["peak_memory_mib"]
        slow |= min(times) > LIMIT
        print(
            f"{name}: {count:,} completions in {min(times):.1f} s (rounds: {', '.join(f'{t:.1f}' for t in times)}), "
            f"{count / min(times):,.0f} a second, largest process {memory:,} MiB"
        )
    sys.exit(f"slower than {LIMIT} s" if slow else 0)


if __name__ == "__main__":
    main()
