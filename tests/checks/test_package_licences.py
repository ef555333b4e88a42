"""The page of licences names every direct dependency once, with the licence that the installed package states."""

import re
import sys
from importlib.metadata import Distribution

from support import ROOT

STATED = {
    "Apache-2.0": "Apache", "MIT": "MIT", "BSD-3-Clause": "BSD", "MPL-2.0": "MPL-2.0",
    "MPL-2.0 and MIT": "MPL-2.0 AND MIT",
    "LGPL-3.0-or-later": "LGPL", "Python Software Foundation": "Python Software Foundation",
    "Apache-2.0 with parts under BSD, BSL-1.0 and MIT": "Apache-2.0.*BSL-1.0",
}  # fmt: skip
IN_A_FILE_ALONE = {"axe-playwright-python", "vllm-bnb-plugin"}
PLACES = [str(ROOT / f".venv/{name}") for name in ("lm-eval", "vllm", "provenance", "axe", "mutmut")]


def listed() -> dict[str, str]:
    """The licence of each package on the page."""
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)[2:]
    found = [(name, licence) for licence, names in rows for name in names.split(", ")]
    assert len(dict(found)) == len(found), "a package is named twice"
    return dict(found)


def test_every_direct_dependency_has_its_licence_on_the_page() -> None:
    files = [path for path in (ROOT / "locks").glob("*.in") if "overrides" not in path.name]
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    named = {re.split(r"[\[=#\s]", line)[0] for line in lines if line and not line.startswith(("#", "-"))}
    assert set(listed()) == named


def test_the_installed_packages_state_those_licences() -> None:
    checked = 0
    for name, licence in listed().items():
        for found in Distribution.discover(name=name, path=[*sys.path, *PLACES]):
            facts = found.metadata
            classifiers = [line for line in facts.get_all("Classifier") or () if line.startswith("License")]
            stated = " ".join([facts.get("License-Expression") or "", facts.get("License") or "", *classifiers])
            assert name in IN_A_FILE_ALONE or re.search(STATED[licence], stated), f"{name}: {stated[:200]}"
            checked += 1
    assert checked > 30
