"""A recipe's plan: its steps, prompts, completions and epochs, and the GPU memory that it needs."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_cot.common.errors import InputError, naming, nearest
from grpo_cot.common.files import read_jsonl
from grpo_cot.data.kinds import read_any
from grpo_cot.data.single_source import held_out
from grpo_cot.data.sources import HubSource
from grpo_cot.memory.architecture import architecture, check_kind
from grpo_cot.params import load_params
from grpo_cot.recipes.phases import GrpoPhase, PpoPhase
from grpo_cot.recipes.recipe import Recipe, load_recipe
from grpo_cot.training.methods.registry import workload
from grpo_cot.training.workload import FLOAT16, USABLE, asks_for_bfloat16, settings_with_defaults

if TYPE_CHECKING:
    from grpo_cot.memory.estimate import Blueprint, Memory

CARDS = (8, 16, 24, 48, 80)  # GiB
VLLM_WORKSPACE = 2**30  # for its own forward pass and CUDA graphs; a guess, not measured


@dataclass(frozen=True)
class Rows:
    """The number of rows that a run trains on (None: not known yet), and its origin."""

    count: int | None
    origin: str


@dataclass(frozen=True)
class PhasePlan:
    """One phase, or the reward model. A figure that depends on unknown rows is None.

    `examples` a step are completions under GRPO and PPO, pairs under DPO, texts of the reward model, and worked
    solutions otherwise; `prompts` are the different ones among them. `tokens` a step: at most, prompts included.
    """

    method: str
    steps: int | None
    prompts: int
    examples: int
    tokens: int
    epochs: float | None
    notes: list[str]
    memory: "Memory"
    vllm: "VllmShare | None"

    def fits(self, card: int) -> bool:
        """Whether the phase is estimated to fit a card of that many GiB."""
        size = card * 2**30
        if self.vllm is None:
            return self.memory.total <= USABLE * size
        beside = self.memory.total - (self.memory.kept["weights"] if self.vllm.shares_base else 0)
        return beside <= (USABLE - self.vllm.share) * size and self.vllm.needs <= self.vllm.share * size


@dataclass(frozen=True)
class VllmShare:
    """The memory that vLLM takes of a card beside training: a share of it, whatever its content.

    `needs`: bytes of the base, of one sequence's keys and values and of its workspace, without which it does not start.
    `shares_base`: whether that is the base that training uses (Unsloth), and not a copy of vLLM's own.
    """

    share: float
    needs: int
    shares_base: bool


@dataclass(frozen=True)
class Plan:
    """A recipe on a data set and a base; `reward_model` is trained before the phases."""

    recipe: str
    dataset: str
    base: str
    rows: Rows
    processes: int
    parameters: int
    trained_parameters: int
    quantized_parameters: int
    reward_model: PhasePlan | None
    phases: list[PhasePlan]


def plan(root: Path, experiment: str, dataset: str | None, base: str | None) -> Plan:
    """The plan of `experiments/EXPERIMENT.yaml`, or of the run of that name in params.yaml.

    Nothing is downloaded: files that are there are read, for the others the source files say it.

    Raises:
        InputError: a name is none, a file does not fit, or the libraries refuse a setting.
    """
    from grpo_cot.checks.recipe import check_recipe
    from grpo_cot.checks.runs import check_rows_kind, check_sets
    from grpo_cot.memory.estimate import Blueprint

    recipe_name, dataset, base = choose(root, experiment, dataset, base)
    path = root / f"experiments/{recipe_name}.yaml"
    recipe = load_recipe(path)
    check_recipe(recipe, path)
    kind, source = read_any(root / f"sources/datasets/{dataset}.yaml")
    check_rows_kind(path, recipe, dataset, kind, source)
    check_sets(path, recipe, repr(dataset), kind.evaluation_sets(source))
    rows = training_rows(source, root / f"data/{dataset}")
    configuration, untied = architecture(root, base)
    with naming(path):
        check_kind(configuration, recipe, base)
    blueprint = Blueprint(configuration, untied, recipe.model, recipe.quantization, recipe.phases[0].lora)
    processes = recipe.processes
    judge = _reward_model(root, recipe, rows, base)
    phases = [_phase(recipe, number, rows, processes, blueprint) for number in range(len(recipe.phases))]
    return Plan(
        recipe_name, dataset, base, rows, processes, blueprint.parameters, blueprint.trained_parameters,
        blueprint.quantized_parameters, judge, [_beside(phase, judge) for phase in phases],
    )  # fmt: skip


def choose(root: Path, experiment: str, dataset: str | None, base: str | None) -> tuple[str, str, str]:
    """Recipe, data set and base: as given, else as its runs in params.yaml have them, else those in suites/.

    Raises:
        InputError: a name is none, or the runs do not decide.
    """
    recipe, runs = experiment, []
    complete = dataset and base and (root / f"experiments/{experiment}.yaml").is_file()
    for file in [] if complete else [root / "params.yaml", *sorted((root / "suites").glob("*.yaml"))]:
        lines = load_params(file, root).runs
        if experiment in lines:
            recipe, runs = lines[experiment].recipe, [lines[experiment]]
        else:
            runs = [run for run in lines.values() if run.recipe == experiment]
        if runs:
            break
    _known(root, "experiments", recipe)
    names = []
    for field, argument in (("dataset", dataset), ("base", base)):
        folder = f"sources/{field}s"
        candidates = sorted({getattr(run, field) for run in runs})
        if argument is None and len(candidates) != 1:
            reason = "Its runs have several" if candidates else "It is in no run of params.yaml and suites/"
            present = candidates or sorted(path.stem for path in (root / folder).glob("*.yaml"))
            raise InputError(
                f"experiments/{recipe}.yaml: which {field}? {reason}; give --{field} NAME, one of: {', '.join(present)}"
            )
        names.append(_known(root, folder, argument or candidates[0]))
    return recipe, names[0], names[1]


def _known(root: Path, folder: str, name: str) -> str:
    if not (root / folder / f"{name}.yaml").is_file():
        present = [path.stem for path in (root / folder).glob("*.yaml")]
        raise InputError(f"{folder}/{name}.yaml does not exist; {nearest(name, present)}")
    return name


def training_rows(source: Any, data: Path) -> Rows:
    """The number of training rows of a source file: downloaded, in the source's own files, or as published."""
    if (data / "train.jsonl").is_file():
        return Rows(len(read_jsonl(data / "train.jsonl")), "downloaded")
    if source.kind == "generator":
        return Rows(source.splits["train"], "generated")
    held = held_out(source)
    fewer = len(source.drop) + sum(section.rows for section in held.values())
    suffix = "".join(f", {section.rows} held out for {purpose}" for purpose, section in held.items())
    if source.kind == "files":
        folder, name = os.environ.get(source.folder_variable or "", source.folder or ""), source.splits["train"].path
        file = Path(folder) / name
        if folder and file.suffix == ".jsonl" and file.is_file():
            return Rows(len(read_jsonl(file)) - fewer, f"counted in {name}{suffix}")
    elif isinstance(source, HubSource) and (published := source.published_rows()):
        return Rows(published - fewer, f"as {source.id} was published{suffix}")
    return Rows(None, "not known before the step download")


