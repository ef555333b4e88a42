"""The pipeline as Snakemake sees it: DVC's own stages, what each waits for, its resources, and which must run.

Four names of DVC used here are no documented interface: `Repo.index.graph`, `Stage.changed`, `Stage.meta` and
`Stage.addressing`. DVC is pinned exactly, and tests/pipeline/engines/test_snakemake.py fails when one of them goes.
"""

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import networkx
from checkout import check_checkout
from dvc.lock import LockError
from dvc.repo import Repo

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json, read_yaml, write_json
from grpo_cot.common.machine import hold

FOLDER = Path(".cache/snakemake")
PLAN = FOLDER / "plan.json"
DVC = Path(sys.executable).with_name("dvc")


@dataclass(frozen=True)
class Job:
    """A stage to run: the jobs that it waits for, what it asks of the scheduler, and DVC's options for it."""

    after: list[str]
    resources: dict[str, int]
    options: str


@dataclass(frozen=True)
class Survey:
    """The jobs to run, and files that are missing here: those that they read, with the stages that make them, and the
    outputs of a failed stage, which are in the cache. `repeatable` are stages that wait for no other and give the same
    bytes at once."""

    plan: dict[str, Job]
    missing: dict[str, str]
    set_aside: list[str]
    repeatable: set[str]


def resources(meta: dict[str, str], torch_threads: int | None = None) -> dict[str, int]:
    """`threads`, `mem_mb` (MB), `runtime` (minutes), `gpu`: what a stage's `meta` says under its image's name.

    A step in the image `cpu` that asks for more than one thread has weights, and then gets those that its recipe gives
    torch (`torch_threads`).
    """
    image = meta.get("image", "")
    words = meta.get(image, "").split()
    asked = {"threads": 1, **{name: int(value) for name, value in (word.split("=") for word in words)}}
    return asked | {"threads": torch_threads} if image == "cpu" and asked["threads"] > 1 and torch_threads else asked


def torch_threads(stage: Any) -> int | None:
    """What the recipe of a stage gives torch on a CPU; None where it has no recipe."""
    recipes = [Path(dep.def_path) for dep in stage.deps if dep.def_path.startswith("experiments/")]
    return int(read_yaml(recipes[0])["model"]["threads"]) if recipes else None


def make_plan(*, rehearsal: bool) -> dict[str, Job]:
    """The stages that are stale and all that follow them, in an order that can run.

    What they read of other stages and is missing here (a fresh clone) is pulled first, unless it is a `rehearsal`. What
    the remote does not give is made again where that is soon done and gives the same bytes: data, and bases that are
    not pretrained here. A training is not: it may take a week, and the remote may be back in an hour.

    Raises:
        InputError: this is no whole checkout, params, a recipe or a source is invalid, a file is missing here and in
            the remote, or an earlier run is still at work.
    """
    check_checkout(Path.cwd())
    survey = _survey()
    if survey.plan:
        _validate()
    if rehearsal:
        return survey.plan
    if survey.set_aside:
        subprocess.run([DVC, "--wait-for-lock", "checkout", "--quiet", *survey.set_aside])
    lost = _pull(survey.missing)
    again = survey.repeatable.intersection(lost.values())
    if kept := {path: stage for path, stage in lost.items() if stage not in again and stage not in survey.plan}:
        raise InputError(
            f"{', '.join(kept)}: missing here and in the remote, or the remote cannot be reached; `dvc repro "
            f"{' '.join(dict.fromkeys(kept.values()))}` makes them again"
        )
    if not again:
        return survey.plan
    files = ", ".join(path for path, stage in lost.items() if stage in again)
    print(f"snakemake: {files}: not got from a remote; made again by {', '.join(sorted(again))}", file=sys.stderr)
    return _survey(again).plan


def _survey(again: Collection[str] = ()) -> Survey:
    """What there is to run, with the stages that are to be made `again` although nothing of theirs has changed."""
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        graph = repo.index.graph  # an edge leads from a stage to one that it depends on
        changed: set[Any] = set()
        stale: set[Any] = set()
        planned: list[Any] = []
        for stage in networkx.topological_sort(graph.reverse()):
            upstream = list(graph.successors(stage))
            try:
                if stage.changed(allow_missing=True, upstream=upstream):
                    changed.add(stage)
            except LockError as error:
                raise InputError(
                    f"an earlier run is still at work ({' '.join(str(error).split())[:200]}); wait until it ends, or "
                    "stop it with `make recover`"
                ) from None
            if stage in changed or not stale.isdisjoint(upstream):
                stale.add(stage)
            if stage in stale or stage.addressing in again:
                planned.append(stage)
        names = {stage.addressing for stage in planned}
        return Survey(
            plan={
                stage.addressing: Job(
                    after=sorted(other.addressing for other in graph.successors(stage) if other.addressing in names),
                    resources=resources(stage.meta or {}, torch_threads(stage)),
                    options="--force" if stage.addressing in again else "",
                )
                for stage in planned
            },
            missing={
                dep.def_path: producer.addressing
                for stage in planned
                for dep in stage.deps
                for producer in graph.successors(stage)
                for out in producer.outs
                if producer not in changed and dep.fs_path == out.fs_path and not out.exists
            },
            # A failed stage's outs, which DVC removed before it ran, after the edit that made it fail was taken back.
            set_aside=[
                out.def_path
                for stage in graph
                for out in stage.outs
                if stage not in planned and not out.exists and out.hash_info and not out.changed_cache()
            ],
            repeatable={
                stage.addressing for stage in graph if not any(graph.successors(stage)) and not _pretrains(stage)
            },
        )


def _pretrains(stage: Any) -> bool:
    """Whether a stage pretrains a base."""
    sources = [Path(dep.def_path) for dep in stage.deps if dep.def_path.startswith("sources/bases/")]
    return any(read_yaml(path)["kind"] == "pretrained" for path in sources)


def _validate() -> None:
    environment = os.environ | {"PYTHONPATH": "src"}
    done = subprocess.run(
        [sys.executable, "workflow/validate.py", "--listed"], env=environment, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise InputError(done.stderr.strip())


def _pull(missing: Mapping[str, str]) -> dict[str, str]:
    """Pull these files, and return those that are missing still, with the stages that make them."""
    for path in missing:  # one by one: where one file fails, DVC pulls none
        subprocess.run([DVC, "--wait-for-lock", "pull", path])
    return {path: stage for path, stage in missing.items() if not Path(path).exists()}


def load_plan(*, main: bool, rehearsal: bool) -> dict[str, Job]:
    """The plan: made by the main process, read by those of its jobs, which must not look at files that others write.

    Raises:
        InputError: see make_plan; or another Snakemake is at work in this checkout.
    """
    if not main:
        return {name: Job(**job) for name, job in read_json(PLAN).items()}
    _hold_the_checkout()
    plan = make_plan(rehearsal=rehearsal)
    for name in plan:  # in a rehearsal too: what an earlier plan left there would pass for done
        marker(name).unlink(missing_ok=True)
    if not rehearsal:
        write_json(PLAN, {name: asdict(job) for name, job in plan.items()})
    return plan


def marker(stage: str) -> Path:
    """The file that says that the current plan's job has ended well. DVC's outputs are none of Snakemake's business."""
    return FOLDER / f"{stage}.done"


_held: list[TextIO] = []


def _hold_the_checkout() -> None:
    """One Snakemake a checkout, by an OS lock: it ends with its process, so a killed run needs no unlocking."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    lock = (FOLDER / "lock").open("a")
    if not hold(lock):
        raise InputError("another Snakemake is at work in this checkout; wait until it ends")
    _held.append(lock)
