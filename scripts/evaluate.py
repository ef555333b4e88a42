"""Step evaluate: have both models answer the evaluation sets. Nothing is judged here.

An interrupted run is gone on with where it stopped, and leaves the same file.
"""

import shutil
from argparse import Namespace
from collections.abc import MutableMapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpo_cot
from grpo_cot.evaluation import vllm as vllm_engine
from grpo_cot.evaluation.likelihood import Likelihood, likelihoods
from grpo_cot.evaluation.pairs import Ask, both, reasoning_tokens, sampled
from grpo_cot.files import InputError, Row, file_hashes, new_directory, read_jsonl, write_jsonl
from grpo_cot.generation import Completion, generate
from grpo_cot.library.settings import check_section
from grpo_cot.models.description import ModelDescription, read_description
from grpo_cot.models.loading import DEVICE, load
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.recipe import EvaluateSection, Recipe, load_recipe
from grpo_cot.resuming import Callers, Journal, exclusive, scratch_folder
from grpo_cot.schema import worked
from grpo_cot.step import run

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def main(args: Namespace) -> str:
    """completions.jsonl: id, set, and what each model wrote and how likely it found the gold solution."""
    recipe = load_recipe(args.recipe)
    section = recipe.evaluate
    check_section("sampling", section.sampling, f"{args.recipe}: evaluate.sampling")
    if section.samples:
        check_section("sampling", section.samples.sampling, f"{args.recipe}: evaluate.samples.sampling")
    callers = Callers()
    description = read_description(args.model)
    tokenizer = load_tokenizer(Path(description.base))
    problems, drawn = choose(section, args)
    asks = [Ask("greedy", [row["messages"] for _, row in problems], section.sampling)]
    count = section.samples.count if section.samples else 0
    if section.samples:
        repeated = [problems[position][1]["messages"] for position in drawn for _ in range(count)]
        asks.append(Ask("samples", repeated, section.samples.sampling))
    with exclusive(args.scratch):
        scratch = scratch_folder(args.scratch, decisive(recipe, description, args))
        finished = Journal(scratch / "finished.jsonl")
        if finished:
            answered = sum(len(batch) for name, batch in finished.items() if name.split()[1] != "solutions")
            print(f"Resuming: {answered} of {2 * sum(len(ask.conversations) for ask in asks)} answered.", flush=True)
        answers, golds = ask_both(recipe, args.model, asks, [row for _, row in problems], finished)
        rows: list[Row] = [{"id": row["id"], "set": name} for name, row in problems]
        for model, completions in answers.items():
            for row, completion, gold in zip(rows, completions["greedy"], golds[model], strict=True):
                row[model] = {
                    "completion": completion.text,
                    "tokens": completion.tokens,
                    "reasoning_tokens": reasoning_tokens(completion.text, tokenizer),
                    "truncated": completion.truncated,
                    "gold_log_likelihood": gold.log_likelihood if gold else None,
                    "gold_tokens": gold.tokens if gold else None,
                    "samples": None,
                }
            for number, position in enumerate(drawn):
                texts = [completion.text for completion in completions["samples"][number * count :][:count]]
                rows[position][model]["samples"] = texts
        with new_directory(args.output) as output:
            write_jsonl(output / "completions.jsonl", rows)
        if callers.alive():  # otherwise nobody records this result, and the next run takes the journal over
            shutil.rmtree(scratch)
    more = f", {len(drawn)} of them {count} times more" if drawn else ""
    return f"{len(rows)} problems answered by base and trained{more}"


def choose(section: EvaluateSection, args: Namespace) -> tuple[list[tuple[str, Row]], list[int]]:
    """The problems to ask, each with its set's name, and the positions of those of which samples are drawn, too."""
    problems: list[tuple[str, Row]] = []
    drawn: list[int] = []
    for name in section.sets:
        path = args.prompts / f"eval-{name}.jsonl"
        if not path.is_file():
            present = sorted(other.stem.removeprefix("eval-") for other in args.prompts.glob("eval-*.jsonl"))
            raise InputError(f"{args.recipe}: evaluate.sets names {name!r}; the data set has: {', '.join(present)}")
        rows = sampled(read_jsonl(path), section.sample, section.seed)
        if section.samples:
            drawn += range(len(problems), len(problems) + len(rows[: section.samples.problems]))
        problems += [(name, row) for row in rows]
    return problems, drawn


def decisive(recipe: Recipe, description: ModelDescription, args: Namespace) -> dict[str, Any]:
    """Everything that decides the completions, for the fingerprint of what may be resumed."""
    packages = [*PACKAGES, *vllm_engine.distributions()] if recipe.evaluate.engine == "vllm" else PACKAGES
    return {
        "recipe": recipe.evaluate.model_dump(),
        "chat_template_kwargs": recipe.prompt.chat_template_kwargs,
        "prompts": file_hashes(args.prompts),
        "trained": [file_hashes(args.model.parent), file_hashes(args.model.parent / description.path)],
        "base": file_hashes(Path(description.base)),
        "packages": {package: version(package) for package in packages},
        "code": file_hashes(Path(grpo_cot.__file__).parent) | file_hashes(Path(__file__).parent),
        "device": DEVICE,
    }


def ask_both(
    recipe: Recipe, model_json: Path, asks: Sequence[Ask], problems: Sequence[Row], finished: MutableMapping[str, Any]
) -> tuple[dict[str, dict[str, list[Completion]]], dict[str, list[Likelihood | None]]]:
    """For `base` and `trained`: the completions of each ask by its name, and the gold solutions' likelihoods."""
    section = recipe.evaluate
    settings: dict[str, Any] = {
        "batch_size": section.batch_size,
        "chat_template_kwargs": recipe.prompt.chat_template_kwargs,
    }
    answers: dict[str, dict[str, list[Completion]]] = {}
    golds: dict[str, list[Likelihood | None]] = {}
    if section.engine == "vllm":
        answers = vllm_engine.answer_both(model_json, asks, seed=section.seed, finished=finished, **settings)
    model, tokenizer, description = load(model_json)
    solved = [position for position, row in enumerate(problems) if row["solution"] is not None]
    for name, asked in both(model, description):
        if section.engine == "transformers":
            answers[name] = {
                ask.name: generate(
                    asked, tokenizer, ask.conversations, ask.sampling,
                    seed=section.seed, progress=f"{name} {ask.name}", finished=finished, **settings,
                )
                for ask in asks
            }  # fmt: skip
        golds[name] = [None] * len(problems)
        if solved:
            found = likelihoods(
                asked, tokenizer,
                [problems[position]["messages"] for position in solved],
                [worked(*(problems[position][part] for part in ("solution", "gold", "locale"))) for position in solved],
                progress=f"{name} solutions", finished=finished, **settings,
            )  # fmt: skip
            for position, likelihood in zip(solved, found, strict=True):
                golds[name][position] = likelihood
    return answers, golds


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, model=Path, scratch=Path, output=Path)