def _reward_model(root: Path, recipe: Recipe, rows: Rows, base: str) -> PhasePlan | None:
    """The plan of the reward model's training; None where the recipe has none.

    Raises:
        InputError: the base brings no scorer, or that one's sizes are not known.
    """
    from grpo_cot.checks.runs import scorer_of
    from grpo_cot.memory.estimate import estimate
    from grpo_cot.memory.scorer import ScorerBlueprint, workload

    section = recipe.reward_model
    if section is None:
        return None
    configuration, _ = architecture(root, base, scorer_of(root, base))
    settings, work = settings_with_defaults(section), workload(section)
    batch = work.rows * settings["gradient_accumulation_steps"]
    steps, epochs = _steps(settings, rows.count, batch)
    memory = estimate(ScorerBlueprint(configuration), work)
    return PhasePlan("reward_model", steps, batch, batch, batch * work.length, epochs, [], memory, None)


def _beside(phase: PhasePlan, judge: PhasePlan | None) -> PhasePlan:
    """A phase with the reward model beside it, if that one judges its completions; its activations are left out."""
    if judge is None or phase.method not in ("grpo", "ppo"):
        return phase
    kept = {**phase.memory.kept, "reward model": judge.memory.kept["weights"]}
    return replace(phase, memory=replace(phase.memory, kept=kept))


