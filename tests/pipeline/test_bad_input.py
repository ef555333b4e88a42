"""Bad input: one sentence, a non-zero exit, and earlier outputs as they were."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from grpo_cot.common.errors import InputError
from grpo_cot.params import load_params
from pipeline.conftest import PARAMS, Project, new_project


def sentence(project: Project, *command: str) -> str:
    """What a failing command says on its last lines; never a traceback."""
    said = project.run(*command, fails=True)
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return new_project(tmp_path_factory.mktemp("bad"))


RECIPE_ERRORS = [
    ("learning_rate: 1.0e-3", "learning_rat: 1.0e-3", "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
    ("learning_rate: 1.0e-3", "learning_rate: '1e-3'", "learning_rate: expected number, found '1e-3' (text)"),
    ("loss_type: dapo", "loss_type: grpoo", "loss_type: expected one of 'grpo'"),
    ("bnb_4bit_quant_type: nf4", "bnb_4bit_quant_type: nf5", "expected one of 'nf4' or 'fp4', found 'nf5'"),
    ("bnb_4bit_use_double_quant", "bnb_4bit_use_double_quants", "did you mean 'bnb_4bit_use_double_quant'?"),
    ("lora_alpha: 8", "lora_alpa: 8", "did you mean 'lora_alpha'?"),
    ("lora_alpha: 8", "lora_alpha: 8\n      bias: nonee", "bias: expected one of 'none', 'all' or 'lora_only'"),
    ("temperature: 0.8", "temprature: 0.8", "unknown key 'temprature'; did you mean 'temperature'?"),
    ("correctness: 1.0", "corectness: 1.0", "'corectness'"),
    ("num_generations: 8", "num_generations: 6", "num_generations is 6, which does not divide the 16 completions"),
    ("max_prompt_length: 256", "max_prompt_lenght: 256", "did you mean 'max_prompt_length'?"),
    ("batch_size: 20", "batch_size: twenty", "evaluate.batch_size: input should be a valid integer, found 'twenty'"),
    ("beta: 0.0", "beta: 0.0\n      seed: 3", "seed: this is set by the run's seed in params.yaml"),
    ("save_steps: 3", "save_steps: 3\n      num_iterations: 2", "save_steps is 3, no multiple of the 2 steps"),
    ("load_in_4bit: true", "load_in_4bit: false", "set one of load_in_4bit and load_in_8bit to true"),
    ("learning_rate: 1.0e-3", "learning_rate: .nan", "learning_rate: expected a finite number"),
    ("max_completion_length: 24", "max_completion_length: 0", "max_completion_length: expected greater than 0"),
    ("correctness: 1.0", "correctness: .inf", "rewards.correctness: expected a finite number"),
    ("optim: adamw_torch", "optim: adamw_torch\n      use_cpu: true", "use_cpu: this is set by the machine"),
    ("do_sample: false", "do_sample: true", "do_sample is true, but accuracies are of greedy answers"),
    ("temperature: 0.8", "temperature: 0.0", "temperature: expected greater than or equal to 0.001"),
    ("lora_alpha: 8", "lora_alpha: 8\n      init_lora_weights: x", "init_lora_weights: expected boolean or one of"),
    ("logging_steps: 1", "logging_steps: 1\n      steps_per_generation: 0", "steps_per_generation"),
    ("sets: [test]", "sets: [test, test]", "names a set twice"),
    ("published_row: null\n", "", "the key 'published_row' is missing"),
    ("loss_type: dapo", "loss_type: [dapo", "not valid YAML"),
    ("repository: null", "repository: me/my--model", "publish.repository is 'me/my--model': the part 'adapter' would"),
]
SOURCE_ERRORS = [  # file, text in it, wrong text, what is said
    ("bases/llama-3.2-1b-instruct", "id: llama3.2", "id: Llama 3.2 Community", "did you mean 'llama3.2'?"),
    ("bases/llama-3.2-1b-instruct", "  name_prefix: Llama-", "  #", "llama3.2 asks for name_prefix: Llama-"),
    ("bases/qwen2.5-3b-instruct", "  name: qwen-research\n", "", "a licence with id 'other' needs its 'name'"),
    ("bases/qwen2.5-3b-instruct", "id: Qwen/", "id: a/b/", "not the id of a repository on the Hub"),
    ("datasets/gsm8k-hub", "licence: mit", "licence: free for all", "licence.id: not a licence of the Hub's list"),
    ("datasets/gsm8k-hub", "{test: {id", "{tset: {id", "'benchmarks' names 'tset', which is no evaluation set"),
]


@pytest.mark.slow
def test_recipe_errors_are_found_before_anything_loads(project: Project) -> None:
    """Each broken recipe gets a file of its own, so that one `make check` finds them all, a sentence each, and takes no
    recipe of the project for a broken one."""
    text = (project.folder / "experiments/short.yaml").read_text()
    for number, (old, new, _) in enumerate(RECIPE_ERRORS):
        assert old in text
        (project.folder / f"experiments/broken-{number:02d}.yaml").write_text(text.replace(old, new))
    for number, (name, old, new, _) in enumerate(SOURCE_ERRORS):
        source = (project.folder / f"sources/{name}.yaml").read_text()
        assert old in source
        (project.folder / f"sources/{name}-{number}.yaml").write_text(source.replace(old, new))
    said = sentence(project, "python", "workflow/validate.py").splitlines()
    assert len([line for line in said if line.startswith("check: ")]) == len(RECIPE_ERRORS) + len(SOURCE_ERRORS), said
    for number, (_, _, expected) in enumerate(RECIPE_ERRORS):
        lines = [line for line in said if f"broken-{number:02d}.yaml" in line]
        assert len(lines) == 1, said
        assert expected in lines[0]
        (project.folder / f"experiments/broken-{number:02d}.yaml").unlink()
    for number, (name, _, _, expected) in enumerate(SOURCE_ERRORS):
        [line] = [line for line in said if f"{name}-{number}.yaml" in line]
        assert expected in line
        (project.folder / f"sources/{name}-{number}.yaml").unlink()


@pytest.mark.slow
def test_an_evaluation_set_that_the_data_set_lacks_is_named_before_anything_runs(project: Project) -> None:
    project.edit("experiments/short.yaml", "sets: [test]", "sets: [tset]")
    said = sentence(project, "python", "workflow/validate.py", "--listed")
    project.edit("experiments/short.yaml", "sets: [tset]", "sets: [test]")
    assert (
        "evaluate.sets names 'tset', which the data set 'few' of the run 'short-a' lacks; did you mean 'test'?" in said
    )


@pytest.mark.slow
def test_a_name_that_the_bases_licence_does_not_allow_is_refused_before_anything_runs(project: Project) -> None:
    project.edit("experiments/short.yaml", "repository: null", "repository: me/model")
    before = (project.folder / "params.yaml").read_text()
    project.edit("params.yaml", "base: tiny", "base: llama-3.2-1b-instruct")
    project.edit("params.yaml", "bases: {tiny", "bases: {llama-3.2-1b-instruct")
    said = sentence(project, "python", "workflow/validate.py", "--listed")
    project.edit("experiments/short.yaml", "repository: me/model", "repository: null")
    (project.folder / "params.yaml").write_text(before)
    assert "publish.repository is 'me/model': the base's licence asks for a name that begins with 'Llama-'" in said


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("recipe: short", "recipe: shrt", "runs.short-a.recipe is 'shrt', but experiments/shrt.yaml does not exist"),
        ("dataset: few", "dataset: fw", "runs.short-a.dataset is 'fw', but sources/datasets/fw.yaml does not exist"),
        ("base: tiny", "base: tny", "runs.short-a.base is 'tny', but sources/bases/tny.yaml does not exist"),
        ("datasets: [few]", "datasets: []", "which 'datasets' lacks"),
        ("b: short-b}", "b: short-c}", "comparisons.a-b.b is 'short-c', which 'runs' lacks"),
        (
            "bases: {tiny: cpu}",
            "bases: {tiny: cpu, nope: cpu}",
            "'bases' lists 'nope', but sources/bases/nope.yaml does not exist",
        ),
        ("short-a: {recipe", "a b;ls: {recipe", "string should match pattern"),
        ("seed: 1}", "sed: 1}", "unknown key 'runs.short-a.sed'; did you mean 'seed'?"),
    ],
)
def test_a_name_in_params_without_its_file_is_named(project: Project, old: str, new: str, says: str) -> None:
    assert old in PARAMS
    path = project.folder / "changed.yaml"
    path.write_text(PARAMS.replace(old, new))
    with pytest.raises(InputError, match=re.escape(says)):
        load_params(path, project.folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["{}", '{"question": '], "line 2 is not valid JSON"),
        ([], "the file is empty"),
        ([json.dumps({"question": "2 + 3?", "answer": "5"})], "expected one '####'"),
        ([json.dumps({"question": "2 + 3?", "answer": "#### five"})], "expected a number after '####', found 'five'"),
    ],
)
def test_malformed_rows_stop_the_download_and_the_earlier_rows_stay(
    project: Project, tmp_path: Path, lines: list[str], says: str
) -> None:
    output = project.folder / "data/rows"
    output.mkdir(parents=True, exist_ok=True)
    (output / "train.jsonl").write_text("earlier\n")
    text = "".join(f"{line}\n" for line in lines)
    (tmp_path / "rows.jsonl").write_text(text)
    pin = f"{{path: rows.jsonl, sha256: {hashlib.sha256(text.encode()).hexdigest()}}}"
    source = tmp_path / "rows.yaml"
    source.write_text(f"kind: files\nfolder: {tmp_path}\nsplits: {{train: {pin}, test: {pin}}}\nlicence: MIT\n")
    said = sentence(
        project, "docker/run", "download", "--image", "cpu", "--source", str(source), "--output", "data/rows",
        "--provenance", "data/rows.source.json",
    )  # fmt: skip
    assert says in said and len(said.splitlines()) == 1
    assert (output / "train.jsonl").read_text() == "earlier\n"


@pytest.mark.slow
def test_a_limit_that_drops_every_prompt_is_refused_and_dvc_restores_the_earlier_outputs(copy: Project) -> None:
    before = (copy.folder / "runs/short-a/prompts/train.jsonl").read_bytes()
    copy.edit("experiments/short.yaml", "max_prompt_length: 256", "max_prompt_length: 60")
    said = sentence(copy, "make", "--assume-old=.venv/.ready", "repro")
    assert "prompt.max_prompt_length is 60, and every prompt of the split" in said
    assert (copy.folder / "runs/short-a/prompts/train.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_corrupt_base_model_is_one_sentence(copy: Project) -> None:
    weights = copy.folder / "models/tiny/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    said = sentence(
        copy, "docker/run", "audit", "--image", "cpu", "--recipe", "experiments/short.yaml", "--prompts",
        "runs/short-a/prompts", "--base", "models/tiny", "--seed", "1", "--output",
        "runs/short-a/audit.json", "--gate", "gate.json",
    )  # fmt: skip
    assert "models/tiny: the model cannot be loaded, its files are corrupt or incomplete" in said


@pytest.mark.slow
def test_a_base_whose_file_is_not_the_pinned_one_is_refused(project: Project) -> None:
    asset = project.folder / "assets/tiny/model/config.json"
    before = asset.read_text()
    asset.write_text(before + " ")
    said = sentence(
        project, "docker/run", "base", "--image", "cpu", "--source", "sources/bases/tiny.yaml", "--output",
        "models/tiny", "--provenance", "x.json", "--scratch", ".cache/base/tiny",
    )  # fmt: skip
    asset.write_text(before)
    assert "config.json has sha256" in said and "not the pinned file" in said


@pytest.mark.slow
def test_a_published_reward_is_stopped_as_broken_unless_allowed(copy: Project) -> None:
    audit = (
        "docker/run", "audit", "--image", "cpu", "--recipe", "experiments/short.yaml", "--prompts",
        "runs/short-a/prompts", "--base", "models/tiny", "--seed", "1", "--output", "audit.json", "--gate", "gate.json",
    )  # fmt: skip
    copy.edit("experiments/short.yaml", "xml_count: 0", "published_strict_format: 0.5")
    said = sentence(copy, *audit)
    assert "the reward 'published_strict_format' is broken: it does not pay 0.0: reasoning on several lines" in said
    copy.edit("experiments/short.yaml", "allow: []", "allow: [published_strict_format]")
    assert "WARNING: published_strict_format is broken and allowed" in copy.run(*audit)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_training_goes_on_when_there_is_room(copy: Project) -> None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small tmpfs needs root")
    scratch = copy.folder / ".cache/train/short-a"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(scratch)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this container may not mount a tmpfs")
    train = (
        "docker/run", "train", "--image", "cpu", "--recipe", "experiments/short.yaml", "--prompts",
        "runs/short-a/prompts", "--base", "models/tiny", "--seed", "1", "--scratch", ".cache/train/short-a", "--curves",
        "curves", "--output", "trained",
    )  # fmt: skip
    try:
        said = sentence(copy, *train)
        assert "no space left on the device for a checkpoint" in said
        assert not (copy.folder / "trained").exists()
        subprocess.run(["mount", "-o", "remount,size=50m", str(scratch)], check=True)
        copy.run(*train)
    finally:
        subprocess.run(["umount", str(scratch)], check=True)
    assert (copy.folder / "trained/model.json").is_file()
