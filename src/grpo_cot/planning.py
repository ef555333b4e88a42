"""What a recipe would do, before it does it: steps, prompts, completions, epochs, and the GPU memory that it needs."""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from grpo_cot.files import InputError, read_json, read_jsonl, read_yaml
from grpo_cot.recipes import (
    Base,
    DpoPhase,
    GrpoPhase,
    Phase,
    Recipe,
    RejectionSamplingPhase,
    Seq2SeqPhase,
    load_params,
    load_recipe,
)
from grpo_cot.sources import SOURCE_FILE, FilesSource, GeneratorSuite, HubSource, Suite, evaluation_sets
from grpo_cot.validation import nearest, validated

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from grpo_cot.memory import Blueprint, Memory, Workload

CARDS = (8, 16, 24, 48, 80)  # GiB
USABLE = 0.9  # of a card: the allocator's fragments take their part, and an estimate is no measurement
# Training rows of Hub data sets as published; vi_gsm8k is GSM8K's rows translated.
PUBLISHED_ROWS = {"openai/gsm8k": 7473, "hllj/vi_gsm8k": 7473}


@dataclass(frozen=True)
class Rows:
    """How many rows a run trains on (None: not known yet), and how that is known."""

    count: int | None
    origin: str


@dataclass(frozen=True)
class PhasePlan:
    """One phase. What depends on rows that are not known yet is None.

    `examples` a step are completions under GRPO, pairs under DPO, and worked solutions otherwise; `prompts` are the
    different ones among them. `tokens` a step: at most, prompts included.
    """

    method: str
    steps: int | None
    prompts: int
    examples: int
    tokens: int
    epochs: float | None
    notes: list[str]
    memory: "Memory"
    vllm_share: float  # of the card, which vLLM takes for itself beside training

    def fits(self, card: int) -> bool:
        """Whether the phase is estimated to fit a card of that many GiB."""
        return self.memory.total <= (USABLE - self.vllm_share) * card * 2**30


@dataclass(frozen=True)
class Plan:
    """A recipe on a data set and a base."""

    recipe: str
    dataset: str
    base: str
    rows: Rows
    processes: int
    parameters: int
    trained_parameters: int
    quantized_parameters: int
    phases: list[PhasePlan]


def plan(root: Path, experiment: str, dataset: str | None, base: str | None) -> Plan:
    """The plan of `experiments/EXPERIMENT.yaml`, or of the run of that name in params.yaml.

    Nothing is downloaded: what is there is read, for the rest the source files say it.

    Raises:
        InputError: a name is none, a file does not fit, or the libraries refuse a setting.
    """
    from grpo_cot.library_settings import check_recipe
    from grpo_cot.memory import Blueprint

    recipe_name, dataset, base = choose(root, experiment, dataset, base)
    path = root / f"experiments/{recipe_name}.yaml"
    recipe = load_recipe(path)
    check_recipe(recipe, path)
    source = root / f"sources/datasets/{dataset}.yaml"
    suite = validated(SOURCE_FILE, read_yaml(source), source)
    for name in recipe.evaluate.sets:
        if name not in evaluation_sets(suite):
            raise InputError(
                f"{path}: evaluate.sets names {name!r}, which the data set {dataset!r} lacks; "
                f"{nearest(name, evaluation_sets(suite))}"
            )
    rows = training_rows(suite, root / f"data/{dataset}")
    configuration, untied = architecture(root, base)
    encoder_decoder = bool(configuration.is_encoder_decoder)
    if encoder_decoder != (recipe.phases[0].method == "seq2seq"):
        kind = "an encoder-decoder" if encoder_decoder else "a causal model"
        raise InputError(f"{path}: the base {base!r} is {kind}, which {recipe.phases[0].method!r} cannot train")
    blueprint = Blueprint(configuration, untied, recipe.model.dtype, recipe.quantization, recipe.phases[0].lora)
    processes = recipe.accelerate["num_processes"] if recipe.accelerate else 1
    return Plan(
        recipe_name, dataset, base, rows, processes, blueprint.parameters, blueprint.trained_parameters,
        blueprint.quantized_parameters,
        [_phase(recipe, number, rows, processes, blueprint) for number in range(len(recipe.phases))],
    )  # fmt: skip