def _phase(recipe: Recipe, number: int, rows: Rows, processes: int, blueprint: "Blueprint") -> PhasePlan:
    from grpo_cot.memory.estimate import estimate

    phase = recipe.phases[number]
    settings = settings_with_defaults(phase)
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * processes
    work = workload(recipe, number, on_gpu=True)
    notes, prompts, length = [], batch, work.length
    if phase.architecture == "seq2seq":
        work = replace(work, targets=recipe.evaluate.sampling["max_new_tokens"])
        length += work.targets
        notes.append("targets are taken to be at most as long as evaluate.sampling.max_new_tokens")
    if isinstance(phase, GrpoPhase):
        generated = settings["steps_per_generation"] or settings["gradient_accumulation_steps"]
        reuse = settings["num_iterations"] * generated // settings["gradient_accumulation_steps"]
        prompts = batch // settings["num_generations"]
        steps, epochs = settings["max_steps"], None
        notes += _on_prompts(phase, settings, reuse)
        if rows.count and not phase.pass_rates:
            questions = generated * settings["per_device_train_batch_size"] * processes // settings["num_generations"]
            epochs = steps / reuse * questions / rows.count
    elif isinstance(phase, PpoPhase):
        reuse = settings["ppo_epochs"] * settings["batch_size"] // batch
        notes.append(f"{reuse} steps share one rollout of {settings['batch_size']} completions")
        rollouts = rows.count // settings["batch_size"] if rows.count else None
        steps, epochs = _steps(settings, rollouts and rollouts * reuse * batch, batch)
    else:
        available = rows.count
        sides = work.rows // settings["per_device_train_batch_size"]  # of a pair there are two
        if samples := phase.own_samples:
            notes.append("learns from its own samples, so how many rows there are shows only then: at most these")
            problems = samples.problems or rows.count
            available = problems * (samples.count // sides) if problems else None
        steps, epochs = _steps(settings, available, batch)
        length *= sides
    vllm = None
    if isinstance(phase, GrpoPhase) and phase.rollouts and settings["vllm_mode"] == "colocate":
        shared = phase.rollouts.sync == "shared"
        # Unless it is told a shorter one, vLLM starts only where a sequence of the model's own length has room.
        whole = settings["vllm_max_model_length"] or blueprint.model.config.max_position_embeddings
        needs = blueprint.weights() + blueprint.cache(work.drawn_length if shared else whole) + VLLM_WORKSPACE
        vllm = VllmShare(settings["vllm_gpu_memory_utilization"], needs, shared)
        copy = "the one base of both" if shared else "a second copy of the base"
        notes.append(f"rollouts in vLLM, which takes {vllm.share:.0%} of the card for {copy} and for its KV cache")
    elif settings.get("use_vllm"):
        notes.append("rollouts in vLLM on its server, which has a card of its own")
    if recipe.backend == "unsloth":
        notes.append("memory is that of the backend transformers; Unsloth's own kernels and checkpoints hold less")
    if asked := asks_for_bfloat16(recipe, phase):
        notes.append(
            f"computes in bfloat16 ({', '.join(asked)}), which GPUs before Ampere (T4, V100) lack, whatever fits them; "
            f"for these: {FLOAT16}"
        )
    memory = estimate(blueprint, work)
    return PhasePlan(phase.method, steps, prompts, batch, batch * length, epochs, notes, memory, vllm)


def _on_prompts(phase: GrpoPhase, settings: dict[str, Any], reuse: int) -> list[str]:
    """What GRPO does beside its steps, and what of them is not known before."""
    notes = [f"{reuse} steps share one generation"] if reuse > 1 else []
    if rates := phase.pass_rates:
        notes.append(
            f"draws {rates.count} completions to each of {rates.problems or 'all'} prompts first, once for all seeds "
            f"on this base; how many of these prompts are kept (pass rate {rates.low:g} to {rates.high:g}), and how "
            "often each is asked, shows only then"
        )
    if sampling := phase.dynamic_sampling:
        notes.append(
            f"draws groups without a signal again, at most {sampling.rounds} times a step, each time as many as are "
            "left, so that a step may take longer than the figures here say"
        )
    if validation := phase.validation:
        notes.append(
            f"answers {validation.problems or 'all'} validation problems every {settings['eval_steps']:g} steps, "
            f"{settings['per_device_eval_batch_size']} at a time, which no figure of memory here includes"
        )
    return notes


def _steps(settings: dict[str, Any], rows: int | None, batch: int) -> tuple[int | None, float | None]:
    """Optimiser steps, and epochs over the rows, as Transformers' Trainer counts: an epoch's last step may be short."""
    an_epoch = math.ceil(rows / batch) if rows else None
    if settings["max_steps"] > 0:
        return settings["max_steps"], settings["max_steps"] / an_epoch if an_epoch else None
    return math.ceil(settings["num_train_epochs"] * an_epoch) if an_epoch else None, settings["num_train_epochs"]
