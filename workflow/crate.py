"""`make crate RUN=NAME`: a finished run as an RO-Crate, written from dvc.lock and the steps' records.

The crate (https://www.researchobject.org/ro-crate, profile Process Run Crate 0.5) holds what is small: recipe, sources,
figures, predictions, audit, records, report and dvc.lock. What is large is named by the hash that dvc.lock has: a
folder's is DVC's, the md5 of its list of files.
"""

import argparse
import datetime
import hashlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json, read_yaml
from grpo_cot.params import Run, load_params

ROOT = Path(__file__).parent.parent
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
OF_THE_RUN = ("prepare", "audit", "train", "check", "evaluate", "grade", "merge", "publish", "report")
LARGEST = 20 * 2**20  # bytes of a file that is put into the crate
KINDS = {
    ".json": "application/json", ".jsonl": "application/jsonl", ".yaml": "application/yaml", ".html": "text/html",
    ".py": "text/x-python", ".lock": "application/yaml", ".txt": "text/plain", ".md": "text/markdown",
}  # fmt: skip


def stages_of(name: str, run: Run, lock: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The run's stages in dvc.lock, in the order of the pipeline.

    Raises:
        InputError: one is missing.
    """
    names = [f"download@{run.dataset}", f"base@{run.base}", *(f"{step}@{name}" for step in OF_THE_RUN)]
    missing = [stage for stage in names if stage not in lock["stages"]]
    if missing:
        raise InputError(
            f"dvc.lock: the run {name!r} is not finished, {missing[0]!r} is missing; run `make repro` first"
        )
    return {stage: lock["stages"][stage] for stage in names}


def write_crate(root: Path, name: str, folder: Path) -> int:
    """Write the crate of a run into a new folder; the number of files in it.

    Raises:
        InputError: params.yaml has no such run, it is not finished, or a file is not the one that dvc.lock names.
    """
    runs = load_params(root / "params.yaml", root).runs
    if name not in runs:
        raise InputError(f"params.yaml has no run {name!r}, expected one of: {', '.join(runs)}")
    run = runs[name]
    stages = stages_of(name, run, read_yaml(root / "dvc.lock"))
    crate = ROCrate(version="1.1")  # on which the profile builds
    crate.name = f"grpo-cot: {name}"
    crate.description = (
        f"The run {name}: recipe {run.recipe}, data set {run.dataset}, base {run.base}, seed {run.seed}, with the "
        "hashes of everything that each step read and wrote"
    )
    crate.license = crate.add(ContextEntity(crate, "#licences", {
        "@type": "CreativeWork", "name": "Licences of the pipeline, the data set and the base",
        "description": f"Pipeline: Apache-2.0. Data set {run.dataset}: {_licence(root / f'data/{run.dataset}')}. "
        f"Base {run.base}: {_licence(root / f'models/{run.base}')}.",
    }))  # fmt: skip
    crate.add(ContextEntity(crate, PROFILE, {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}))
    crate.root_dataset["conformsTo"] = {"@id": PROFILE}
    files = _Files(crate, root)
    for file in ("dvc.lock", "dvc.yaml", "params.yaml", f"experiments/{run.recipe}.yaml", "docker/images.yaml",
                 f"sources/datasets/{run.dataset}.yaml", f"sources/bases/{run.base}.yaml"):  # fmt: skip
        files.of(file, None)
    actions = [_action(crate, files, stage, entry) for stage, entry in stages.items()]
    crate.root_dataset["mentions"] = [*actions, *_figures(crate, read_json(root / f"runs/{name}/grade/metrics.json"))]
    crate.root_dataset["datePublished"] = max(action["endTime"] for action in actions)
    crate.write(folder)
    return files.count


def _licence(folder: Path) -> str:
    licence = read_json(folder.with_name(f"{folder.name}.source.json"))["licence"]
    return str(licence.get("name") or licence["id"])


class _Files:
    """The entities of paths, each made once."""

    def __init__(self, crate: Any, root: Path) -> None:
        self._crate, self._root = crate, root
        self._known: dict[str, Any] = {}
        self.count = 0

    def of(self, path: str, entry: Mapping[str, Any] | None) -> Any:
        """A file or a folder; `entry` is its line in dvc.lock, None where it has none."""
        if path not in self._known:
            self._known[path] = self._made(path, entry)
        return self._known[path]

    def _made(self, path: str, entry: Mapping[str, Any] | None) -> Any:
        place = self._root / path
        facts: dict[str, Any] = {"name": path}
        if entry:
            facts |= {"identifier": f"md5:{entry['md5']}", "contentSize": str(entry["size"])}
        if place.is_file() and place.stat().st_size <= LARGEST:
            found = hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest()
            if entry and found != entry["md5"]:
                raise InputError(
                    f"{path} has the md5 {found}, expected {entry['md5']} as in dvc.lock: it was changed since the "
                    "run; run `make repro` first, or take the change back"
                )
            self.count += 1
            kind = KINDS.get(place.suffix, "application/octet-stream")
            if path.startswith("scripts/"):
                facts |= {"@type": ["File", "SoftwareSourceCode"], "version": facts["identifier"]}
            return self._crate.add_file(place, path, properties={**facts, "encodingFormat": kind})
        return self._crate.add(ContextEntity(self._crate, f"#{path}", {"@type": "CreativeWork", **facts}))


def _action(crate: Any, files: _Files, stage: str, entry: Mapping[str, Any]) -> Any:
    """What a stage did: its program, what it read and wrote, when, and on which machine."""
    step = stage.partition("@")[0]
    script = f"scripts/{step}.py"
    inputs = {part["path"]: files.of(part["path"], part) for part in entry["deps"]}
    outputs = [files.of(part["path"], part) for part in entry["outs"]]
    program = inputs[script]
    [record] = [part["path"] for part in entry["outs"] if "record/" in part["path"]]
    ran = read_json(files._root / record)
    begun = datetime.datetime.fromisoformat(ran["started"])
    where = ran["image_id"] or f"{ran['engine']}, Python {ran['python']}"
    facts = {
        "name": f"{stage}: {entry['cmd'].split(' --')[0]}", "startTime": begun.isoformat(),
        "endTime": (begun + datetime.timedelta(seconds=ran["seconds"])).isoformat(timespec="seconds"),
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "description": f"On {ran['processor']} ({where}), {ran['seconds']:.0f} s, {ran['peak_memory_mib']} MiB at most",
    }  # fmt: skip
    read = [entity for path, entity in inputs.items() if path != script] + list(_parameters(crate, stage, entry))
    return crate.add_action(program, identifier=f"#{stage}", object=read, result=outputs, properties=facts)


def _parameters(crate: Any, stage: str, entry: Mapping[str, Any]) -> Iterator[Any]:
    """The parameters that dvc.lock has for a stage, as one value each."""
    for file, values in (entry.get("params") or {}).items():
        for name, value in values.items():
            facts = {"@type": "PropertyValue", "name": f"{file}: {name}", "value": str(value)}
            yield crate.add(ContextEntity(crate, f"#{stage}-{file}-{name}", facts))


def _figures(crate: Any, metrics: Mapping[str, Any]) -> Iterator[Any]:
    """The accuracies of the main set, with their intervals and n."""
    for model in ("base", "trained"):
        for key in ("strict_accuracy", "lenient_accuracy"):
            if figure := metrics[model].get(key):
                facts = {
                    "@type": "PropertyValue", "name": f"{key.replace('_', ' ')} of {model} on {metrics['set']}",
                    "value": f"{figure['value']:.4f}", "minValue": f"{figure['low']:.4f}",
                    "maxValue": f"{figure['high']:.4f}", "description": f"n = {metrics['n']}; 95 % Wilson interval",
                }  # fmt: skip
                yield crate.add(ContextEntity(crate, f"#{model}-{key}", facts))


def main() -> None:
    """Write the crate, in the place of an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    name = parser.parse_args().run
    folder = ROOT / f"reports/crates/{name}"
    half = folder.with_suffix(".new")
    shutil.rmtree(half, ignore_errors=True)
    try:
        count = write_crate(ROOT, name, half)
    except InputError as error:
        sys.exit(f"crate: {error}")
    shutil.rmtree(folder, ignore_errors=True)
    half.rename(folder)
    print(f"crate: {count} files and their provenance in {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
