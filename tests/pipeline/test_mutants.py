"""The mutation tester: which changes it makes, of decorated functions too, and that survivors are told from killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

CODE = '''"""A docstring, which is no code."""

import functools

LIMIT = 3
Number = int


@functools.cache
def least(a: int, b: int) -> int:
    if a is None and b is None:
        raise ValueError("a wording")
    return a if a < b else b


least.calls = 0
'''


@pytest.fixture
def environment() -> dict[str, str]:
    """With mutmut, where `make mutants` installed it."""
    places = [str(ROOT / "workflow"), str(ROOT / ".venv/mutmut"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    found = subprocess.run([sys.executable, "-c", "import mutmut, libcst"], env=environment, capture_output=True)
    if found.returncode:
        pytest.skip("mutmut is not installed here: `make mutants` installs it")
    return environment


def test_one_change_a_mutant_of_decorated_functions_and_constants_too(environment: dict[str, str]) -> None:
    lines = (
        "import mutants",
        f"found = mutants.mutants({CODE!r})",
        "print(*sorted(f'{mutant.line}: {mutant.becomes}' for mutant in found), sep='\\n')",
        "assert all(mutant.source.count('\\n') == 16 for mutant in found)",
    )
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, check=True
    )
    found = ended.stdout.splitlines()
    assert {
        "5: LIMIT = 4", "11: if a is None or b is None:", "11: if a is None:", "11: if b is None:", "11: if False:",
        "13: return a if a <= b else b", "16: least.calls = 1",
    } <= set(found)  # fmt: skip
    assert not [line for line in found for word in ("wording", "docstring", "Number") if word in line]
    assert len(set(found)) == len(found)


def test_survivors_are_those_that_no_test_fails_on(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/toy.py").write_text(CODE)
    (tmp_path / "test_toy.py").write_text(
        "import sys, pytest\nsys.path.insert(0, 'src')\nimport toy\n\n\n"
        "def test_least():\n    assert toy.least(1, 2) == 1 and toy.least(3, 2) == 2\n"
        "    with pytest.raises(ValueError):\n        toy.least(None, None)\n"
    )
    (tmp_path / "docs").mkdir()
    lines = (
        "import sys, mutants",
        "from pathlib import Path",
        f"mutants.ROOT, mutants.SCRATCH = Path({str(tmp_path)!r}), Path({str(tmp_path / 'scratch')!r})",
        "mutants.SUBJECTS, mutants.PAGE = mutants.ROOT / 'mutants.yaml', mutants.ROOT / 'docs/tested.md'",
        "sys.exit(mutants.main())",
    )
    (tmp_path / "mutants.yaml").write_text(
        "toy:\n  tests: [test_toy.py]\n  equivalent:\n"
        "    - {was: LIMIT = 3, becomes: LIMIT = 4, why: nothing reads it}\n"
        "    - {was: return a if a < b else b, becomes: return a, why: this one does not survive}\n"
    )
    table = "| module | mutants | killed | equivalent | score | date |\n| --- | --- | --- | --- | --- | --- |\n"
    (tmp_path / "docs/tested.md").write_text(f"Before.\n\n{table}| `other` | 1 |\n\nAfter.\n")
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], env=environment, capture_output=True, text=True)
    assert "becomes: LIMIT = None" in ended.stdout and "becomes: LIMIT = 4" not in ended.stdout, ended.stderr
    assert "becomes: return a if a <= b else b" in ended.stdout  # of two equals either is the least
    assert "becomes: if False:" not in ended.stdout and "becomes: if a is None or b is None:" in ended.stdout
    assert "listed as equivalent in mutants.yaml: 'return a if a < b else b' -> 'return a'" in ended.stdout
    page = (tmp_path / "docs/tested.md").read_text()
    assert page.startswith(f"Before.\n\n{table}| `other` | 1 |\n| `toy` | ") and page.endswith(" |\n\nAfter.\n")
    assert ended.returncode == 1  # below 90 %
