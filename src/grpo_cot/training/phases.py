"""Training: an ordered list of phases, each starting from what the one before it left."""

import errno
import gc
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedTokenizerBase, ProgressCallback, TrainerCallback, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, new_directory, read_json, read_jsonl, write_json, write_jsonl
from grpo_cot.common.machine import out_of_memory
from grpo_cot.ending import resume_training
from grpo_cot.models.description import ModelDescription
from grpo_cot.models.loading import DEVICE, load_adapter, load_base, unsharded
from grpo_cot.models.processor import emulates_bfloat16
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.phases import GrpoPhase, OwnSamplesSection, Phase, PpoPhase
from grpo_cot.recipes.recipe import Recipe, RewardModelSection
from grpo_cot.resuming import last_whole_checkpoint
from grpo_cot.rewards.promise import Reward
from grpo_cot.rewards.registry import TRAINED
from grpo_cot.rewards.reward_model import load as load_reward_model
from grpo_cot.rewards.sampling import Sampler
from grpo_cot.training import unsloth
from grpo_cot.training.curves import repeatable
from grpo_cot.training.examples import own_completions
from grpo_cot.training.faithful import compare, compare_running, compare_tokenizer, snapshot, tokenizer_facts
from grpo_cot.training.groups import starting_audit
from grpo_cot.training.methods.registry import METHODS, setting_up, trainer_configuration
from grpo_cot.training.methods.reward_model import train as train_reward_model
from grpo_cot.training.methods.setup import MAIN, Progress, Setup, resolved, selected
from grpo_cot.training.probe import LongestBatch
from grpo_cot.training.signal.pass_rates import prompts_with_signal
from grpo_cot.training.validation.answers import answers_file
from grpo_cot.training.workload import FLOAT16, asks_for_bfloat16
from grpo_cot.vllm.arguments import distributions

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "numpy")
datasets.disable_progress_bars()  # one bar is enough: the training's own
VALIDATION = "eval-validation.jsonl"  # what checkpoints are selected on: never a set that is reported


@dataclass(frozen=True)
class Run:
    """The common inputs of all phases; `inputs` identifies them (hashes, revisions).

    `reward_model` is the reward of that name, which can be called once it is trained.
    """

    recipe: Recipe
    prompts: Sequence[Row]
    validation: Sequence[Row]
    base: Path
    seed: int
    inputs: Mapping[str, Any]
    reward_model: Reward | None

    @property
    def adapter(self) -> bool:
        """Whether an adapter is trained, and not all weights."""
        return self.recipe.phases[0].lora is not None


@dataclass(frozen=True)
class Place:
    """The folders of a phase: the result of the one before it (None: it is the first), its checkpoints, its result."""

    before: Path | None
    checkpoints: Path
    result: Path


