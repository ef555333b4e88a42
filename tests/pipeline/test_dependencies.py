"""dvc.yaml lists what each step really uses: its code, and the sections of its recipe."""

import ast
from pathlib import Path

import pytest
from support import ROOT

from grpo_cot.files import read_yaml

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
                for name in (node.module, *(f"{node.module}.{imported.name}" for imported in node.names)):
                    for candidate in (ROOT / "src" / f"{name.replace('.', '/')}.py", ROOT / "scripts" / f"{name}.py"):
                        if candidate.is_file():
                            waiting.append(candidate)
    return found


@pytest.mark.parametrize("step", STAGES)
def test_a_step_depends_on_exactly_the_code_it_runs(step: str) -> None:
    listed = {ROOT / path for path in STAGES[step]["do"]["deps"] if path.endswith(".py")}
    assert listed == code_of(ROOT / "scripts" / f"{step}.py")


# What each step reads of the recipe, and of what the steps before it left. None: the whole recipe; nothing: none of it.
READS: dict[str, tuple[set[str] | None, set[str]]] = {
    "prepare": ({"prompt"}, {"data/D", "models/M"}),
    "audit": ({"prompt", "rewards", "audit", "model", "quantization", "phases"}, {"prompts", "models/M"}),
    "train": ({"prompt", "rewards", "backend", "model", "quantization", "phases", "accelerate"},
              {"prompts", "audit-passed.json", "models/M"}),
    "check": ({"prompt", "check"}, {"train", "models/M"}),
    "evaluate": ({"prompt", "evaluate"}, {"prompts", "train", "models/M"}),
    "grade": (set(), {"prompts", "eval"}),
    "merge": ({"prompt", "merge"}, {"prompts", "train", "models/M"}),
    "publish": (None, {"prompts", "train", "merged", "merge.json", "grade/metrics.json", "data/D.source.json",
                       "models/M.source.json"}),
    "report": (None, {"prompts", "train", "audit.json", "check.json", "grade/predictions.jsonl", "grade/metrics.json",
                      "merge.json", "published.json", "data/D.source.json",
                      *(f"record/{step}.json" for step in
                        ("prepare", "audit", "train", "check", "evaluate", "grade", "merge", "publish"))}),
}  # fmt: skip


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


@pytest.mark.parametrize("step", READS)
def test_a_step_tracks_the_sections_and_the_files_that_it_reads(step: str) -> None:
    sections, files = READS[step]
    do = STAGES[step]["do"]
    image, *recipe = do["params"]
    assert image == {"docker/images.yaml": ["${item.image}.key"]}
    assert [set(part[RECIPE]) if part[RECIPE] else None for part in recipe] == ([] if sections == set() else [sections])
    names = {"runs/${key}/": "", "${item.dataset}": "D", "${item.base}": "M"}
    listed = set()
    for path in do["deps"]:
        if not path.startswith(("src/", "scripts/")):
            for old, new in names.items():
                path = path.replace(old, new)
            listed.add(path)
    assert listed == files


def test_every_path_that_a_command_names_is_a_dependency_or_an_output() -> None:
    for step, stage in STAGES.items():
        do = stage["do"]
        known = [*do["deps"], *do.get("outs", []), *do.get("metrics", []), *do.get("plots", []), RECIPE, ".cache/"]
        words = do["cmd"].split()
        for word in words[4:]:
            if "/" in word:
                assert any(word.startswith(path) or path.startswith(f"{word}/") for path in known), f"{step}: {word}"
