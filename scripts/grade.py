"""Step grade: read what the models wrote and compare them. Needs no model, so a changed grader reruns in seconds."""

from argparse import Namespace
from pathlib import Path

from grpo_cot.common.files import read_jsonl, write_json, write_jsonl
from grpo_cot.common.step import run
from grpo_cot.grading.grade import grade, metrics
from grpo_cot.statistics import in_points


def main(args: Namespace) -> str:
    """predictions.jsonl and metrics.json."""
    problems = {
        (path.stem.removeprefix("eval-"), row["id"]): row
        for path in args.prompts.glob("eval-*.jsonl")
        for row in read_jsonl(path)
    }
    predictions = grade(read_jsonl(args.completions), problems)
    result = metrics(predictions)
    write_jsonl(args.predictions, predictions)
    write_json(args.metrics, result)
    sentences = []
    for measure, paired in result["paired"].items():
        before, after = (result[model][measure]["value"] for model in ("base", "trained"))
        name = measure.replace("_", " ")
        sentences.append(f"{name} {before:.1%} -> {after:.1%}, difference {in_points(paired)}")
    if result["base"]["unread"]:
        unread = " -> ".join(f"{result[model]['unread']['value']:.1%}" for model in ("base", "trained"))
        sentences.append(f"unread by the lenient reader {unread}")
    warnings = "".join(f"; WARNING: {warning}" for warning in result["warnings"])
    return f"{'; '.join(sentences)} (set {result['set']}, n = {result['n']}, paired, 95 % interval){warnings}"


if __name__ == "__main__":
    run(main, __doc__, prompts=Path, completions=Path, predictions=Path, metrics=Path)
