"""Both models' answers to the evaluation sets, and their likelihoods of given answers; a run may resume."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, file_hashes, read_json, read_jsonl
from grpo_cot.evaluation import vllm
from grpo_cot.evaluation.likelihood import Likelihood, likelihoods
from grpo_cot.evaluation.pairs import Ask, both, phase_folder, reasoning_tokens
from grpo_cot.evaluation.shared import keep, shared_file, take
from grpo_cot.evaluation.texts import add_likelihoods, add_probabilities
from grpo_cot.library.settings import check_greedy
from grpo_cot.models.description import read_description
from grpo_cot.models.generation import Completion, encode, generate, sampled
from grpo_cot.models.loading import DEVICE
from grpo_cot.models.opening import Opening, opening
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.recipe import EvaluateSection, Recipe
from grpo_cot.resuming import Journal, resumable
from grpo_cot.schema import model_answer
from grpo_cot.vllm.arguments import distributions

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes")
SHARED = "of-bases"  # folder, beside the runs' own
PROGRESS = {"gold": "solutions", "rejected": "rejected answers"}  # the likelihoods of given answers


@contextmanager
def answer_sets(recipe: Recipe, where: object, prompts: Path, model_json: Path, scratch: Path) -> Iterator[list[Row]]:
    """Rows of completions.jsonl; when the block that writes them succeeds, the scratch folder is removed.

    `where` is the recipe's file, `prompts` prepare's folder. Beside the scratch folder lie the bases' answers, which
    runs that differ in their training share.

    Raises:
        InputError: the data set lacks a set, a checkpoint was chosen on a set, or a model cannot be loaded.
    """
    section = recipe.evaluate
    _check_selection(recipe, model_json.parent, where)
    before = phase_folder(model_json, section.before, where)
    description = read_description(model_json)
    tokenizer = load_tokenizer(Path(description.base))
    problems, sampled_positions = choose(section, prompts, where)
    if any(row["gold"] is not None for _, row in problems):
        check_greedy(section, where)
    asks = [Ask("greedy", [row["messages"] for _, row in problems], section.sampling)]
    count = section.samples.count if section.samples else 0
    if section.samples:
        repeated = [problems[position][1]["messages"] for position in sampled_positions for _ in range(count)]
        asks.append(Ask("samples", repeated, section.samples.sampling))
    parts = decisive(recipe, prompts, model_json)
    with resumable(scratch, parts) as folder:
        finished = Journal(folder / "finished.jsonl")
        if finished:
            asked = {ask.name for ask in asks}
            number = sum(len(batch) for name, batch in finished.items() if name.split()[1] in asked)
            print(f"Resuming: {number} of {2 * sum(len(ask.conversations) for ask in asks)} answered.", flush=True)
        begun = opening(tokenizer, problems[0][1]["messages"], recipe.prompt)
        prompted = [row for _, row in problems]
        # What vLLM writes depends on what else it has at work, and on the adapter's rank.
        alike = before is None and section.engine == "transformers"
        shared = shared_file(scratch.parent / SHARED, recipe, prompts, description, parts) if alike else None
        if shared:
            take(shared, finished)
        answers, given = ask_both(recipe, model_json, before, asks, prompted, begun, finished)
        if shared:
            keep(shared, finished, {f"base {kind}" for kind in (*(ask.name for ask in asks), *PROGRESS.values())})
        rows: list[Row] = [
            {"id": row["id"], "set": name, "before": before.name if before else None} for name, row in problems
        ]
        for model, completions in answers.items():
            for position, (row, completion) in enumerate(zip(rows, completions["greedy"], strict=True)):
                likelihoods = {kind: found[position] for kind, found in given[model].items()}
                row[model] = _answer(completion, begun, tokenizer, likelihoods)
            for number, position in enumerate(sampled_positions):
                drawn = completions["samples"][number * count :][:count]
                rows[position][model]["samples"] = [begun.judged(completion.text) for completion in drawn]
        if "text" in prompted[0]:
            written = {model: completions["greedy"] for model, completions in answers.items()}
            add_likelihoods(rows, model_json, before, prompted, written, tokenizer, recipe, finished)
            add_probabilities(rows, prompted, model_json.parent / "reward_model", section.batch_size, finished)
        yield rows


def _answer(
    completion: Completion, begun: Opening, tokenizer: PreTrainedTokenizerBase,
    likelihoods: Mapping[str, Likelihood | None],
) -> Row:  # fmt: skip
    """A model's part of a row: its greedy completion, and its likelihoods of the given answers by their kind."""
    thought, judged = begun.parts(completion.text)
    return {
        "completion": judged, "thought": thought, "tokens": completion.tokens,
        "reasoning_tokens": reasoning_tokens(judged, tokenizer), "truncated": completion.truncated,
        **{
            f"{kind}_{field}": None if likelihood is None else getattr(likelihood, field)
            for kind, likelihood in likelihoods.items()
            for field in Likelihood._fields
        },
        "samples": None,
    }  # fmt: skip


