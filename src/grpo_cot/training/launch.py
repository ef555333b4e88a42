"""A training in one process, or in several, which Accelerate's launcher starts as the recipe's section says.

Of several, the parent (`train_in_processes`) waits and reports; each process (`main`) trains its share, and the first
one writes the results. The first one alone speaks to the user: the words of the launcher and of the others are kept
in the scratch folder's launch.log, and shown when the launch fails.
"""

import gc
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import file_hashes, new_directory, read_json, write_json
from grpo_cot.common.machine import machine_error
from grpo_cot.models.loading import DEVICE
from grpo_cot.recipes.phases import Phase
from grpo_cot.recipes.recipe import Recipe, RewardModelSection
from grpo_cot.resuming import Callers, noticing_termination, resumable
from grpo_cot.rewards.registry import reward_functions
from grpo_cot.training.curves import divergence, write_tables
from grpo_cot.training.methods import reward_model
from grpo_cot.training.methods.registry import METHODS
from grpo_cot.training.methods.setup import MAIN
from grpo_cot.training.phases import VALIDATION, package_versions, parts, read_prompts, train_phases

# Bytes of a sentence in which a process refuses its input. The space is taken beforehand: the disk may be full by then.
REFUSAL = 4096


def train(
    recipe: Recipe, prompts: Path, base: Path, seed: int, *, scratch: Path, output: Path, curves: Path
) -> dict[str, list[str]]:
    """Train the recipe's phases on prepare's rows, going on where an interrupted training stopped.

    `output` gets the folders of `train_phases` and summary.json, `curves` a table for each logged quantity. Returned
    are the verdicts, by phase, that of the reward model first.

    Raises:
        InputError: as `train_phases` and `train_in_processes`.
    """
    gc.freeze()  # trainers collect garbage several times, which among the libraries' objects takes a second each
    hashes = file_hashes(prompts)
    inputs = {
        "prompts_sha256": {name: hashes[name] for name in ("train.jsonl", VALIDATION) if name in hashes},
        "base": read_json(base / "base.json"),
    }
    reward_functions(recipe.rewards)  # loads the code of the user's own, which decides the result as ours does
    decisive = {
        "inputs": inputs, "seed": seed, "packages": package_versions(recipe), "base": file_hashes(base),
        "device": DEVICE, "recipe": recipe.model_dump(exclude={"prompt"}),
        "prompt": recipe.prompt.model_dump(include={"chat_template_kwargs", "thinking"}),
    }  # fmt: skip
    with resumable(scratch, decisive) as folder:
        if (folder / "result/model.json").is_file():
            print("Taking over what an interrupted run had finished.", flush=True)
        if recipe.accelerate is None:
            result = train_phases(recipe, *read_prompts(prompts), base, seed, folder, inputs)
        else:
            result = train_in_processes(recipe, prompts, base, seed, folder, inputs)
        logs = {name: read_json(result / name / "log.json") for name in parts(recipe)}
        verdicts = {
            name: [*divergence(logs[name]), *_verdict(logs[name], part)] for name, part in parts(recipe).items()
        }
        with new_directory(curves) as tables:
            for name, log in logs.items():
                write_tables(log, tables / name)
        with new_directory(output) as trained:
            shutil.copytree(result, trained, dirs_exist_ok=True)
            write_json(trained / "summary.json", {"verdict": verdicts})
    return verdicts


def _verdict(log: list[dict[str, float]], part: RewardModelSection | Phase) -> list[str]:
    if isinstance(part, RewardModelSection):
        return reward_model.verdict(log, part)
    return METHODS[part.method].verdict(log, part)


