"""The base's answers, kept for every run that would ask the same base the same questions.

The seeds and arms of a study differ in their training alone, and a base's answers are the same to the byte: they are
drawn from random states of their own. So the first run asks, and the others take its answers.
"""

import json
import os
import time
from collections.abc import Collection, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grpo_cot.common.files import file_hash, write_text
from grpo_cot.common.step import device, processor
from grpo_cot.models.description import ModelDescription
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.resuming import KEPT, fingerprint, loaded_code


def shared_file(
    folder: Path, recipe: Recipe, prompts: Path, description: ModelDescription, decisive: dict[str, Any]
) -> Path:
    """Where such answers lie: the name says everything that decides them.

    `decisive` is that of the run, `prompts` prepare's folder.
    """
    questions = {name: file_hash(prompts / f"eval-{name}.jsonl") for name in recipe.evaluate.sets}
    parts = {key: value for key, value in decisive.items() if key not in ("trained", "prompts")} | {
        "questions": questions, "model": description.model.model_dump(), "quantization": description.quantization,
        "kind": description.kind, "thinking": recipe.prompt.thinking, "code": loaded_code(),
        "machine": [device(), processor()],  # which round sums each in its way; nodes of a cluster share the folder
    }  # fmt: skip
    return folder / f"{fingerprint(parts)}.json"


def take(file: Path, finished: MutableMapping[str, Any]) -> None:
    """Add what the file holds to the finished pieces of work, and say so. A file that cannot be read is removed."""
    try:
        pieces = json.loads(file.read_text(encoding="utf-8"))
        os.utime(file)
    except FileNotFoundError:
        return
    except ValueError:
        file.unlink(missing_ok=True)
        return
    print(f"Taking the base's answers from {file}, where an earlier run left them.", flush=True)
    for name, value in pieces.items():
        if name not in finished:
            finished[name] = value


def keep(file: Path, finished: MutableMapping[str, Any], asked: Collection[str]) -> None:
    """Leave the pieces of the base's work of these kinds (`base greedy`) for other runs, none of which waits for it.

    Answers that no run took for a week are removed.
    """
    for other in file.parent.glob("*.json"):
        with suppress(FileNotFoundError):  # another run may have removed it
            if time.time() - other.stat().st_mtime > KEPT:
                other.unlink()
    if not file.is_file():
        pieces = {name: value for name, value in finished.items() if name.rpartition(" ")[0] in asked}
        write_text(file, json.dumps(pieces))
