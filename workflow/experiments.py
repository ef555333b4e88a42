"""The trials of `dvc exp` beside the checkout, on the same problems."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, read_jsonl
from grpo_cot.grading.comparison import compare

EXPERIMENT = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]+)/")  # of the commit that it was tried on


def experiments(root: Path) -> list[dict[str, Any]]:
    """A comparison of each experiment with the checkout, for every run that it answers otherwise.

    Each has what comparisons/C.json has, with the checkout as `a` and the experiment as `b`, and beside it its `name`,
    the `run`, and `settings`: a line for each that is not the checkout's. An experiment that failed, that waits in the
    queue, that ended before the grades, or that was asked other problems is left out.

    Raises:
        InputError: DVC cannot list the experiments.
    """
    references = ["git", "for-each-ref", "--format=%(refname)", "refs/exps/"]
    names = subprocess.run(references, cwd=root, capture_output=True, text=True, check=False).stdout  # "" without git
    commits = sorted({first + rest for first, rest in EXPERIMENT.findall(names)})
    if not commits:
        return []
    # Of these commits alone: with `--all-commits` DVC reads the settings of each in git's history.
    chosen = [part for commit in commits for part in ("--rev", commit)]
    show = [sys.executable, "-m", "dvc", "exp", "show", "--json", *chosen]
    shown = subprocess.run(show, cwd=root, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise InputError(f"`dvc exp show` failed: {shown.stderr.strip()}")
    workspace, *bases = json.loads(shown.stdout)
    ours = dict(_settings(workspace["data"]["params"]))
    found = []
    for commit, tried in ((base["rev"], tried) for base in bases for tried in base["experiments"] or ()):
        newest = tried["revs"][0]
        if newest["data"] is None:
            continue
        theirs = dict(_settings(newest["data"]["params"]))
        settings = [
            f"{key}: {ours.get(key, 'absent')} → {theirs.get(key, 'absent')}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
        before = dict(_answers(root, commit))
        for name, answers in _answers(root, newest["rev"]):
            own = read_jsonl(root / f"runs/{name}/grade/predictions.jsonl")
            # What it did not grade anew are the answers of its commit, given under other settings than its own.
            if answers in (own, before.get(name)):
                continue
            try:
                comparison = compare(own, answers)
            except InputError:  # other problems
                continue
            found.append({"name": tried["name"], "run": name, "settings": settings, **comparison})
    return found


def _answers(root: Path, revision: str) -> Iterator[tuple[str, list[Row]]]:
    """The graded answers of a revision to the problems of each run that the checkout has, where DVC has them."""
    from dvc.api import DVCFileSystem  # takes a second, and most checkouts have no experiment

    files = DVCFileSystem(str(root), rev=revision)
    for path in sorted(root.glob("runs/*/grade/predictions.jsonl")):
        try:
            lines = files.read_text(path.relative_to(root).as_posix()).split("\n")  # a text may hold other line ends
        except FileNotFoundError:  # it stopped before, or `dvc gc` took them
            continue
        yield path.parts[-3], [json.loads(line) for line in lines if line]


def _settings(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each single setting of DVC's parameters, as FILE:KEY.KEY and its value."""

    def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        entries = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        if not entries:
            yield name, value
        for key, inner in entries.items():
            yield from leaves(f"{name}.{key}", inner)

    for file, content in params.items():
        for key, value in content["data"].items():
            yield from leaves(f"{file}:{key}", value)