def choose(root: Path, experiment: str, dataset: str | None, base: str | None) -> tuple[str, str, str]:
    """Recipe, data set and base: as given, else as its runs in params.yaml have them, else those in suites/.

    Raises:
        InputError: a name is none, or the runs do not decide.
    """
    recipe, used = experiment, []
    given_all = dataset and base and (root / f"experiments/{experiment}.yaml").is_file()
    for file in [] if given_all else [root / "params.yaml", *sorted((root / "suites").glob("*.yaml"))]:
        runs = load_params(file, root).runs
        if experiment in runs:
            recipe, used = runs[experiment].recipe, [runs[experiment]]
        else:
            used = [run for run in runs.values() if run.recipe == experiment]
        if used:
            break
    _known(root, "experiments", recipe)
    chosen = []
    for field, given in (("dataset", dataset), ("base", base)):
        folder = f"sources/{field}s"
        names = sorted({getattr(run, field) for run in used})
        if given is None and len(names) != 1:
            found = "Its runs have several" if names else "It is in no run of params.yaml and suites/"
            present = names or sorted(path.stem for path in (root / folder).glob("*.yaml"))
            raise InputError(
                f"experiments/{recipe}.yaml: which {field}? {found}; give --{field} NAME, one of: {', '.join(present)}"
            )
        chosen.append(_known(root, folder, given or names[0]))
    return recipe, chosen[0], chosen[1]


def _known(root: Path, folder: str, name: str) -> str:
    if not (root / folder / f"{name}.yaml").is_file():
        present = [path.stem for path in (root / folder).glob("*.yaml")]
        raise InputError(f"{folder}/{name}.yaml does not exist; {nearest(name, present)}")
    return name


def training_rows(suite: Suite, data: Path) -> Rows:
    """How many rows there are to train on: downloaded, in the source's own files, or as published."""
    if (data / "train.jsonl").is_file():
        return Rows(len(read_jsonl(data / "train.jsonl")), "downloaded")
    if isinstance(suite, GeneratorSuite):
        return Rows(suite.splits["train"], "generated")
    held = suite.validation.rows if suite.validation else 0
    kept = f", {held} held out for validation" if held else ""
    if isinstance(suite, FilesSource):
        folder = os.environ.get(suite.folder_variable or "", suite.folder or "")
        file = Path(folder) / suite.splits["train"].path
        if folder and file.suffix == ".jsonl" and file.is_file():
            return Rows(
                len(read_jsonl(file)) - held - len(suite.drop), f"counted in {suite.splits['train'].path}{kept}"
            )
    elif isinstance(suite, HubSource) and suite.id in PUBLISHED_ROWS:
        return Rows(PUBLISHED_ROWS[suite.id] - held - len(suite.drop), f"as {suite.id} was published{kept}")
    return Rows(None, "not known before the step download")


def architecture(root: Path, base: str) -> "tuple[PreTrainedConfig, bool]":
    """A base's configuration, from its own file where that is there, else from its source; and whether its files hold
    an output matrix of their own, whatever its class says.

    Raises:
        InputError: neither says it, or Transformers refuses it.
    """
    from transformers import AutoConfig

    path = root / f"sources/bases/{base}.yaml"
    source = validated(Base, read_yaml(path), path)
    embedded = root / source.path if source.path else None
    for folder in (root / f"models/{base}", embedded):
        if folder and (folder / "config.json").is_file():
            settings = read_json(folder / "config.json")
            return AutoConfig.from_pretrained(folder), settings.get("tie_word_embeddings") is False
    settings = {**(source.config or {}), **(source.shape or {})}
    if source.tokenizer and source.tokenizer.path:
        from grpo_cot.tokenization import load_tokenizer

        settings["vocab_size"] = len(load_tokenizer(root / source.tokenizer.path))
    for name in ("model_type", "vocab_size"):
        if name not in settings:
            raise InputError(
                f"{path}: 'shape' lacks {name!r}, and models/{base} is not there yet; add it, or run "
                f"dvc repro base@{base} first"
            )
    try:
        configuration = AutoConfig.for_model(**settings)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: shape: Transformers refuses it: {' '.join(str(error).split())[:200]}") from None
    known = type(configuration)().to_dict()
    if unknown := sorted(settings.keys() - known.keys()):
        raise InputError(f"{path}: shape: unknown key {unknown[0]!r}; {nearest(unknown[0], known)}")
    return configuration, settings.get("tie_word_embeddings") is False