def train_phases(
    recipe: Recipe, prompts: Sequence[Row], validation: Sequence[Row], base: Path, seed: int, scratch: Path,
    inputs: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Train the reward model, if there is one, and run every phase, where that is not done yet; the folder with all of
    their results.

    The folder has one subfolder for each of `parts` (`01-grpo`, ...: adapter or weights, configuration.json, log.json,
    where the phase learnt from the model's own completions samples.jsonl, and of a GRPO or PPO phase after another
    audit.json) and model.json, which describes the result of the last one. It is a function of the arguments alone. A
    phase that selects its checkpoint does so on `validation`.

    Raises:
        InputError: the base is corrupt, there is nothing to learn from, the rewards are silent, the disk is full, the
            GPU is too small, or the trainer does not do what the recipe asks.
    """
    result = scratch / "result"
    reward_model = load_reward_model(result / TRAINED) if recipe.reward_model else None
    run = Run(recipe, prompts, validation, base, seed, inputs, reward_model)
    before = None
    for number, (name, part) in enumerate(parts(recipe).items(), start=0 if recipe.reward_model else 1):
        place = Place(before, scratch / f"checkpoints-{name}", result / name)
        before = place.result if number else None
        if place.result.is_dir():
            continue
        try:
            if isinstance(part, RewardModelSection):
                facts = {"inputs": inputs, "packages": package_versions(recipe)}
                train_reward_model(recipe, prompts, validation, base, seed, place.checkpoints, place.result, facts)
            else:
                _train(run, part, place)
        except Exception as error:
            if sentence := _refusal(error, part, number, scratch):
                raise InputError(sentence) from error
            raise
        # A trainer is a ring of references and holds the GPU's memory, vLLM's share too; and vLLM, when it starts,
        # freezes everything that is there, which no collection touches then.
        gc.unfreeze()
        gc.collect()
        torch.cuda.empty_cache()
        if MAIN:
            shutil.rmtree(place.checkpoints, ignore_errors=True)
    description = ModelDescription(
        kind="adapter" if run.adapter else "full", architecture=recipe.phases[0].architecture, path=name,
        base=str(base), model=recipe.model, quantization=recipe.quantization,
    )  # fmt: skip
    if MAIN:
        write_json(result / "model.json", description.model_dump())
    return result


def parts(recipe: Recipe) -> dict[str, RewardModelSection | Phase]:
    """What a recipe trains, in order, by the folder of its result: its reward model, if it has one, and its phases."""
    phases = {f"{number:02d}-{phase.method}": phase for number, phase in enumerate(recipe.phases, start=1)}
    return ({TRAINED: recipe.reward_model} if recipe.reward_model else {}) | phases


def _refusal(error: Exception, part: RewardModelSection | Phase, number: int, scratch: Path) -> str | None:
    """What to tell the user of an error of the libraries that is about the machine, and not about the code."""
    if out_of_memory(error):
        named, section = TRAINED, f"{TRAINED}.{part.section}"
        if not isinstance(part, RewardModelSection):
            named, section = f"phases.{number} ({part.method})", part.section
        answering = ["per_device_eval_batch_size"] if getattr(part, "validation", None) else []
        answering += ["pass_rates.batch_size"] if getattr(part, "pass_rates", None) else []
        beside = f"; or lower {' or '.join(answering)}, which change no weight" if answering else ""
        return (
            f"{named} needs more memory than there is: `make plan EXPERIMENT=RUN` shows its parts; a smaller "
            f"{section}.per_device_train_batch_size with more gradient_accumulation_steps is the same training{beside}"
        )
    if isinstance(error, OSError | RuntimeError | SafetensorError) and disk_is_full(error, scratch):
        return (
            f"{scratch}: no space left on the device for a checkpoint; make room (unfinished work of other "
            "settings lies beside it) and start again: training goes on from the last whole checkpoint"
        )
    if type(error).__module__.startswith("wandb."):
        return (
            f"phases.{number}.{part.section}.report_to names wandb, which cannot log this run: "
            f"{' '.join(str(error).split())[:200]}; set WANDB_API_KEY, or WANDB_MODE=offline to keep the run's log in "
            ".cache/wandb for `wandb sync`"
        )
    return None


def read_prompts(folder: Path) -> tuple[list[Row], list[Row]]:
    """Prepare's training rows, and its validation rows where the data set holds some out."""
    validation = folder / VALIDATION
    return read_jsonl(folder / "train.jsonl"), read_jsonl(validation) if validation.is_file() else []


def package_versions(recipe: Recipe) -> dict[str, str]:
    """The installed version of every package that decides the result."""
    unsloth = ("unsloth", "unsloth_zoo") if recipe.backend == "unsloth" else ()
    colocated = any(phase.settings.get("vllm_mode") == "colocate" for phase in recipe.phases)
    vllm = distributions() if colocated else []
    return {package: version(package) for package in (*PACKAGES, *unsloth, *vllm)}


def disk_is_full(error: Exception, folder: Path) -> bool:
    """Whether an error while saving means a full disk; torch says so neither in its error's type nor in its text."""
    says_so = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return says_so or "No space left" in str(error) or shutil.disk_usage(folder).free < 2**20


def _train(run: Run, phase: Phase, place: Place) -> None:
    """Train one phase, or go on with it, and leave its result."""
    _check_device(run.recipe, phase)
    audited = None
    if isinstance(phase, GrpoPhase | PpoPhase) and place.before and MAIN:
        audited = _starting_samples(run, phase, place)
    # First, for it connects the processes and says how they share the weights.
    configuration = trainer_configuration(run.recipe, phase, place.checkpoints, run.seed)
    expected = snapshot(configuration)
    tokenizer = load_tokenizer(run.base)
    if run.recipe.backend == "unsloth":
        rows = AutoConfig.from_pretrained(run.base).get_text_config().vocab_size
        unsloth.pad_apart(tokenizer, run.prompts[0]["messages"], rows)
    given = tokenizer_facts(tokenizer)
    prompts, rates = prompts_with_signal(
        run.recipe, phase, run.prompts, place.before or run.base, package_versions(run.recipe), tokenizer,
        lambda: _starting_model(run, place.before, trainable=False),
    )  # fmt: skip
    setup = Setup(
        run.recipe, phase, tokenizer, prompts, run.validation,
        _samples(run, phase.own_samples, place, tokenizer) if phase.own_samples else (), run.reward_model,
    )  # fmt: skip
    with setting_up():
        examples = METHODS[phase.method].dataset(setup)
    model = _loaded(run, phase, place)
    values = _trained_values(model) if place.before and run.adapter else {}
    # The adapter is initialised before the trainer seeds anything (trl#6688).
    set_seed(run.seed)
    with setting_up():
        trainer = METHODS[phase.method].trainer(setup, configuration, model, examples)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Progress())
    if run.adapter and not is_deepspeed_zero3_enabled():  # which holds shards already, and cannot mix types
        _to_float32(trainer.model, values)
    compare(run.recipe, phase, expected, trainer)
    compare_tokenizer(run.recipe, phase, given, trainer)
    trainer.add_callback(_Comparison(run.recipe, phase, expected))
    if DEVICE == "cuda":  # a CPU's memory is not full from one moment to the next
        trainer.add_callback(LongestBatch(trainer, run.recipe, phase))
    if trainer.is_fsdp_enabled:
        # Every forward pass gathers weights from all processes, so none may stop generating before the others. This is
        # how generate() is told; Accelerate leaves it out.
        (trainer.model.get_base_model() if run.adapter else trainer.model)._is_fsdp_managed_module = True
    checkpoint = last_whole_checkpoint(place.checkpoints, run.recipe.processes)
    if checkpoint:
        # The reference's adapter, which is there already. From a checkpoint with two adapters Transformers loads the
        # second alone, and training would go on with what the phase before left.
        shutil.rmtree(checkpoint / "ref", ignore_errors=True)
    resume_training(trainer, checkpoint)
    if not any("loss" in entry for entry in trainer.state.log_history):
        raise InputError("the training made no step: look at max_steps, logging_steps and the number of prompts")
    # Shards are gathered by all processes together, whole weights are there already.
    shards = trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled()
    whole = trainer.accelerator.get_state_dict(trainer.model_wrapped) if shards else None
    if MAIN:
        with new_directory(place.result) as folder:
            _save(trainer.model, whole, folder)
            if isinstance(phase, PpoPhase):
                trainer.save_critic(folder)
            if setup.samples:
                write_jsonl(folder / "samples.jsonl", setup.samples)
            if rates is not None:
                write_json(folder / "pass-rates.json", rates)
            answers = answers_file(place.checkpoints)
            if answers.is_file():
                shutil.copyfile(answers, folder / "validation.jsonl")
            write_json(folder / "log.json", [repeatable(entry, phase) for entry in trainer.state.log_history])
            if audited is not None:
                write_json(folder / "audit.json", audited)
            write_json(folder / "configuration.json", _resolved(run, phase, configuration, trainer))
    trainer.accelerator.wait_for_everyone()