def _check_selection(recipe: Recipe, trained: Path, where: object) -> None:
    """Refuse to report figures of the split on which a phase chose its checkpoint."""
    phases = [path.parent.name for path in trained.glob("*/configuration.json") if read_json(path).get("selected")]
    reported = [name for name in recipe.evaluate.sets if recipe.prompt.questions_of(name) == "validation"]
    if phases and reported:
        raise InputError(f"{where}: 'evaluate.sets' reports {reported[0]!r}, on which {phases[0]} was chosen")


def choose(section: EvaluateSection, prompts: Path, where: object) -> tuple[list[tuple[str, Row]], list[int]]:
    """The problems to ask, each with its set's name, and the positions of the problems that are also sampled.

    Raises:
        InputError: the data set has no such set; `where` is the recipe.
    """
    problems: list[tuple[str, Row]] = []
    positions: list[int] = []
    for name in section.sets:
        path = prompts / f"eval-{name}.jsonl"
        if not path.is_file():
            present = sorted(other.stem.removeprefix("eval-") for other in prompts.glob("eval-*.jsonl"))
            raise InputError(f"{where}: evaluate.sets names {name!r}; the data set has: {', '.join(present)}")
        rows = sampled(read_jsonl(path), section.sample, section.seed)
        if section.samples:
            positions += range(len(problems), len(problems) + len(rows[: section.samples.problems]))
        problems += [(name, row) for row in rows]
    return problems, positions


def decisive(recipe: Recipe, prompts: Path, model_json: Path) -> dict[str, Any]:
    """Everything but the code that decides the completions, for the fingerprint of a run that may resume."""
    packages = [*PACKAGES, *distributions()] if recipe.evaluate.engine == "vllm" else PACKAGES
    return {
        "recipe": recipe.evaluate.model_dump(), "chat_template_kwargs": recipe.prompt.chat_template_kwargs,
        "prompts": file_hashes(prompts), "trained": file_hashes(model_json.parent),
        "base": file_hashes(Path(read_description(model_json).base)),
        "packages": {package: version(package) for package in packages}, "device": DEVICE,
    }  # fmt: skip


def ask_both(
    recipe: Recipe, model_json: Path, before: Path | None, asks: Sequence[Ask], problems: Sequence[Row],
    begun: Opening, finished: MutableMapping[str, Any],
) -> tuple[dict[str, dict[str, list[Completion]]], dict[str, dict[str, list[Likelihood | None]]]]:  # fmt: skip
    """For `base` and `trained`: the completions of each ask by its name, as written, and the likelihoods of given
    answers, without what the prompts have `begun` of them: `gold`, worked solutions, chosen answers or the rest of
    texts, and of pairs `rejected`."""
    section = recipe.evaluate
    extra = recipe.prompt.chat_template_kwargs
    settings: dict[str, Any] = {"batch_size": section.batch_size, "finished": finished}
    answers: dict[str, dict[str, list[Completion]]] = {}
    found: dict[str, dict[str, list[Likelihood | None]]] = {}
    if section.engine == "vllm":
        answers = vllm.answer_both(model_json, asks, chat_template_kwargs=extra, seed=section.seed, **settings)
    tokenizer = load_tokenizer(Path(read_description(model_json).base))
    given = {"gold": [model_answer(row) for row in problems]}
    if any("rejected" in row for row in problems):
        given["rejected"] = [row["rejected"] for row in problems]
    for name, current in both(model_json, before):
        if section.engine == "transformers":
            answers[name] = {
                ask.name: generate(
                    current, tokenizer, encode(tokenizer, ask.conversations, extra), ask.sampling,
                    seed=section.seed, progress=f"{name} {ask.name}", **settings,
                )
                for ask in asks
            }  # fmt: skip
        found[name] = {kind: [None] * len(problems) for kind in given}
        for kind, texts in given.items():
            targets = {position: begun.target(text) for position, text in enumerate(texts) if text is not None}
            if not targets:
                continue
            values = likelihoods(
                current, tokenizer, [problems[position]["messages"] for position in targets], list(targets.values()),
                chat_template_kwargs=extra, progress=f"{name} {PROGRESS[kind]}", **settings,
            )  # fmt: skip
            for position, likelihood in zip(targets, values, strict=True):
                found[name][kind][position] = likelihood
        del current  # before the next is loaded
    return answers, found