def _phase(recipe: Recipe, number: int, rows: Rows, processes: int, blueprint: "Blueprint") -> PhasePlan:
    from grpo_cot.memory import estimate

    phase = recipe.phases[number]
    settings = _with_defaults(phase)
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * processes
    work = _workload(recipe, number, settings)
    notes, prompts, length = [], batch, work.length
    if isinstance(phase, GrpoPhase):
        generated = settings["steps_per_generation"] or settings["gradient_accumulation_steps"]
        reuse = settings["num_iterations"] * generated // settings["gradient_accumulation_steps"]
        prompts = batch // settings["num_generations"]
        steps, epochs = settings["max_steps"], None
        if reuse > 1:
            notes.append(f"{reuse} steps share one generation")
        if rows.count:
            asked = generated * settings["per_device_train_batch_size"] * processes // settings["num_generations"]
            epochs = steps / reuse * asked / rows.count
    else:
        available = rows.count
        if isinstance(phase, RejectionSamplingPhase | DpoPhase):
            notes.append("learns from its own samples, so how many rows there are shows only then: at most these")
            problems = phase.samples.problems or rows.count
            each = phase.samples.count if phase.method == "rejection_sampling" else phase.samples.count // 2
            available = problems * each if problems else None
        steps, epochs = _steps(settings, available, batch)
        length = work.length * (2 if phase.method == "dpo" else 1)
        if isinstance(phase, Seq2SeqPhase):
            length += work.targets
            notes.append("targets are taken to be at most as long as evaluate.sampling.max_new_tokens")
    share = 0.0
    if settings.get("use_vllm"):
        server = settings["vllm_mode"] == "server"
        share = 0.0 if server else settings["vllm_gpu_memory_utilization"]
        notes.append("rollouts in vLLM " + ("on its server" if server else f"which takes {share:.0%} of the card"))
    return PhasePlan(
        phase.method, steps, prompts, batch, batch * length, epochs, notes, estimate(blueprint, work), share
    )


def _steps(settings: dict[str, Any], rows: int | None, batch: int) -> tuple[int | None, float | None]:
    """Optimiser steps, and epochs over the rows, as Transformers' Trainer counts: an epoch's last step may be short."""
    an_epoch = math.ceil(rows / batch) if rows else None
    if settings["max_steps"] > 0:
        return settings["max_steps"], settings["max_steps"] / an_epoch if an_epoch else None
    return math.ceil(settings["num_train_epochs"] * an_epoch) if an_epoch else None, settings["num_train_epochs"]


def _with_defaults(phase: Phase) -> dict[str, Any]:
    """A phase's settings over the installed library's defaults."""
    from grpo_cot.trainers import CONFIGURATIONS

    fields = dataclasses.fields(CONFIGURATIONS[phase.section])
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    settings = {**defaults, **phase.settings}
    if settings["bf16"] is None:  # TRL's configurations decide it so
        settings["bf16"] = not settings["fp16"]
    return settings


def _workload(recipe: Recipe, number: int, settings: dict[str, Any]) -> "Workload":
    from grpo_cot.memory import Workload

    phase = recipe.phases[number]
    rows, prompt = settings["per_device_train_batch_size"], recipe.prompt.max_prompt_length
    fresh = number == 0 and phase.lora is not None  # its reference is the base, with the adapter switched off
    drawn, drawn_length, temperature, reference = 0, 0, 1.0, False
    loss: Literal["usual", "chunked", "selected"] = "usual"
    if isinstance(phase, GrpoPhase):
        targets = settings["max_completion_length"]
        length = prompt + targets
        if not settings["use_vllm"]:
            generated = settings["steps_per_generation"] or settings["gradient_accumulation_steps"]
            drawn, drawn_length = rows * generated, length
        temperature, loss = settings["temperature"], "selected"
        reference = settings["beta"] != 0 and not fresh
    elif isinstance(phase, Seq2SeqPhase):
        length, targets = prompt, recipe.evaluate.sampling["max_new_tokens"]
    else:
        length = targets = settings["max_length"]
        if phase.method == "dpo":
            rows, loss, reference = 2 * rows, "selected", not fresh
        elif settings["loss_type"] == "chunked_nll":
            loss = "chunked"
        if isinstance(phase, RejectionSamplingPhase | DpoPhase):
            drawn = phase.samples.batch_size
            drawn_length = prompt + phase.samples.sampling["max_new_tokens"]
    return Workload(
        rows, length, targets, drawn, drawn_length, loss, settings["optim"], settings["bf16"] or settings["fp16"],
        settings["gradient_checkpointing"], temperature, reference,
    )  # fmt: skip