def _check_device(recipe: Recipe, phase: Phase) -> None:
    """Refuse number formats that the device does not compute in, and say which one a CPU is slow in.

    Raises:
        InputError: the recipe asks for one.
    """
    if DEVICE == "cpu":
        if phase.settings.get("tf32"):
            raise InputError(f"{phase.section}.tf32 is true, which needs a GPU; take it out to train on a CPU")
        if emulates_bfloat16() and (asked := asks_for_bfloat16(recipe, phase)):
            print(
                f"{asked[0]} asks for bfloat16, which this processor only emulates, many times slower than float32: "
                "set it to float32, whose weights differ by rounding alone.",
                flush=True,
            )
        return
    # By default torch says yes to emulation as well, which is many times slower, and which vLLM refuses.
    if not torch.cuda.is_bf16_supported(including_emulation=False) and (asked := asks_for_bfloat16(recipe, phase)):
        raise InputError(
            f"{asked[0]} asks for bfloat16, which {torch.cuda.get_device_name()} can only emulate; train on a GPU from "
            f"Ampere on, or set {FLOAT16}"
        )


def _loaded(run: Run, phase: Phase, place: Place) -> Any:
    """The model that the phase trains.

    Raises:
        InputError: the files are corrupt, or the method trains another kind of model.
    """
    if run.recipe.backend == "unsloth":
        model = unsloth.load(run.recipe, phase, run.base, place.before, run.seed)
    else:
        model = _starting_model(run, place.before, trainable=True)
    if model.config.is_encoder_decoder != (phase.architecture == "seq2seq"):
        kind = "an encoder-decoder" if model.config.is_encoder_decoder else "a causal model"
        raise InputError(f"{run.base} is {kind}, which the method {phase.method!r} cannot train")
    return model