def train_in_processes(
    recipe: Recipe, prompts: Path, base: Path, seed: int, scratch: Path, inputs: Mapping[str, Any]
) -> Path:
    """What `train_phases` does, in as many processes as `recipe.accelerate` says; `prompts` is prepare's folder.

    Raises:
        InputError: the machine has too few GPUs, a process refused its input (in that process's words), one failed, or
            the system told this training to end (SIGTERM), which all did after the same step, with a checkpoint.
    """
    settings = recipe.accelerate or {}
    on_cpu = settings["distributed_type"] == "MULTI_CPU"
    if not on_cpu and torch.cuda.device_count() < settings["num_processes"]:
        raise InputError(
            f"accelerate.num_processes is {settings['num_processes']}, but this machine offers "
            f"{torch.cuda.device_count()} GPUs; ask the scheduler for more, or lower it"
        )
    configuration, arguments, refusal = (scratch / name for name in ("accelerate.json", "launch.pickle", "refusal.txt"))
    # Port 0: any free one, so that two trainings on one machine do not meet.
    write_json(configuration, {**settings, "compute_environment": "LOCAL_MACHINE", "main_process_port": 0})
    arguments.write_bytes(pickle.dumps((recipe, prompts, base, seed, scratch, inputs, refusal)))
    refusal.write_bytes(b" " * REFUSAL)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)]
    # By itself Accelerate starts CPU processes with mpirun; this makes it use torch's launcher, as it does for GPUs.
    command += ["--multi_gpu"] if on_cpu else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(recipe.model.threads)}
    if on_cpu:
        # Accelerate would number the CPU (cpu:0), and torch cannot load an optimizer's state to that name.
        environment |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_TORCH_DEVICE": "cpu"}
    log = scratch / "launch.log"
    with log.open("w") as stream, noticing_termination() as told:
        launched = psutil.Popen(
            # The launcher ends its processes when it is told to end itself: it is made not to hear that.
            ["sh", "-c", 'trap "" TERM; exec "$@"', "sh", *command, "-m", "grpo_cot.training.launch", str(arguments)],
            env=environment | {"PET_SIGNALS_TO_HANDLE": "SIGINT"}, stderr=stream,
        )  # fmt: skip
        _wait_for(launched, told)
    if refused := refusal.read_text(encoding="utf-8", errors="ignore").strip():
        raise InputError(refused)
    if launched.returncode and told() and "Signal 15 (SIGTERM)" in log.read_text(encoding="utf-8", errors="replace"):
        raise InputError(
            "the system told this training to end (SIGTERM) before its first step or between two phases; start again, "
            "and it goes on from its last checkpoint"
        )
    if launched.returncode:
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
        raise InputError(
            f"{log}: a process of the training failed, which ended all {settings['num_processes']}; what they said "
            "stands above; start again, and training goes on from the last whole checkpoint"
        )
    return scratch / "result"


def _wait_for(launched: psutil.Popen, told: Callable[[], bool]) -> None:
    """Until the launcher ends. What this process is told, it tells the launcher's processes, again and again: they do
    not hear it while they start."""
    while launched.poll() is None:
        if told():
            with suppress(psutil.NoSuchProcess):
                for process in launched.children():
                    process.terminate()
        time.sleep(0.5)


def main() -> None:
    """One process of the training; the only argument is the file of arguments that the parent wrote."""
    # The launcher's standard error is the log, its standard output the user's.
    os.dup2(*((sys.stdout.fileno(), sys.stderr.fileno()) if MAIN else (sys.stderr.fileno(), sys.stdout.fileno())))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the launcher does not hear it, which is inherited
    threading.Thread(target=_end_with_callers, daemon=True).start()
    recipe, prompts, base, seed, scratch, inputs, refusal = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        train_phases(recipe, *read_prompts(prompts), base, seed, scratch, inputs)
    except Exception as error:
        if not (sentence := str(error) if isinstance(error, InputError) else machine_error(error)):
            raise
        with refusal.open("r+b") as file:
            file.write(sentence.encode()[:REFUSAL].ljust(REFUSAL))
        sys.exit(1)


def _end_with_callers() -> None:
    """End this process when the launcher or the step is killed: the next run takes the same scratch folder."""
    callers = Callers(nearest=2)
    while callers.alive():
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
