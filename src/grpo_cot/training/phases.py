"""Training: an ordered list of phases, each starting from what the one before it left."""

import errno
import gc
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import ProgressCallback, TrainerCallback, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled

from grpo_cot.evaluation import vllm as vllm_engine
from grpo_cot.files import InputError, Row, new_directory, read_json, read_jsonl, write_json, write_jsonl
from grpo_cot.models.description import ModelDescription
from grpo_cot.models.loading import DEVICE, load_adapter, load_base
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.recipe import DpoPhase, GrpoPhase, Phase, Recipe, RejectionSamplingPhase
from grpo_cot.resuming import last_whole_checkpoint
from grpo_cot.training import unsloth as unsloth_backend
from grpo_cot.training.examples import own_completions
from grpo_cot.training.faithful import compare, compare_running, snapshot
from grpo_cot.training.probe import LongestBatch, out_of_memory
from grpo_cot.training.trainers import check_prompts, make_trainer, trainer_configuration

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "numpy")
datasets.disable_progress_bars()  # one bar is enough: the training's own
VALIDATION = "eval-validation.jsonl"  # what checkpoints are selected on: never a set that is reported
# Of several processes in one step (grpo_cot.training.launch), the first writes the results.
MAIN = os.environ.get("LOCAL_RANK", "0") == "0"
# Logged by the trainer, but different at every run (times) or after a resumption (the mean loss and the tokens seen
# restart at 0): kept out of files that later steps read.
VOLATILE = re.compile(r"step_time|_runtime|_per_second|total_flos|train_loss|num_tokens")


