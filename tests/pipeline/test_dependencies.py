"""dvc.yaml lists what each step really uses: its code, and the sections of its recipe."""

import ast
from pathlib import Path

import pytest
from support import ROOT

from grpo_cot.files import read_yaml
from grpo_cot.recipes import Recipe

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]

RECIPE = "experiments/${item.recipe}.yaml"


def code_of(script: Path) -> set[Path]:
    """The script and every file of ours that it imports, directly or not."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for candidate in (
                    ROOT / "src" / f"{node.module.replace('.', '/')}.py",
                    ROOT / "scripts" / f"{node.module}.py",
                ):
                    if candidate.is_file():
                        waiting.append(candidate)
    return found


@pytest.mark.parametrize("step", STAGES)
def test_a_step_depends_on_exactly_the_code_it_runs(step: str) -> None:
    listed = {ROOT / path for path in STAGES[step]["do"]["deps"] if path.endswith(".py")}
    assert listed == code_of(ROOT / "scripts" / f"{step}.py")


@pytest.mark.parametrize(
    "step", [step for step in STAGES if (ROOT / "scripts" / f"{step}.py").read_text().count("recipe.")]
)
def test_a_step_tracks_the_recipe_sections_that_its_script_names(step: str) -> None:
    tracked = {}
    for entry in STAGES[step]["do"].get("params", []):
        tracked |= entry if isinstance(entry, dict) else {}
    sections = tracked.get(RECIPE, "absent")
    if sections is None:
        return  # the whole file
    assert sections != "absent"
    script = ast.parse((ROOT / "scripts" / f"{step}.py").read_text())
    named = {
        node.attr
        for node in ast.walk(script)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "recipe"
    } & set(Recipe.model_fields)
    assert named <= set(sections)


def test_every_path_that_a_command_names_is_a_dependency_or_an_output() -> None:
    for step, stage in STAGES.items():
        do = stage["do"]
        known = [*do["deps"], *do.get("outs", []), *do.get("metrics", []), *do.get("plots", []), RECIPE, ".cache/"]
        words = do["cmd"].split()
        for word in words[2:]:
            if "/" in word:
                assert any(word.startswith(path) or path.startswith(f"{word}/") for path in known), f"{step}: {word}"
