"""`make mutants`: change the code in small ways, one at a time, and see whether a test fails; what none sees survives.

The changes are mutmut's, and three of ours: a term of an `and` or `or` dropped, the body of an `if` never run, the
filter of a comprehension let all pass. The runner is our own. mutmut's leaves out every decorated function, which are
all rewards and promises, and all constants; cosmic-ray starts Python anew for each mutant, ten seconds where torch is
imported. Here a process imports the installed packages once, and forks for each mutant one that imports the rest.

Annotations, names of types and the wording of errors are not mutated. A mutant whose tests take far longer than usual
is killed.
"""

import argparse
import ast
import datetime
import difflib
import importlib
import importlib.util
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import libcst as cst
from mutmut.mutation.mutators import mutation_operators
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
SUBJECTS = ROOT / "tests/mutants.yaml"
PAGE = ROOT / "docs/tested.md"
TABLE = "| module | mutants | killed | equivalent | score | date |\n| --- | --- | --- | --- | --- | --- |\n"
SCRATCH = ROOT / ".cache/mutants"
LEAST_LIMIT = 30  # seconds that a mutant's tests get, and five times their usual ones
LEAST_SCORE = 0.9


class Mutant(NamedTuple):
    """A module's source with one change: the first changed line's number, and the lines before and after, stripped."""

    source: str
    line: int
    was: str
    becomes: str


def _never_run(node: Any) -> Iterator[Any]:
    yield node.with_changes(test=cst.Name("False"))


def _unfiltered(node: Any) -> Iterator[Any]:
    yield node.with_changes(test=cst.Name("True"))


def _one_term(node: Any) -> Iterator[Any]:
    yield from (node.left, node.right)


OPERATORS = (*mutation_operators, (cst.If, _never_run), (cst.CompIf, _unfiltered), (cst.BooleanOperation, _one_term))


def mutants(source: str) -> list[Mutant]:
    """Every module that differs from this one by one change and compiles, in the order of their lines."""
    module = cst.MetadataWrapper(cst.parse_module(source)).module  # in which no two nodes are the same object
    found = {
        module.deep_replace(node, changed).code: None
        for node in _nodes(module)
        for kind, operator in OPERATORS
        if isinstance(node, kind)
        for changed in operator(node)
    }
    return sorted((_mutant(source, code) for code in found if _compiles(code)), key=lambda mutant: mutant.line)


def _nodes(node: Any) -> Iterator[Any]:
    if not isinstance(node, cst.Annotation | cst.Raise) and not _names_a_type(node):
        yield node
        for child in node.children:
            yield from _nodes(child)


def _names_a_type(node: Any) -> bool:
    """Whether it is an assignment such as `Tensors = Mapping[str, Tensor]`, which serves annotations."""
    target = node.targets[0].target if isinstance(node, cst.Assign) else None
    return isinstance(target, cst.Name) and re.match(r"[A-Z]\w*[a-z]", target.value) is not None


