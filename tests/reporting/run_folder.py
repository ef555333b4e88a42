"""A graded run's folder, written by hand: no model is needed. And texts that a page must show as text."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import report
from graded import metrics
from support import ROOT

from grpo_cot.common.files import write_json, write_jsonl

HOSTILE = "</pre><script>alert(1)</script>"
HOSTILES = (
    HOSTILE,
    '<img src="x" onerror="alert(2)">',
    '"><svg onload=alert(3)>',
    "<b><i>broken </b <p",
    "</script><!-- </style> ]]>",
    "one\u2028two\u2029three",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &#39;",
)
GRPO_LOG = [
    {
        "step": step, "reward": 0.3 + 0.01 * step, "rewards/correctness/mean": 0.1 + 0.01 * step,
        "rewards/strict_format/mean": 0.2, "completions/mean_length": 40.0 - 0.2 * step,
        "completions/clipped_ratio": 0.05, "frac_reward_zero_std": 0.1, "entropy": 1.0, "grad_norm": 0.4,
    }
    for step in range(1, 41)
]  # fmt: skip
SFT_LOG = [
    *({"step": step, "loss": 3 / step, "mean_token_accuracy": 1 - 1 / step} for step in range(1, 41)),
    *({"step": step, "eval_loss": 3.2 / step} for step in (10, 20, 40)),
]


def prediction(
    identifier: str, before: bool, after: bool, completion: str = "<answer>\n4\n</answer>", **changed: Any
) -> dict[str, Any]:
    row: dict[str, Any] = {"id": identifier, "set": "test", "gold": "4", "difficulty": None, **changed}
    for model, right in (("base", before), ("trained", after)):
        row[model] = {"completion": completion, "strict_correct": right, "numeric": "4"}
    return row


def with_lengths(figures: dict[str, Any]) -> dict[str, Any]:
    """Metrics of rows whose solutions show their calculations, and of whose problems samples were drawn."""

    def model(value: float, tokens: float) -> dict[str, Any]:
        share = {"value": value, "low": value - 0.1, "high": value + 0.1}
        return {
            "strict_accuracy": share,
            "lenient_accuracy": share,
            "completion_tokens": {"value": tokens, "low": tokens - 1, "high": tokens + 1},
        }

    levels = [
        {
            "difficulty": level, "n": 100, "base": model(0.3 - 0.05 * level, 10.0 + 3 * level),
            "trained": model(0.9 - 0.1 * level, 15.0 + 8 * level), "paired": {},
        }
        for level in (1, 2, 3, 4)
    ]  # fmt: skip
    pooled = {"value": 0.31, "low": 0.27, "high": 0.35, "pairs": 60000}
    within = {"value": 0.49, "low": 0.44, "high": 0.54, "pairs": 14000}
    related = {name: {"pooled": pooled, "within": within} for name in ("base", "trained")}
    more = {"by_difficulty": levels, "length_and_accuracy": related}
    sets = {name: {**entry, **more} for name, entry in figures["sets"].items()}
    return {**figures, **more, "sets": sets}


def write_source(path: Path) -> None:
    """The record of a data set with an evaluation set of others."""
    origin = {
        "kind": "files", "id": None, "revision": None, "licence": {"id": "mit", "name": None}, "locale": "en",
        "note": None, "contains": None,
    }  # fmt: skip
    write_json(
        path,
        {
            "name": "gsm8k", **origin, "rows": {"train": 2000, "test": 500, "mgsm_en": 250},
            "sets": {
                "test": origin,
                "mgsm_en": {
                    **origin, "licence": {"id": "other", "name": "House terms"}, "contains": "test",
                    "note": "Translated from GSM8K's test split.",
                },
            },
        },
    )  # fmt: skip


def write_later_steps(run: Path) -> None:
    """The files of the steps after training."""
    texts = {"base": HOSTILE, "trained": "<reasoning>\n2 + 2 = 4\n</reasoning>\n<answer>\n4\n</answer>"}
    write_json(
        run / "check.json",
        {
            "sampling": {"temperature": 0.8}, "seed": 3407, "greedy_answers_changed": True,
            "transcripts": [{"question": "What is 2 + 2?", "greedy": texts, "sampled": texts}],
        },
    )  # fmt: skip
    audit = {"broken": {}, "trained_later": [], "groups": 0, "group_size": 0, "base_samples": {}, "warnings": []}
    write_json(run / "audit.json", audit)
    write_json(
        run / "merge.json",
        {
            "base": "dequantized", "dtype": "bfloat16", "parity_holds": True, "prompts": 100, "tokens": 4000,
            "token_agreement": 0.998, "effect": 0.4, "kept": 0.83, "left_over": 0.05, "beyond_rounding": 0.001,
            "loss": "Much",
        },
    )  # fmt: skip
    write_json(run / "published.json", {"folder": "published/sft-grpo", "files": {"a": 1}, "pushed": {}})
    write_json(
        run / "record/train.json",
        {
            "step": "train", "started": "2026-11-21T12:00:00+00:00", "seconds": 61.2, "peak_memory_mib": 900,
            "device": "x86_64", "processor": "AMD EPYC (AVX2)", "host": "desk", "engine": "host", "image": None,
        },
    )  # fmt: skip


def write_problems(run: Path, predictions: list[dict[str, Any]], question: str = "Q{} " + HOSTILE) -> None:
    """Predictions, and the prompts that they answer; the question's place for a number is the row's."""
    write_jsonl(run / "grade/predictions.jsonl", predictions)
    for name in dict.fromkeys(row["set"] for row in predictions):
        prompts = [
            {"id": row["id"], "messages": [{"role": "user", "content": question.replace("{}", str(at))}]}
            for at, row in enumerate(predictions)
            if row["set"] == name
        ]
        write_jsonl(run / f"prompts/eval-{name}.jsonl", prompts)


def write_run(run: Path) -> Path:
    """A graded run of two phases, SFT and then GRPO, on two evaluation sets."""
    figures = metrics(0.2, 0.6)
    elsewhere = metrics(0.1, 0.12, n=250, perplexity=None, sacrebleu=None, pass_at=None, majority_at=None)
    figures["sets"]["mgsm_en"] = elsewhere["sets"]["test"]
    figures["validation"] = {"02-grpo": [evaluation(step, 0.2 + 0.01 * step) for step in (0, 20, 40)]}
    write_json(run / "grade/metrics.json", figures)
    verdicts = ((False, True), (True, False), (False, False))
    texts = ("<answer>\n4\n</answer>", HOSTILE, "")
    rows = [prediction(f"test-{at}", *right, texts[at]) for at, right in enumerate(verdicts)]
    write_problems(run, rows)
    facts = {
        "tokens": {"mean": 60.5, "max": 99}, "too_long": [], "locale": "en", "also_in_train": 0, "near_train": 0,
        "also_in": {}, "also_asked_as": {}, "more_than_one_gold": 0,
    }  # fmt: skip
    write_json(
        run / "prompts/summary.json",
        {
            "train": {"prompts": 2000, **facts, "questions": 1990, "more_than_one_gold": 3},
            "test": {"prompts": 500, "questions": 500, **facts, "near_train": 7},
            "mgsm_en": {"prompts": 250, "questions": 250, **facts, "also_in": {"test": 250}},
        },
    )
    write_json(
        run / "train/summary.json", {"verdict": {"01-sft": ["The loss went down."], "02-grpo": ["The reward rose."]}}
    )
    for phase, log in (("01-sft", SFT_LOG), ("02-grpo", GRPO_LOG)):
        write_phase(run, phase, log)
    write_later_steps(run)
    write_source(run.parent.parent / "source.json")
    return run


def evaluation(step: int, accuracy: float) -> dict[str, Any]:
    """Figures on the validation split."""
    share = {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1}
    shares = dict.fromkeys(("strict_accuracy", "lenient_accuracy", "format_adherence", "truncated"), share)
    levels = [{"difficulty": level, "n": 50, "strict_accuracy": share} for level in (1, 2)]
    length = {"value": 40.0, "low": 38.0, "high": 42.0}
    return {"step": step, "n": 100, **shares, "completion_tokens": length, "by_difficulty": levels}


def write_phase(run: Path, phase: str, log: list[dict[str, float]]) -> None:
    write_json(run / f"train/{phase}/log.json", log)
    base = {"name": "tiny", "id": None, "revision": None}
    configuration = {"method": phase.removeprefix("01-").removeprefix("02-"), "inputs": {"base": base}, "seed": 3407}
    write_json(run / f"train/{phase}/configuration.json", {**configuration, "packages": {"torch": "2.13.0"}})


def page_of(run: Path, recipe: Path = ROOT / "experiments/tiny-grpo.yaml") -> str:
    """The run's page, by the step report."""
    output = run / "report.html"
    source = run.parent.parent / "source.json"
    assert report.main(
        Namespace(run=run, name="sft-grpo", recipe=recipe, source=source, output=output)
    ) == f"file://{output.resolve()}"  # fmt: skip
    return output.read_text(encoding="utf-8")
