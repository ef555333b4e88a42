"""Clear up after a run that was killed (`make recover`): stop what it left running, mend what it left half-written.

A killed dvc leaves its command running, a killed docker client its container, a killed Snakemake its jobs. They are
stopped here, found by this checkout's path. Then the same command as before goes on: finished stages stay finished, and
what was lost of dvc.lock comes back from DVC's run cache without running anything.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from checkout import check_checkout
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo

from grpo_cot.common.errors import InputError

ROOT = Path(__file__).parent.parent.resolve()
# What a leftover process runs, as the script or the module after `python`, or as the program itself.
OURS = {"dvc", "stage.py", "snakemake", "launch.py", "grpo_cot.training.launch", "accelerate.commands.launch"}
OURS |= {path.name for path in ROOT.glob("scripts/*.py")}
LABEL = f"grpo-cot.checkout={ROOT}"
OUTPUTS = ("data", "models", "runs", "published", "comparisons", "record")


def containers() -> Iterator[tuple[str, str]]:
    """Engine and id of every container of this checkout on this machine."""
    for engine in ("docker", "podman"):
        if shutil.which(engine):
            listed = subprocess.run(
                [engine, "ps", "--all", "--quiet", "--filter", f"label={LABEL}"], capture_output=True, text=True
            )
            yield from ((engine, identifier) for identifier in listed.stdout.split())


def cluster_jobs() -> list[str]:
    """The Slurm jobs that a Snakemake submitted from this checkout (it comments each with its rule)."""
    if not shutil.which("squeue"):
        return []
    listed = subprocess.run(["squeue", "--me", "--noheader", "--format", "%i|%k|%Z"], capture_output=True, text=True)
    jobs = (line.split("|", 2) for line in listed.stdout.splitlines())
    return [
        identifier
        for identifier, comment, folder in jobs
        if comment.startswith("rule_") and Path(folder).resolve() == ROOT
        if identifier != os.environ.get("SLURM_JOB_ID")
    ]


def is_ours(process: psutil.Process) -> bool:
    """Whether a process is dvc, Snakemake, the launcher, a step or an engine's client, at work in this checkout."""
    words = process.cmdline()
    if LABEL in words:
        return True
    program = Path(words[0]).name if words else ""
    if program.startswith("python"):
        program = next((Path(word).name for word in words[1:] if not word.startswith("-")), "")
    return program in OURS and Path(process.cwd()).is_relative_to(ROOT)


def processes() -> list[psutil.Process]:
    """What a killed run left behind; not this process and its callers."""
    mine = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended, or belongs to somebody else
            if process.pid not in mine and is_ours(process):
                found.append(process)
    return found


def stop() -> int:
    """Stop all of it; how many there were."""
    stopped = 0
    # A killed parent may have started another child meanwhile: look until there is none.
    while running := processes():
        for process in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(running, timeout=10)
        stopped += len(running)
    for job in cluster_jobs():
        subprocess.run(["scancel", "--full", "--signal", "KILL", job], capture_output=True)
        stopped += 1
    for engine, container in containers():
        subprocess.run([engine, "rm", "--force", container], capture_output=True)
        stopped += 1
    return stopped


def mend() -> list[str]:
    """Put right what a process may have been killed while writing; what was done, one phrase each."""
    done = []
    (ROOT / ".dvc/tmp/rwlock").unlink(missing_ok=True)  # its holders are dead
    lock = ROOT / "dvc.lock"
    try:
        with Repo(str(ROOT)) as repo:
            Lockfile(repo, str(lock)).load()
        whole = not lock.exists() or lock.stat().st_size > 0
    except DvcException:
        whole = False
    if not whole:
        committed = subprocess.run(["git", "show", "HEAD:./dvc.lock"], cwd=ROOT, capture_output=True)
        lock.unlink()
        if committed.returncode == 0:
            lock.write_bytes(committed.stdout)
            done.append("dvc.lock was half-written: the committed one is back, the run cache has the rest")
        else:
            done.append(
                "dvc.lock was half-written, and git has no earlier one: it is removed, and finished stages come back "
                "from the run cache; of those in an archive, unpack its dvc.lock again"
            )
    for folder in OUTPUTS:
        for path in sorted((ROOT / folder).rglob(".*.tmp")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            done.append(f"removed {path.relative_to(ROOT)}")
    return done


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        check_checkout(ROOT)  # where DVC cannot work it cannot tell a whole dvc.lock from a broken one either
    except InputError as error:
        sys.exit(f"recover: {error}")
    count = stop()
    for phrase in mend():
        print(f"recover: {phrase}")
    print(f"recover: stopped {count} leftover processes, containers and jobs; the same command as before goes on")
