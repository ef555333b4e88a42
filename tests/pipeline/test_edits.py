"""An edit makes stale the stages that use the edited file, and no other. The edits are real; DVC says what is stale."""

import json

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


@pytest.mark.parametrize(("path", "steps"), EDITS.items(), ids=EDITS.keys())
def test_an_edit_makes_stale_the_stages_that_use_the_file(finished: Project, path: str, steps: set[str]) -> None:
    file = finished.folder / path
    before = file.read_bytes()
    file.write_bytes(before + b"\n")
    try:
        stale = json.loads(finished.run("dvc", "status", "--json"))
    finally:
        file.write_bytes(before)
    assert {stage.split("@")[0] for stage in stale} == steps


def test_bytecode_makes_nothing_stale(finished: Project) -> None:
    finished.run("env", "-u", "PYTHONDONTWRITEBYTECODE", "python", "-c", "import grpo_cot.grading.grade")
    assert list((finished.folder / LIBRARY / "grading").glob("__pycache__/*.pyc"))
    assert json.loads(finished.run("dvc", "status", "--json")) == {}


def test_an_edited_template_reruns_the_report_alone(copy: Project) -> None:
    copy.edit(f"{LIBRARY}/reporting/templates/report.html.jinja", "<h2>Before and after</h2>", "<h2>Transcripts</h2>")
    assert set(copy.repro()) == {"report@short-a", "report@short-b"}
    assert "<h2>Transcripts</h2>" in (copy.folder / "runs/short-a/report.html").read_text()
