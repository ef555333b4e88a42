"""Several processes in one training step: two real ones on the CPU, and what is refused before any starts."""

import copy
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import ROOT

from grpo_cot.checks.rules import check_training_sections
from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.files import read_yaml, write_jsonl
from grpo_cot.recipes.recipe import Recipe

DDP_ON_CPU = {"distributed_type": "MULTI_CPU", "num_processes": 2, "use_cpu": True}
DDP = {"distributed_type": "MULTI_GPU", "num_processes": 2}
FSDP = {
    "distributed_type": "FSDP",
    "num_processes": 2,
    "fsdp_config": {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": True,
        "fsdp_state_dict_type": "FULL_STATE_DICT",
        "fsdp_cpu_ram_efficient_loading": False,
    },
}
ZERO_2 = {"distributed_type": "DEEPSPEED", "num_processes": 2, "deepspeed_config": {"zero_stage": 2}}
ZERO_3 = {
    "distributed_type": "DEEPSPEED",
    "num_processes": 2,
    "deepspeed_config": {"zero_stage": 3, "zero3_init_flag": True, "zero3_save_16bit_model": True},
}


def recipe(accelerate: dict[str, Any] | None, quantization: dict[str, Any] | None = None, **grpo: Any) -> Recipe:
    """The short recipe for two processes that each hold half a group."""
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    content["accelerate"] = copy.deepcopy(accelerate)
    content["model"]["threads"] = 1
    content["quantization"] = quantization
    content["rewards"] = {"random": 1.0}  # always varies, so that every step moves the policy
    content["phases"][0]["grpo"] |= {
        "max_steps": 4, "save_steps": 2, "max_completion_length": 16, "per_device_train_batch_size": 4, **grpo,
    }  # fmt: skip
    made = validated(Recipe, content, "recipe")
    check_training_sections(made, "recipe")
    return made


NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}


