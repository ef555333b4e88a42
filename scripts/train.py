"""Step train: run the recipe's phases, resuming where an interrupted run stopped."""

import os
import shutil
from argparse import Namespace
from pathlib import Path

import grpo_cot
from grpo_cot.files import file_hashes, new_directory, read_json, write_json, write_text
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.resuming import Callers, exclusive, scratch_folder
from grpo_cot.step import run
from grpo_cot.training import unsloth as unsloth_backend


def main(args: Namespace) -> str:
    """The trained weights with model.json and summary.json, and the curves as DVC plots."""
    recipe = load_recipe(args.recipe)
    if recipe.backend == "unsloth":
        unsloth_backend.enable()
    # Only now: Unsloth rewrites libraries that these import.
    from grpo_cot.library.settings import check_recipe
    from grpo_cot.models.loading import DEVICE
    from grpo_cot.training.launch import train_in_processes
    from grpo_cot.training.phases import VALIDATION, package_versions, read_prompts, train_phases, verdict

    check_recipe(recipe, args.recipe)
    callers = Callers()
    # Dashboards (report_to) record times, so they live outside the step's outputs.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f".cache/tensorboard/{args.output.parent.name}")
    os.environ.setdefault("WANDB_DIR", ".cache")
    os.environ.setdefault("WANDB_PROJECT", "grpo-cot")
    with exclusive(args.scratch):
        hashes = file_hashes(args.prompts)
        inputs = {
            "prompts_sha256": {name: hashes[name] for name in ("train.jsonl", VALIDATION) if name in hashes},
            "base": read_json(args.base / "base.json"),
        }
        decisive = {
            "inputs": inputs,
            "recipe": recipe.model_dump(
                include={"rewards", "backend", "model", "quantization", "phases", "accelerate"}
            ),
            "chat_template_kwargs": recipe.prompt.chat_template_kwargs,
            "seed": args.seed,
            "packages": package_versions(recipe),
            "base": file_hashes(args.base),
            "code": file_hashes(Path(grpo_cot.__file__).parent),
            "device": DEVICE,
        }
        scratch = scratch_folder(args.scratch, decisive)
        if (scratch / "result/model.json").is_file():
            print("Taking over what an interrupted run had finished.", flush=True)
        if recipe.accelerate is None:
            result = train_phases(recipe, *read_prompts(args.prompts), args.base, args.seed, scratch, inputs)
        else:
            result = train_in_processes(recipe, args.prompts, args.base, args.seed, scratch, inputs)
        logs = {path.parent.name: read_json(path) for path in sorted(result.glob("*/log.json"))}
        said = {name: verdict(log, phase) for (name, log), phase in zip(logs.items(), recipe.phases, strict=True)}
        with new_directory(args.curves) as curves:
            for name, log in logs.items():
                draw(log, curves / name)
        with new_directory(args.output) as output:
            shutil.copytree(result, output, dirs_exist_ok=True)
            write_json(output / "summary.json", {"verdict": said})
        if callers.alive():  # otherwise nobody records this result, and the next run takes it over
            shutil.rmtree(scratch)
    return " ".join(sentence for sentences in said.values() for sentence in sentences)


def draw(log: list[dict[str, float]], folder: Path) -> None:
    """Every logged quantity over the steps, one table each, for `dvc plots`."""
    for name in {name for entry in log for name in entry} - {"step", "epoch"}:
        points = [f"{int(entry['step'])}\t{entry[name]}" for entry in log if name in entry]
        write_text(folder / f"{name}.tsv", "\n".join([f"step\t{name}", *points]) + "\n")


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, prompts=Path, base=Path, seed=int, scratch=Path, curves=Path, output=Path)