def _starting_model(run: Run, before: Path | None, *, trainable: bool) -> Any:
    """What the phase before left, or the base."""
    folder = before if before and not run.adapter else run.base
    model = load_base(folder, run.recipe.model, run.recipe.quantization)
    return load_adapter(model, before, trainable=trainable) if before and run.adapter else model


def _starting_samples(run: Run, phase: GrpoPhase | PpoPhase, place: Place) -> dict[str, Any]:
    """The audit's question to the base before a first phase, put to a copy of what a later phase starts from.

    Kept for a resumed run, and drawn by the first of several processes, for which the others wait.

    Raises:
        InputError: the rewards are silent.
    """
    file = place.checkpoints.with_suffix(".audit.json")
    if not file.is_file():
        with unsharded():
            model = _starting_model(run, place.before, trainable=False)
        progress = "samples for the rewards"
        sampler = Sampler(model, load_tokenizer(run.base), run.recipe, phase, run.seed, progress, run.reward_model)
        write_json(file, starting_audit(sampler, run.prompts))
        del model, sampler
        gc.collect()
        torch.cuda.empty_cache()
    return dict(read_json(file))


def _samples(run: Run, section: OwnSamplesSection, place: Place, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """The model's own completions, kept for a resumed run: on a GPU a second draw need not be the first.

    They come from a copy of the model: bitsandbytes repacks a quantized CPU model that answers, and cannot train it
    then.
    """
    file = place.checkpoints.with_suffix(".samples.jsonl")
    if not file.is_file():
        rows = own_completions(
            _starting_model(run, place.before, trainable=False), tokenizer, run.prompts, section,
            run.recipe.prompt, run.seed,
        )  # fmt: skip
        write_jsonl(file, rows)
    return read_jsonl(file)


def _trained_values(model: Any) -> dict[str, torch.Tensor]:
    """Copies in float32 of the parameters that are trained."""
    return {
        name: parameter.detach().float().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _to_float32(model: Any, values: Mapping[str, torch.Tensor]) -> None:
    """Put the adapter into float32, at the values that the phase before left.

    On a quantized base the trainer casts the adapter to bfloat16, while a checkpoint is read back as float32: only in
    float32 throughout does a resumed run end where an uninterrupted one does, and a later phase start where the one
    before it ended.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = values[name].to(parameter.device) if name in values else parameter.data.float()


class _Comparison(TrainerCallback):
    """Compares what exists only when training begins with what the recipe asks."""

    def __init__(self, recipe: Recipe, phase: Phase, expected: Any) -> None:
        self._arguments = (recipe, phase, expected)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        compare_running(*self._arguments, state, kwargs)


def _save(model: Any, weights: Mapping[str, torch.Tensor] | None, folder: Path) -> None:
    if not isinstance(model, PeftModel):
        model.save_pretrained(folder, state_dict=weights)
        return
    model.save_pretrained(str(folder), state_dict=weights, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card; publishing writes the real one
    # PEFT writes the set of target modules in the order of its hash, which differs from process to process.
    configuration = read_json(folder / "adapter_config.json")
    if isinstance(configuration["target_modules"], list):
        configuration["target_modules"].sort()
    write_json(folder / "adapter_config.json", configuration)


def _resolved(run: Run, phase: Phase, configuration: Any, trainer: Any) -> dict[str, Any]:
    """The configuration that ran."""
    return {
        "method": phase.method, "inputs": run.inputs, "seed": run.seed,
        **({"rewards": run.recipe.rewards} if phase.section in ("grpo", "ppo") else {}),
        "quantization": run.recipe.quantization,
        **({"accelerate": run.recipe.accelerate} if run.recipe.accelerate else {}),
        "lora": phase.lora, phase.section: resolved(configuration), "packages": package_versions(run.recipe),
        "threads": torch.get_num_threads(), "rows": len(trainer.train_dataset), **selected(trainer),
    }  # fmt: skip
