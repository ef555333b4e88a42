"""An edit makes stale the stages that use the edited file, and no other. The edits are real; DVC says what is stale."""

import json
from pathlib import PurePath

import pytest

from pipeline.conftest import Project

pytestmark = pytest.mark.slow
LIBRARY = "src/grpo_cot"
EDITS = {
    f"{LIBRARY}/grading/lenient.py": {"grade", "compare"},
    f"{LIBRARY}/answers.py": {"audit", "train", "grade", "compare"},
    f"{LIBRARY}/rewards/ours.py": {"audit", "train", "grade"},
    f"{LIBRARY}/prompts.py": {"prepare", "check"},
    f"{LIBRARY}/library/values.py": {"audit", "check", "evaluate"},  # an allowed key
    f"{LIBRARY}/rewards/groups.py": {"audit", "train", "grade"},
    f"{LIBRARY}/checks/rules.py": {"audit"},  # an error's words
    f"{LIBRARY}/checks/golden.py": {"audit"},
    f"{LIBRARY}/params.py": set(),
    f"{LIBRARY}/transcripts.py": {"check"},
    f"{LIBRARY}/memory/estimate.py": set(),  # make plan
    f"{LIBRARY}/memory/plan.py": set(),
    f"{LIBRARY}/reporting/templates/report.html.jinja": {"report"},
    f"{LIBRARY}/publishing/card.md.jinja": {"publish"},
    f"{LIBRARY}/training/methods/dpo.py": {"train"},
    f"{LIBRARY}/evaluation/likelihood.py": {"evaluate"},
    f"{LIBRARY}/merging/parity.py": {"merge"},
    f"{LIBRARY}/data/rows.py": {"download"},
    "workflow/resources.yaml": set(),
}  # fmt: skip


def test_edits_make_stale_the_stages_that_use_the_files(finished: Project) -> None:
    """All edits at once: of each stale stage DVC names the changed dependencies."""
    before = {path: (finished.folder / path).read_bytes() for path in EDITS}
    for path, content in before.items():
        (finished.folder / path).write_bytes(content + b"\n")
    try:
        stale = json.loads(finished.run("dvc", "status", "--json"))
    finally:
        for path, content in before.items():
            (finished.folder / path).write_bytes(content)
    using: dict[str, set[str]] = {path: set() for path in EDITS}
    for stage, changes in stale.items():
        changed = [dependency for change in changes for dependency in change.get("changed deps", {})]
        assert changed, (stage, changes)
        for path in EDITS:
            if any(PurePath(path).is_relative_to(dependency) for dependency in changed):
                using[path].add(stage.split("@")[0])
    assert using == EDITS


def test_bytecode_makes_nothing_stale(finished: Project) -> None:
    finished.run("env", "-u", "PYTHONDONTWRITEBYTECODE", "python", "-c", "import grpo_cot.grading.grade")
    assert list((finished.folder / LIBRARY / "grading").glob("__pycache__/*.pyc"))
    assert json.loads(finished.run("dvc", "status", "--json")) == {}


def test_an_edited_template_reruns_the_report_alone(copy: Project) -> None:
    copy.edit(f"{LIBRARY}/reporting/templates/report.html.jinja", "<h2>Before and after</h2>", "<h2>Transcripts</h2>")
    assert set(copy.repro()) == {"report@short-a", "report@short-b"}
    assert "<h2>Transcripts</h2>" in (copy.folder / "runs/short-a/report.html").read_text()