def _compiles(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def _mutant(source: str, code: str) -> Mutant:
    before, after = source.splitlines(), code.splitlines()
    changes = [
        change for change in difflib.SequenceMatcher(None, before, after, False).get_opcodes() if change[0] != "equal"
    ]
    first, last = changes[0], changes[-1]
    texts = (before[first[1] : last[2]], after[first[3] : last[4]])
    return Mutant(code, first[1] + 1, *(" ".join(line.strip() for line in lines) for lines in texts))


class _Mutated(SourceFileLoader):
    """Loads the mutant's source under the module's name and path, and leaves no compiled file behind."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None


def _forked(name: str, source: str, tests: Sequence[str], limit: float, report: Path | None = None) -> int:
    """The process, forked from this one, in which the module has this source; its exit status is that of the tests.

    `report` gets the names of the installed modules that they imported.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _tested(name, source, tests, limit, report)
        finally:
            os._exit(status)
    return child


def _tested(name: str, source: str, tests: Sequence[str], limit: float, report: Path | None) -> int:
    import hypothesis
    import pytest

    signal.setitimer(signal.ITIMER_REAL, limit)
    if report is None:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
    # The same examples for every mutant, however slow the machine is at the moment.
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    sys.meta_path.insert(0, _Mutated(name, _path(name), source))
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={SCRATCH / str(os.getpid())}"]
    status = int(pytest.main([*options, *tests]))
    if report is not None:
        report.write_text("\n".join(_installed_modules()))
    return status


def _path(name: str) -> Path:
    return ROOT / "src" / (name.replace(".", "/") + ".py")


def _installed_modules() -> list[str]:
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return [name for name, file in files.items() if file and "site-packages" in file and name != "__main__"]


def _preload(names: Sequence[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # a module that only another one can import: the fork imports it itself
            continue


def survivors(name: str, subject: dict[str, Any], processes: int) -> tuple[list[Mutant], list[Mutant]]:
    """All mutants of a module, and those that its tests let pass.

    Raises:
        SystemExit: the tests fail without a mutation.
    """
    source, tests = _path(name).read_text(encoding="utf-8"), subject["tests"]
    usual = 0.0
    with tempfile.NamedTemporaryFile("r") as report:
        for place in (Path(report.name), None):  # once to learn what they import, and once with that imported
            begun = time.monotonic()
            if _wait(_forked(name, source, tests, 3600, place)) != 0:
                sys.exit(f"{name}: its tests ({', '.join(tests)}) fail without a mutation: run them with pytest")
            usual = time.monotonic() - begun
            _preload(report.read().split())
    made = mutants(source)
    print(f"{name}: {len(made)} mutants, whose tests take {usual:.0f} s at most", flush=True)
    running: dict[int, Mutant] = {}
    alive = []
    for mutant in (*made, *[None] * processes):
        if running and (mutant is None or len(running) == processes):
            ended, status = os.wait()
            shutil.rmtree(SCRATCH / str(ended), ignore_errors=True)
            before = running.pop(ended)
            if status == 0:
                alive.append(before)
        if mutant is not None:
            running[_forked(name, mutant.source, tests, LEAST_LIMIT + 5 * usual)] = mutant
    return made, sorted(alive, key=made.index)


def _wait(child: int) -> int:
    status = os.waitpid(child, 0)[1]
    shutil.rmtree(SCRATCH / str(child), ignore_errors=True)
    return status


def judged(name: str, subject: dict[str, Any], processes: int) -> tuple[str, float]:
    """The table's row of a module, and its score; says what survives, and what is listed as equivalent and does not."""
    made, alive = survivors(name, subject, processes)
    equivalent = {(entry["was"], entry["becomes"]): entry for entry in subject.get("equivalent") or ()}
    unseen = [mutant for mutant in alive if (mutant.was, mutant.becomes) not in equivalent]
    for mutant in unseen:
        print(f"  survives: line {mutant.line}\n    was:     {mutant.was}\n    becomes: {mutant.becomes}")
    for was, becomes in equivalent.keys() - {(mutant.was, mutant.becomes) for mutant in alive}:
        print(f"  no survivor, but listed as equivalent in {SUBJECTS.name}: {was!r} -> {becomes!r}")
    killed = len(made) - len(alive)
    score = killed / (killed + len(unseen))
    today = datetime.date.today().isoformat()
    print(f"  {killed} killed, {len(alive) - len(unseen)} equivalent, {len(unseen)} survive: {score:.1%}", flush=True)
    row = f"| `{name}` | {len(made)} | {killed} | {len(alive) - len(unseen)} | {100 * score:.1f} % | {today} |"
    return row, score


def main() -> int:
    """Judge the modules named, or all, and write their rows into docs/tested.md; the status is 1 below LEAST_SCORE."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="names or parts of names, as in tests/mutants.yaml; none: all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    subjects = YAML(typ="safe").load(SUBJECTS.read_text(encoding="utf-8"))
    chosen = [name for name in subjects if not arguments.modules or any(part in name for part in arguments.modules)]
    os.chdir(ROOT)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # each mutant has a CPU
    worst = 1.0
    for name in chosen:
        row, score = judged(name, subjects[name], arguments.processes)
        worst = min(worst, score)
        _write(row)
    return 0 if worst >= LEAST_SCORE else 1


def _write(row: str) -> None:
    """Put a module's row in the place of its old one, or at the table's end."""
    above, heading, below = PAGE.read_text(encoding="utf-8").partition(TABLE)
    lines = below.splitlines(keepends=True)
    old = list(itertools.takewhile(lambda line: line.startswith("| "), lines))
    rows = {line.split(" | ")[0]: line for line in (*old, f"{row}\n")}  # one a module, in the order of the first
    PAGE.write_text(above + heading + "".join([*rows.values(), *lines[len(old) :]]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