def changed(section: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of the section with one key, or `part.key`, set; None takes it out."""
    result = copy.deepcopy(section)
    part = result
    *parts, last = key.split(".")
    for name in parts:
        part = part[name]
    part[last] = value
    if value is None:
        del part[last]
    return result


def test_a_group_may_be_spread_over_the_processes_but_not_cut() -> None:
    recipe(DDP)  # twice 4 completions, groups of 8
    with pytest.raises(InputError, match="num_generations is 8, which does not divide the 4 completions"):
        recipe(None)
    with pytest.raises(InputError, match=r"does not divide the 6 completions .* x accelerate.num_processes x"):
        recipe(DDP, per_device_train_batch_size=3)


@pytest.mark.parametrize("number", [None, 1, "2", True])
def test_the_number_of_processes_is_stated_and_more_than_one(number: object) -> None:
    with pytest.raises(InputError, match=r"accelerate.num_processes is .*, expected a whole number above 1"):
        recipe({**DDP, "num_processes": number})


@pytest.mark.slow
@pytest.mark.parametrize("section", [DDP_ON_CPU, DDP, {**DDP, "gpu_ids": "1,2"}, FSDP, ZERO_2, ZERO_3])
def test_each_kind_is_accepted_by_the_checks_and_by_accelerates_own_class(section: dict[str, Any]) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    from grpo_cot.checks.recipe import check_recipe

    check_recipe(recipe(section), "recipe")
    ClusterConfig(**ClusterConfig.process_config({**copy.deepcopy(section), "compute_environment": "LOCAL_MACHINE"}))


@pytest.mark.slow
@pytest.mark.parametrize("section", [FSDP, ZERO_3])
def test_four_bits_are_sharded_only_in_the_type_of_the_other_weights(section: dict[str, Any]) -> None:
    from grpo_cot.checks.recipe import check_recipe

    check_recipe(recipe(section, {**NF4, "bnb_4bit_quant_storage": "float32"}), "recipe")
    for quantization in (NF4, {**NF4, "bnb_4bit_quant_storage": "bfloat16"}):
        with pytest.raises(InputError, match=r"bnb_4bit_quant_storage must be model.dtype \(float32\)"):
            check_recipe(recipe(section, quantization), "recipe")
    with pytest.raises(InputError, match="cannot shard a base quantized to 8 bits"):
        check_recipe(recipe(section, {"load_in_8bit": True}), "recipe")
    check_recipe(recipe(ZERO_2, NF4), "recipe")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "says"),
    [
        (changed(DDP, "mixed_precison", "no"), "unknown key 'mixed_precison'; did you mean 'mixed_precision'?"),
        (changed(DDP, "distributed_type", "DDP"), "distributed_type: expected one of 'MULTI_CPU', 'MULTI_GPU'"),
        (changed(DDP, "distributed_type", None), "'distributed_type' is missing"),
        (changed(DDP, "num_machines", 2), "num_machines: this is set by the step, which starts its processes on one"),
        (changed(DDP, "mixed_precision", "bf16"), "mixed_precision is 'bf16', but phases.1.grpo trains in 'no'"),
        (changed(DDP, "fsdp_config", {"fsdp_version": 2}), "fsdp_config is given, but distributed_type is MULTI_GPU"),
        (changed(FSDP, "fsdp_config", None), "fsdp_config is missing, but distributed_type is FSDP"),
        (changed(FSDP, "fsdp_config.fsdp_version", None), "'fsdp_version' is missing; expected 2"),
        (changed(FSDP, "fsdp_config.fsdp_version", 1), "fsdp_version: expected one of 2, found 1"),
        (changed(FSDP, "fsdp_config.fsdp_ofload_params", True), "did you mean 'fsdp_offload_params'?"),
        (changed(FSDP, "fsdp_config.fsdp_sharding_strategy", "FULL_SHARD"), "fsdp_version 2 has no such setting"),
        (changed(FSDP, "use_cpu", True), "on CPUs Accelerate shards nothing and does not say so"),
        (changed(ZERO_2, "deepspeed_config.zero_stge", 2), "did you mean 'zero_stage'?"),
        (changed(ZERO_2, "deepspeed_config", {"offload_optimizer_device": "none"}), "'zero_stage' is missing"),
        (changed(ZERO_2, "deepspeed_config.gradient_clipping", 1.0), "this is set by the phase's own max_grad_norm"),
        (changed(ZERO_3, "deepspeed_config.zero3_save_16bit_model", False), "zero3_save_16bit_model must be true"),
    ],
)
def test_a_section_that_cannot_work_is_one_sentence(section: dict[str, Any], says: str) -> None:
    from grpo_cot.checks.recipe import check_recipe

    with pytest.raises(InputError) as refusal:
        check_recipe(recipe(section), "recipe")
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_every_key_that_we_refuse_is_accelerates() -> None:
    from accelerate.utils import DistributedType

    from grpo_cot.library.settings import OWNED_ACCELERATE, accepted_keys

    sections = {section: accepted_keys(section) for section in ("accelerate", "fsdp_config", "deepspeed_config")}
    assert OWNED_ACCELERATE.keys() <= {key for keys in sections.values() for key in keys}
    kinds = sections["accelerate"]["distributed_type"].__args__
    assert set(kinds) <= {kind.value for kind in DistributedType}


@pytest.mark.slow
def test_too_few_gpus_are_counted_before_anything_starts(tmp_path: Path) -> None:
    from grpo_cot.training.launch import train_in_processes

    with pytest.raises(InputError, match=r"accelerate.num_processes is 98, but this machine offers \d+ GPUs"):
        train_in_processes(recipe({**DDP, "num_processes": 98}), tmp_path, tmp_path, 1, tmp_path, {})


def prompts(folder: Path, number: int) -> Path:
    from grpo_cot.problems.generators import problems

    found = problems("train", 3)
    rows = [(str(row), next(found)) for row in range(number)]
    write_jsonl(
        folder / "train.jsonl",
        [
            {
                "id": row, "messages": [{"role": "user", "content": problem.question}], "gold": str(problem.value),
                "locale": "en", "solution": "\n".join(problem.steps),
            }
            for row, problem in rows
        ],
    )  # fmt: skip
    return folder


def train(folder: Path, recipe: Recipe, questions: int = 16) -> Path:
    from grpo_cot.training.launch import train_in_processes

    return train_in_processes(
        recipe, prompts(folder, questions), ROOT / "assets/tiny/model", 1, folder / "scratch", {"seen": "here"}
    )


# The step in a process of its own, which can be killed.
STEP = """
import sys
from pathlib import Path
from test_launch import DDP_ON_CPU, NF4, recipe, train
train(Path(sys.argv[1]), recipe(DDP_ON_CPU, NF4, save_steps=1))
"""


def files(folder: Path) -> dict[str, bytes]:
    result = folder / "scratch/result"
    return {str(path.relative_to(result)): path.read_bytes() for path in result.rglob("*") if path.is_file()}


def wait_for_checkpoint(folder: Path, step: int) -> None:
    checkpoint = folder / f"scratch/checkpoints-01-grpo/checkpoint-{step}"
    deadline = time.monotonic() + 120
    while not ((checkpoint / "trainer_state.json").exists() and zipfile.is_zipfile(checkpoint / "rng_state_1.pth")):
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.02)


def processes_below(step: psutil.Process) -> list[psutil.Process]:
    """The launcher and the two that train."""
    return [
        process for process in step.children(recursive=True)
        if "grpo_cot.training.launch" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """An uninterrupted training by two processes, and the files that it left."""
    folder = tmp_path_factory.mktemp("whole")
    return train(folder, recipe(DDP_ON_CPU, NF4, save_steps=1)), files(folder)


@pytest.mark.slow
def test_two_processes_train_one_adapter(whole: tuple[Path, dict[str, bytes]]) -> None:
    from grpo_cot.models.loading import load

    result, expected = whole
    model, _, description = load(result / "model.json")
    assert description.kind == "adapter"
    assert any(value.any() for name, value in model.named_parameters() if "lora_B" in name)
    steps = [entry for entry in json.loads(expected["01-grpo/log.json"]) if "reward" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    assert all(entry["phantom_advantage"] in (0, 1) for entry in steps)  # both processes' halves are one group
    assert json.loads(expected["01-grpo/configuration.json"])["accelerate"] == DDP_ON_CPU


def started(folder: Path) -> "subprocess.Popen[str]":
    """The step in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}/tests:{ROOT}/tests/training"}
    step = subprocess.Popen(
        [sys.executable, "-c", STEP, folder], env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    return step


def at_work(folder: Path) -> "subprocess.Popen[str]":
    """The step in a process of its own, with its first checkpoint written."""
    step = started(folder)
    wait_for_checkpoint(folder, 1)
    return step


@pytest.mark.slow
@pytest.mark.prove
def test_two_processes_go_on_to_the_byte_whoever_is_killed(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both, killed, (_, expected) = recipe(DDP_ON_CPU, NF4, save_steps=1), tmp_path / "killed", whole
    step = at_work(killed)
    ranks = [process for process in processes_below(psutil.Process(step.pid)) if not process.children()]
    assert len(ranks) == 2
    for process in ranks:
        process.kill()
    said = step.communicate(timeout=60)[0]
    assert "a process of the training failed, which ended all 2; " in said and "start again" in said

    step = at_work(killed)
    wait_for_checkpoint(killed, 2)
    below = processes_below(psutil.Process(step.pid))
    assert len(below) == 3
    step.kill()
    step.wait()
    assert psutil.wait_procs(below, timeout=20)[1] == []

    capfd.readouterr()
    train(killed, both)
    said = capfd.readouterr().out
    assert said.count("Resuming from step ") == 1
    assert int(said.split("Resuming from step ")[1].split()[0]) >= 2
    assert files(killed) == expected


@pytest.mark.slow
@pytest.mark.parametrize("everyone", [False, pytest.param(True, marks=pytest.mark.prove)])
def test_two_processes_told_to_end_leave_a_checkpoint_and_go_on_to_the_byte(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path, everyone: bool
) -> None:
    """The step alone is told, as by `kill`, or each of its processes, as by Slurm."""
    step = at_work(tmp_path)
    below = processes_below(psutil.Process(step.pid))
    for process in [psutil.Process(step.pid), *(below if everyone else ())]:
        process.terminate()
    said = step.communicate(timeout=60)[0]
    assert step.returncode == 1 and said.count("Told to end (SIGTERM)") == 1
    assert "the system told this training to end (SIGTERM): it did so after step " in said, said
    assert psutil.wait_procs(below, timeout=20)[1] == []
    train(tmp_path, recipe(DDP_ON_CPU, NF4, save_steps=1))
    assert files(tmp_path) == whole[1]


@pytest.mark.slow
@pytest.mark.prove
def test_processes_told_to_end_while_they_start_end_at_once(tmp_path: Path) -> None:
    step = started(tmp_path)
    while not (below := processes_below(psutil.Process(step.pid))):
        assert step.poll() is None
        time.sleep(0.05)
    step.terminate()
    said = step.communicate(timeout=60)[0]
    assert step.returncode == 1 and "(SIGTERM) before its first step or between two phases; start again" in said, said
    assert psutil.wait_procs(below, timeout=20)[1] == [] and not list(tmp_path.rglob("checkpoint-*"))


@pytest.mark.slow
def test_what_the_processes_refuse_is_one_sentence_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError) as refusal:
        train(tmp_path, recipe(DDP_ON_CPU, gradient_accumulation_steps=2), questions=1)
    assert str(refusal.value) == "1 training prompts are fewer than the 2 that are asked at once; add rows"
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rewards", "silent"), [pytest.param({"random": 1.0}, False, marks=pytest.mark.prove), ({"correctness": 1.0}, True)]
)
def test_two_processes_ask_once_whether_a_later_phase_can_learn(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], rewards: dict[str, float], silent: bool
) -> None:
    given = recipe(DDP_ON_CPU, NF4, max_steps=1, max_completion_length=2).model_dump()
    [grpo] = given["phases"]
    sft = {
        "max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-4, "max_length": 256, "loss_type": "nll",
        "bf16": False, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
    }  # fmt: skip
    given["phases"] = [{"method": "sft", "lora": grpo["lora"], "sft": sft}, grpo | {"lora": None}]
    both = Recipe.model_validate(given | {"rewards": rewards})
    if silent:
        with pytest.raises(InputError, match=r"^phases\.2: the rewards are silent: in 16 groups"):
            train(tmp_path, both)
        assert capfd.readouterr().err == ""
    else:
        assert (train(tmp_path, both) / "02-grpo/audit.json").is_file()
