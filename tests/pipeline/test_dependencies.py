"""dvc.yaml lists what each step really uses: its code, and the sections of its recipe."""

import ast
import sys
from pathlib import Path

import pytest
from support import ROOT

from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.recipe import load_recipe

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]

RECIPE = "experiments/${item.recipe}.yaml"
PACKAGE = ROOT / "src/grpo_cot"
CODE = ("src/", "scripts/", "my_rewards.py")


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, anywhere but for types alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{imported.name}" for imported in node.names)}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
    return names


def code_of(script: Path) -> set[Path]:
    """The script and every file of ours that it imports, directly or not, with the templates beside them."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        found |= {*path.parent.glob("*.jinja"), *path.parent.glob("templates/*.jinja")} & set(PACKAGE.rglob("*.jinja"))
        for name in imported(path):
            candidate = ROOT / "src" / f"{name.replace('.', '/')}.py"
            waiting += [candidate] if candidate.is_file() else []
    return found


def listed_code(step: str) -> list[Path]:
    return [ROOT / path for path in STAGES[step]["do"]["deps"] if path.startswith(CODE)]


@pytest.mark.parametrize("step", STAGES)
def test_a_step_depends_on_the_code_it_runs_and_on_no_other_room(step: str) -> None:
    code, listed = code_of(ROOT / "scripts" / f"{step}.py"), listed_code(step)
    unlisted = [path for path in code if not any(path.is_relative_to(place) for place in listed)]
    assert unlisted == []
    unreached = [place for place in listed if not any(path.is_relative_to(place) for path in code)]
    by_name = step in ("audit", "grade")  # they import the rewards that a recipe names
    assert unreached == ([ROOT / "my_rewards.py"] if by_name else [])


def test_lists_of_code_are_short_and_so_is_dvc_yaml() -> None:
    assert max(len(listed_code(step)) for step in STAGES) <= 12
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 300


def test_a_rooms_face_imports_nothing_but_the_rewards() -> None:
    """The closure above does not follow them, and Unsloth must be imported before trl."""
    faces = [path for path in PACKAGE.rglob("__init__.py") if imported(path) - sys.stdlib_module_names]
    assert faces == [PACKAGE / "rewards/__init__.py"]


def sections_loaded(script: Path) -> set[str] | None:
    """The sections that a script has `load_recipe` leave in the recipe; None: all of them."""
    calls = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    [call] = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "load_recipe"]
    return {ast.literal_eval(argument) for argument in call.args[1:]} or None


def attributes_read(files: set[Path]) -> set[str]:
    """Every attribute that is read anywhere in files: `recipe.phases` reads phases."""
    trees = [ast.parse(path.read_text()) for path in files if path.suffix == ".py"]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


STEPS_OF_A_RECIPE = [step for step in STAGES if "--recipe " in STAGES[step]["do"]["cmd"]]


@pytest.mark.parametrize("step", STEPS_OF_A_RECIPE)
def test_a_step_tracks_the_sections_that_it_can_read(step: str) -> None:
    """A step that reads another section fails: `load_recipe` takes it out. One that it never reads is not listed."""
    image, tracked = STAGES[step]["do"]["params"]
    assert image == {"docker/images.yaml": ["${item.image}.key"]}
    script = ROOT / f"scripts/{step}.py"
    if step == "report":  # the whole file is shown
        assert tracked == {RECIPE: None}
        return
    loaded = sections_loaded(script)
    assert tracked == {RECIPE: None} if loaded is None else set(tracked[RECIPE]) == loaded
    assert (loaded or set()) <= attributes_read(code_of(script))


def test_a_section_that_was_not_asked_for_is_not_there() -> None:
    recipe = load_recipe(ROOT / "experiments/tiny-grpo.yaml", "prompt")
    assert recipe.prompt.system
    with pytest.raises(AttributeError):
        _ = recipe.evaluate


@pytest.mark.parametrize("step", sorted(STAGES.keys() - STEPS_OF_A_RECIPE))
def test_a_step_without_a_recipe_tracks_its_image_alone(step: str) -> None:
    assert [list(part) for part in STAGES[step]["do"]["params"]] == [["docker/images.yaml"]]


@pytest.mark.parametrize("step", ["download", "compare"])
def test_what_belongs_to_no_run_tracks_the_image_cpu(step: str) -> None:
    assert STAGES[step]["do"]["params"] == [{"docker/images.yaml": ["cpu.key"]}]
    assert f"docker/run {step} --image cpu " in STAGES[step]["do"]["cmd"]


def test_a_base_is_made_in_its_own_image_and_pretrained_where_a_gpu_may_be() -> None:
    stage = STAGES["base"]["do"]
    assert stage["params"] == [{"docker/images.yaml": ["${item}.key"]}]
    assert "docker/run base --image ${item} " in stage["cmd"]
    assert stage["meta"]["image"] == "${item}"
    for file in (ROOT / "params.yaml", *(ROOT / "suites").glob("*.yaml")):
        for base, image in read_yaml(file)["bases"].items():
            pretrained = read_yaml(ROOT / f"sources/bases/{base}.yaml")["kind"] == "pretrained"
            assert image == ("cuda" if pretrained else "cpu"), (file, base)


@pytest.mark.parametrize("step", STAGES)
def test_a_step_says_what_it_asks_of_a_scheduler_in_each_image_that_it_may_run_in(step: str) -> None:
    asked = read_yaml(ROOT / "workflow/resources.yaml")
    meta = STAGES[step]["do"]["meta"]
    for image in meta.keys() - {"image"}:
        assert meta[image] == f"${{{image}.{step}}}"
        assert all(word.split("=")[0] in ("threads", "mem_mb", "runtime", "gpu") for word in asked[image][step].split())


def test_every_path_that_a_command_names_is_a_dependency_or_an_output() -> None:
    for step, stage in STAGES.items():
        do = stage["do"]
        known = [*do["deps"], *do.get("outs", []), *do.get("metrics", []), *do.get("plots", []), RECIPE, ".cache/"]
        words = do["cmd"].split()
        for word in words[4:]:
            if "/" in word:
                assert any(word.startswith(path) or path.startswith(f"{word}/") for path in known), f"{step}: {word}"
