"""Evaluating base and trained on 500 problems, as the pipeline's step does, against two runs of lm-evaluation-harness.

    make .venv/lm-eval/.ready
    PYTHONPATH=src:.venv/lm-eval \
      python bench/evaluation.py [ROUNDS] [--recipe NAME --base FOLDER] [--adapter FOLDER] [--problems N]

Both start as processes and read the same prompts, in the recipe's number format, 64 at a time, greedy, with the same
stop string and longest completion. The harness answers and matches answers; our step answers and scores the gold
solutions, too. Then generation alone, in one process: the harness's `HFLM.generate_until` against `generate`, which
must write the same. The trained model is the base with an adapter, of small noise where none is given.
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, get_peft_model

from grpo_cot.common.files import read_json, read_jsonl, read_yaml, write_json, write_jsonl
from grpo_cot.data.rows import plain_solution
from grpo_cot.evaluation.pairs import both
from grpo_cot.models.description import ModelDescription
from grpo_cot.models.generation import encode, generate
from grpo_cot.models.loading import load_base
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.problems.generators import problems
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import ModelSection, load_recipe
from grpo_cot.schema import gold

ROOT = Path(__file__).parent.parent
BATCH = 64
NEW_TOKENS = 72
STOP = "</answer>"


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--recipe", default="tiny-grpo")
    parser.add_argument("--base", type=Path, default=ROOT / "assets/tiny/model")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--problems", type=int, default=500)
    return parser.parse_args()


def prepare(folder: Path, given: argparse.Namespace) -> None:
    """What both read: recipe, prompts and a trained model for the step, a task for the harness."""
    recipe = read_yaml(ROOT / f"experiments/{given.recipe}.yaml") | {"quantization": None}
    sampling = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "stop_strings": [STOP]}
    recipe["evaluate"] |= {"sample": None, "batch_size": BATCH, "sampling": sampling, "samples": None}
    write_json(folder / "recipe.yaml", recipe)  # JSON is YAML
    section = load_recipe(folder / "recipe.yaml").prompt
    tokenizer = load_tokenizer(given.base)
    rows = [
        {
            "id": str(number),
            "question": problem.question,
            "gold": gold(problem.answer),
            "locale": "en",
            "solution": plain_solution(problem.answer),
        }
        for number, problem in enumerate(itertools.islice(problems("test", 7), given.problems))
    ]
    prompts, _ = map_rows(rows, tokenizer, section)
    write_jsonl(folder / "prompts/eval-test.jsonl", prompts)
    texts = tokenizer.apply_chat_template(
        [prompt["messages"] for prompt in prompts], tokenize=False, add_generation_prompt=True
    )
    write_jsonl(
        folder / "harness.jsonl",
        [{"prompt": text, "gold": prompt["gold"]} for text, prompt in zip(texts, prompts, strict=True)],
    )
    write_json(
        folder / "tasks/problems.yaml",
        {
            "task": "problems",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / "harness.jsonl")}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{gold}}",
            "generation_kwargs": {"until": [STOP], "max_gen_toks": NEW_TOKENS, "do_sample": False},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    )
    settings = load_recipe(folder / "recipe.yaml").model
    if given.adapter:
        shutil.copytree(given.adapter, folder / "train/01-grpo")
    else:
        add_noise(folder / "train/01-grpo", given.base, settings)
    description = ModelDescription(
        kind="adapter", architecture="causal", path="01-grpo", base=str(given.base), model=settings, quantization=None
    )
    write_json(folder / "train/model.json", description.model_dump())


def add_noise(folder: Path, base: Path, settings: ModelSection) -> None:
    """Write an adapter whose effect is small."""
    torch.manual_seed(0)
    adapted = get_peft_model(
        load_base(base, settings, None),
        LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"),
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.002)
    adapted.save_pretrained(folder)


def step(folder: Path) -> float:
    """Seconds of our step for both models, which is to ask the base again each time."""
    shutil.rmtree(folder / "of-bases", ignore_errors=True)
    return seconds(
        sys.executable, "scripts/evaluate.py", "--recipe", folder / "recipe.yaml", "--prompts", folder / "prompts",
        "--model", folder / "train/model.json", "--scratch", folder / "scratch", "--output", folder / "eval",
    )  # fmt: skip


def harness(folder: Path) -> float:
    """Seconds of the harness's two runs."""
    base, dtype = model_of(folder)
    total = 0.0
    for adapter in ("", f",peft={folder / 'train/01-grpo'}"):
        total += seconds(
            sys.executable, "-m", "lm_eval", "run", "--model", "hf",
            "--model_args", f"pretrained={base},dtype={dtype}{adapter}",
            "--tasks", "problems", "--include_path", folder / "tasks", "--device", "cpu", "--batch_size", str(BATCH),
        )  # fmt: skip
    return total


