"""Step grade: read what the models wrote and compare them. Needs no model, so a changed grader reruns in seconds."""

from argparse import Namespace
from pathlib import Path

from grpo_cot.common.errors import naming
from grpo_cot.common.files import read_json, read_jsonl, write_json, write_jsonl
from grpo_cot.common.step import run
from grpo_cot.grading.grade import grade, metrics
from grpo_cot.grading.texts.judge import load_judge
from grpo_cot.grading.texts.verdicts import judge_texts
from grpo_cot.grading.validation import validation_figures
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.statistics import in_points


def main(args: Namespace) -> str:
    """predictions.jsonl and metrics.json."""
    problems = {
        (path.stem.removeprefix("eval-"), row["id"]): row
        for path in args.prompts.glob("eval-*.jsonl")
        for row in read_jsonl(path)
    }
    completions = read_jsonl(args.completions)
    predictions = grade(completions, problems)
    asked = [problems[row["set"], row["id"]] for row in completions]
    if "text" in asked[0]:
        rewards = load_recipe(args.recipe, "rewards").rewards
        judge = load_judge(args.prompts / "eval-judge.jsonl", {row["text"] for row in asked})
        with naming(args.recipe):
            predictions = judge_texts(predictions, completions, asked, judge, rewards)
    asked_as = read_json(args.prompts / "summary.json")[predictions[0]["set"]]["also_asked_as"]
    result = metrics(predictions, asked_as.keys())
    result["validation"] = {
        path.parent.name: validation_figures(
            read_jsonl(path), {name: row for (split, name), row in problems.items() if split == "validation"}
        )
        for path in sorted(args.model.parent.glob("*/validation.jsonl"))
    }
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
    run(main, __doc__, recipe=Path, prompts=Path, model=Path, completions=Path, predictions=Path, metrics=Path)