def train_phases(
    recipe: Recipe, prompts: Sequence[Row], validation: Sequence[Row], base: Path, seed: int, scratch: Path,
    inputs: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Run every phase that is not finished yet; the folder that holds all of their results.

    The folder has one subfolder a phase (`01-grpo`, ...: adapter or weights, configuration.json, log.json, and
    samples.jsonl where the phase learnt from the model's own completions) and model.json, which describes what the last
    one left. Everything in it is a function of the arguments alone; `inputs` says what prompts and base are (hashes,
    revisions) and is written beside the weights. A phase that selects its checkpoint does so on `validation`.

    Raises:
        InputError: the base is corrupt, there is nothing to learn from, the disk is full, the GPU is too small, or the
            trainer does not do what the recipe asks.
    """
    result = scratch / "result"
    for number, phase in enumerate(recipe.phases, start=1):
        name = f"{number:02d}-{phase.method}"
        if (result / name).is_dir():
            continue
        before = result / f"{number - 1:02d}-{recipe.phases[number - 2].method}" if number > 1 else None
        try:
            _train(
                recipe, phase, prompts, validation, base, seed, inputs, before, scratch / f"checkpoints-{name}",
                result / name,
            )  # fmt: skip
        except torch.OutOfMemoryError as error:
            raise out_of_memory(recipe, number, base) from error
        except (OSError, RuntimeError, SafetensorError) as error:
            if disk_is_full(error, scratch):
                raise InputError(
                    f"{scratch}: no space left on the device for a checkpoint; make room and start again: "
                    "training goes on from the last whole checkpoint"
                ) from error
            raise
        # A trainer is a ring of references and holds the GPU's memory, vLLM's share too; and vLLM, when it starts,
        # freezes everything that is there, which no collection touches then.
        gc.unfreeze()
        gc.collect()
        torch.cuda.empty_cache()
        if MAIN:
            shutil.rmtree(scratch / f"checkpoints-{name}", ignore_errors=True)
    description = ModelDescription(
        kind="adapter" if recipe.phases[0].lora is not None else "full",
        architecture="seq2seq" if recipe.phases[0].method == "seq2seq" else "causal", path=name,
        base=str(base), model=recipe.model, quantization=recipe.quantization,
    )  # fmt: skip
    if MAIN:
        write_json(result / "model.json", description.model_dump())
    return result


def read_prompts(folder: Path) -> tuple[list[Row], list[Row]]:
    """Prepare's training rows, and its validation rows where the data set holds some out."""
    validation = folder / VALIDATION
    return read_jsonl(folder / "train.jsonl"), read_jsonl(validation) if validation.is_file() else []


def package_versions(recipe: Recipe) -> dict[str, str]:
    """The installed version of every package that decides the result."""
    unsloth = ("unsloth", "unsloth_zoo") if recipe.backend == "unsloth" else ()
    colocated = any(phase.settings.get("vllm_mode") == "colocate" for phase in recipe.phases)
    vllm = vllm_engine.distributions() if colocated else []
    return {package: version(package) for package in (*PACKAGES, *unsloth, *vllm)}


def disk_is_full(error: Exception, folder: Path) -> bool:
    """Whether an error while saving means a full disk; torch says so neither in its error's type nor in its text."""
    said = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return said or "No space left" in str(error) or shutil.disk_usage(folder).free < 2**20


def _train(
    recipe: Recipe, phase: Phase, prompts: Sequence[Row], validation: Sequence[Row], base: Path, seed: int,
    inputs: Mapping[str, Any], before: Path | None, checkpoints: Path, output: Path,
) -> None:  # fmt: skip
    processes = recipe.accelerate["num_processes"] if recipe.accelerate else 1
    if DEVICE == "cpu" and phase.settings.get("tf32"):
        raise InputError(f"{phase.section}.tf32 is true, which needs a GPU; take it out to train on a CPU")
    check_prompts(recipe, phase, prompts)
    # First of all, for it connects the processes and says how they share the weights that are loaded next.
    configuration = trainer_configuration(recipe, phase, checkpoints, seed)
    asked = snapshot(configuration)
    tokenizer = load_tokenizer(base)
    adapter = recipe.phases[0].lora is not None
    samples = None
    if isinstance(phase, RejectionSamplingPhase | DpoPhase):
        samples = _samples(recipe, phase, prompts, base, seed, before, checkpoints.with_suffix(".samples.jsonl"))
    if recipe.backend == "unsloth":
        model = unsloth_backend.load(recipe, phase, base, before, seed)
    else:
        model = _starting_model(recipe, base, before, trainable=True)
    if model.config.is_encoder_decoder != (phase.method == "seq2seq"):
        kind = "an encoder-decoder" if model.config.is_encoder_decoder else "a causal model"
        raise InputError(f"{base} is {kind}, which the method {phase.method!r} cannot train")
    left = {
        name: parameter.detach().float().clone()
        for name, parameter in model.named_parameters()
        if before and adapter and parameter.requires_grad
    }
    # The adapter is initialised before the trainer seeds anything (trl#6688).
    set_seed(seed)
    trainer = make_trainer(recipe, phase, configuration, model, tokenizer, prompts, validation, samples)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Progress())
    # On a quantized base the trainer casts the adapter to bfloat16, while a checkpoint is read back as float32: only in
    # float32 throughout does a resumed run end where an uninterrupted one does, and a later phase start where the one
    # before it ended. (Not under ZeRO-3: it holds shards already, and cannot mix types.)
    zero3 = is_deepspeed_zero3_enabled()
    if adapter and not zero3:
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.data = left[name].to(parameter.device) if name in left else parameter.data.float()
    compare(recipe, phase, asked, trainer)
    trainer.add_callback(_Comparison(recipe, phase, asked))
    if DEVICE == "cuda":  # a CPU's memory is not full from one moment to the next
        trainer.add_callback(LongestBatch(trainer, phase, recipe))
    if trainer.is_fsdp_enabled:
        # Every forward pass gathers weights from all processes, so none may stop generating before the others. This is
        # how generate() is told; Accelerate leaves it out.
        model = trainer.model.get_base_model() if adapter else trainer.model
        model._is_fsdp_managed_module = True
    checkpoint = last_whole_checkpoint(checkpoints, processes)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if not any("loss" in entry for entry in trainer.state.log_history):
        raise InputError("the training made no step: look at max_steps, logging_steps and the number of prompts")
    # Shards are gathered by all processes together, whole weights are there already.
    shards = trainer.is_fsdp_enabled or zero3
    whole = trainer.accelerator.get_state_dict(trainer.model_wrapped) if shards else None
    if MAIN:
        with new_directory(output) as folder:
            _save(trainer.model, whole, folder)
            if samples is not None:
                write_jsonl(folder / "samples.jsonl", samples)
            write_json(folder / "log.json", [_repeatable(entry) for entry in trainer.state.log_history])
            resolved = _resolved(recipe, phase, configuration, seed, inputs)
            resolved["rows"] = len(trainer.train_dataset)
            if trainer.state.best_metric is not None:  # of the validation split
                resolved["selected"] = {"step": trainer.state.best_global_step, "eval_loss": trainer.state.best_metric}
            write_json(folder / "configuration.json", resolved)
    trainer.accelerator.wait_for_everyone()


def _starting_model(recipe: Recipe, base: Path, before: Path | None, *, trainable: bool) -> Any:
    """What the phase before left, or the base."""
    adapter = recipe.phases[0].lora is not None
    model = load_base(before if before and not adapter else base, recipe.model, recipe.quantization)
    return load_adapter(model, before, trainable=trainable) if before and adapter else model


def _samples(
    recipe: Recipe, phase: RejectionSamplingPhase | DpoPhase, prompts: Sequence[Row], base: Path, seed: int,
    before: Path | None, kept: Path,
) -> list[Row]:  # fmt: skip
    """The model's own completions, kept for a resumed run: on a GPU a second draw need not be the first.

    They come from a copy of the model: bitsandbytes repacks a quantized CPU model that answers, and cannot train it
    then.
    """
    if not kept.is_file():
        drawn = own_completions(
            _starting_model(recipe, base, before, trainable=False), load_tokenizer(base), prompts, phase.samples,
            chat_template_kwargs=recipe.prompt.chat_template_kwargs, seed=seed,
        )  # fmt: skip
        write_jsonl(kept, drawn)
    return read_jsonl(kept)


class _Comparison(TrainerCallback):
    """Compares what exists only when training begins with what the recipe asks."""

    def __init__(self, recipe: Recipe, phase: Phase, asked: Any) -> None:
        self._asked = (recipe, phase, asked)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        compare_running(*self._asked, state, kwargs)


class _Progress(ProgressCallback):
    """The trainer's progress bar with the reward or the loss beside it, instead of thirty figures a step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step and state.is_world_process_zero:
            print(f"Resuming from step {state.global_step} of {state.max_steps}.", flush=True)
        super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if self.training_bar is not None and logs and "reward" in logs:
            self.training_bar.set_postfix(
                reward=f"{logs['reward']:.2f}", tokens=f"{logs['completions/mean_length']:.0f}"
            )
        elif self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")


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


def _repeatable(entry: Mapping[str, float]) -> dict[str, float]:
    # Sorted, because a checkpoint hands its entries back in another order.
    return {name: value for name, value in sorted(entry.items()) if not VOLATILE.search(name)}


def _resolved(recipe: Recipe, phase: Phase, configuration: Any, seed: int, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What ran, with every default spelt out, less the machine's own paths."""
    settings = json.loads(configuration.to_json_string())
    for name in ("output_dir", "logging_dir", "run_name"):
        settings.pop(name, None)
    return {
        "method": phase.method,
        "inputs": inputs,
        "seed": seed,
        **({"rewards": recipe.rewards} if phase.method == "grpo" else {}),
        "quantization": recipe.quantization,
        **({"accelerate": recipe.accelerate} if recipe.accelerate else {}),
        "lora": phase.lora,
        phase.section: settings,
        "packages": package_versions(recipe),
        "threads": torch.get_num_threads(),
    }


def verdict(log: Sequence[Mapping[str, float]], phase: Phase) -> list[str]:
    """What the curves say, in plain sentences: the first is the outcome, the others name what went wrong, if anything.

    `log` is the trainer's log history. Changes compare the first tenth of the steps with the last.
    """
    if phase.method == "grpo":
        return _reward_verdict(log, phase)
    steps = [entry for entry in log if "loss" in entry]
    if not steps:
        return ["The trainer logged no step."]
    first, last = _ends(steps)
    change = _mean("loss", last) - _mean("loss", first)
    said = [f"The loss went from {_mean('loss', first):.3f} to {_mean('loss', last):.3f} in {len(steps)} logged steps."]
    if change >= 0 and len(steps) > 1:
        said.append("The loss did not fall: nothing was learnt.")
    held_out = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    if held_out:
        said.append(f"On the validation split it went from {held_out[0]:.3f} to {held_out[-1]:.3f}.")
    if len(held_out) > 2 and held_out[-1] > 1.05 * min(held_out):
        kept = "that checkpoint is kept" if phase.settings.get("load_best_model_at_end") else "train for less"
        said.append(f"It was lowest in between, at {min(held_out):.3f}: {kept}.")
    return said


def _ends(steps: Sequence[Mapping[str, float]]) -> tuple[Sequence[Mapping[str, float]], Sequence[Mapping[str, float]]]:
    tenth = max(1, len(steps) // 10)
    return steps[:tenth], steps[-tenth:]


def _mean(name: str, part: Sequence[Mapping[str, float]]) -> float:
    values = [entry[name] for entry in part if name in entry]
    return sum(values) / len(values) if values else 0.0


def _reward_verdict(log: Sequence[Mapping[str, float]], phase: GrpoPhase) -> list[str]:
    steps = [entry for entry in log if "reward" in entry]
    if not steps:
        return ["The trainer logged no step."]

    first, last = _ends(steps)
    change = _mean("reward", last) - _mean("reward", first)
    said = [
        f"The mean reward went from {_mean('reward', first):.2f} to {_mean('reward', last):.2f} "
        f"in {len(steps)} logged steps."
    ]
    if change <= 0.02 * abs(_mean("reward", first)):
        said.append("The reward did not rise: nothing that it pays for was learnt.")
    clipped = _mean("completions/clipped_ratio", last)
    if clipped > 0.2:
        said.append(
            f"{clipped:.0%} of completions hit the length cap of {phase.grpo['max_completion_length']} tokens "
            "at the end."
        )
    silent = _mean("frac_reward_zero_std", steps)
    if silent > 0.5:
        said.append(f"The reward never varied in {silent:.0%} of the groups, which teach nothing: see audit.json.")
    for name in sorted(
        {name for entry in steps for name in entry if name.startswith("rewards/") and name.endswith("/mean")}
    ):
        if all(entry.get(name, 0.0) == 0.0 for entry in steps):
            said.append(f"The reward {name.split('/')[1]} never paid.")
    if _mean("entropy", last) < 0.01:
        said.append("The policy's entropy fell below 0.01: it no longer explores.")
    return said