def model_of(folder: Path) -> tuple[str, str]:
    """The base's folder and its number format."""
    description = read_json(folder / "train/model.json")
    return description["base"], description["model"]["dtype"]


def seconds(*command: str | Path) -> float:
    """Wall time of a process, which must succeed."""
    environment = os.environ | {"PYTHONPATH": "src", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return time.perf_counter() - start


def generation(folder: Path, rounds: int) -> None:
    """Print seconds a problem of both ways of generating, alternating, and how many completions are the same."""
    recipe = load_recipe(folder / "recipe.yaml")
    base, dtype = model_of(folder)
    tokenizer = load_tokenizer(Path(base))
    messages = [row["messages"] for row in read_jsonl(folder / "prompts/eval-test.jsonl")]
    requests = [
        Instance(
            request_type="generate_until", doc={}, idx=0,
            arguments=(row["prompt"], {"until": [STOP], "max_gen_toks": NEW_TOKENS, "do_sample": False}),
        )
        for row in read_jsonl(folder / "harness.jsonl")
    ]  # fmt: skip
    for name, asked in both(folder / "train/model.json", before=None):
        adapter = {"peft": str(folder / "train/01-grpo")} if name == "trained" else {}
        peer = HFLM(pretrained=base, dtype=dtype, device="cpu", batch_size=BATCH, **adapter)
        torch.set_num_threads(recipe.model.threads)

        def ours(asked: Any = asked) -> list[str]:
            prompts = encode(tokenizer, messages, {})
            found = generate(
                asked, tokenizer, prompts, recipe.evaluate.sampling, batch_size=BATCH, seed=0, progress="ours"
            )
            return [completion.text for completion in found]

        def theirs(peer: Any = peer) -> list[str]:
            said: list[str] = peer.generate_until(requests, disable_tqdm=True)
            return said

        ways = {"ours": ours, "lm-eval": theirs}
        times: dict[str, list[float]] = {way: [] for way in ways}
        texts: dict[str, list[str]] = {}
        for number in range(-1, rounds):  # the first pair warms up and does not count
            for way in ways if number % 2 == 0 else reversed(ways):
                start = time.perf_counter()
                texts[way] = ways[way]()
                if number >= 0:
                    times[way].append((time.perf_counter() - start) / len(messages))
        # The harness cuts the stop string and all that follows away.
        same = sum(our.split(STOP)[0] == their for our, their in zip(texts["ours"], texts["lm-eval"], strict=True))
        print(f"{name}: {same} of {len(messages)} greedy completions the same")
        show({way: [1000 * value for value in values] for way, values in times.items()}, "ms a problem")


def show(figures: dict[str, list[float]], unit: str) -> None:
    """Print every way's median and the ratio of the pairs."""
    for way, values in figures.items():
        print(f"  {way:8} median {statistics.median(values):.2f} {unit} ({', '.join(f'{v:.2f}' for v in values)})")
    ratios = [our / their for our, their in zip(*figures.values(), strict=True)]
    print(f"  ratio    median {statistics.median(ratios):.3f} ({', '.join(f'{r:.3f}' for r in ratios)})", flush=True)


def main() -> None:
    """Alternate both ways, processes first."""
    given = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, given)
        times: dict[str, list[float]] = {"ours": [], "lm-eval": []}
        ways = {"ours": step, "lm-eval": harness}
        for number in range(given.rounds):
            for way in ways if number % 2 == 0 else reversed(ways):
                times[way].append(ways[way](folder))
        print(f"base and trained on {given.problems} problems, our step against two runs of the harness")
        show(times, "s")
        generation(folder, given.rounds)


if __name__ == "__main__":
    main()
