"""The backend unsloth: what it refuses before anything loads, what it hands to Unsloth, and what models load like."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from grpo_cot.files import InputError, read_yaml
from grpo_cot.recipes import Recipe

SFT = {"max_steps": 2, "learning_rate": 1e-3, "max_length": 300, "loss_type": "nll"}


def recipe(**changes: Any) -> Recipe:
    """A recipe that Unsloth can train, with sections or (by their dotted path) single settings changed."""
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    content["backend"] = "unsloth"
    content["model"]["dtype"] = content["quantization"]["bnb_4bit_compute_dtype"] = "bfloat16"
    content["phases"][0]["grpo"] |= {"loss_type": "grpo", "bf16": True}
    for path, value in changes.items():
        *folders, name = path.split(".")
        place = content
        for folder in folders:
            place = place[int(folder) if folder.isdigit() else folder]
        place[name] = value
    return Recipe.model_validate(content)


def later(phase: dict[str, Any]) -> list[dict[str, Any]]:
    """The recipe's phase, with another one after it."""
    first = recipe().phases[0].model_dump()
    return [first, {"lora": None, **phase}]


def shared(**settings: Any) -> dict[str, Any]:
    """What makes the recipe sample with Unsloth's vLLM."""
    vllm = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.4} | settings
    return {
        "phases.0.rollouts": {"sync": "shared", "log_probability_gap": 0.1},
        "phases.0.grpo": {name: value for name, value in (GRPO | vllm).items() if value is not None},
    }


GRPO = recipe().phases[0].settings


def test_what_unsloth_can_train_passes_and_other_backends_are_not_asked() -> None:
    from grpo_cot.unsloth_backend import check

    check(recipe(), "r.yaml")
    check(recipe(quantization=None), "r.yaml")
    check(recipe(**shared()), "r.yaml")
    check(recipe(phases=later({"method": "grpo", "rollouts": None, "grpo": GRPO})), "r.yaml")
    check(recipe(backend="transformers", **{"model.dtype": "float32"}), "r.yaml")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"phases.0.lora": None, "quantization": None}, "phases.1.lora is null, but the backend unsloth trains adapt"),
        ({"phases.0.lora": {"r": 4, "target_modules": "all-linear"}}, "phases.1.lora.lora_alpha is missing"),
        ({"model.attn_implementation": "eager"}, "'eager', which the backend unsloth replaces"),
        ({"quantization.bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type is 'fp4'.*expected 'nf4'"),
        ({"quantization.bnb_4bit_use_double_quant": False}, "bnb_4bit_use_double_quant is False.*expected True"),
        ({"quantization.bnb_4bit_compute_dtype": "float32"}, "compute_dtype is 'float32'.*expected 'bfloat16'"),
        ({"quantization": {"load_in_8bit": True}}, "load_in_4bit is None"),
        ({"quantization.bnb_4bit_quant_storage": "bfloat16"}, "bnb_4bit_quant_storage: the backend unsloth does not"),
        ({"phases.0.grpo.bf16": False}, r"phases.1.grpo trains in float32 by its bf16 and fp16.*is bfloat16"),
        ({"model.dtype": "float16", "quantization": None}, "trains in bfloat16 .*dtype is float16"),
        ({"phases.0.grpo.loss_type": "dr_grpo"}, "scale_rewards is 'group', which the backend unsloth switches off"),
        ({"phases.0.grpo.loss_type": "dapo"}, "epsilon_high is missing, and for loss_type 'dapo'"),
        ({"phases.0.grpo.use_adaptive_entropy": True}, "use_adaptive_entropy: the backend unsloth ignores it"),
        (
            {"phases": later({"method": "grpo", "rollouts": None, "grpo": GRPO | {"beta": 0.1}})},
            "phases.2.grpo.beta is 0.1, but in a later phase",
        ),
        (shared(vllm_enable_sleep_mode=True), "vllm_enable_sleep_mode is of an engine that TRL starts"),
        (shared(vllm_gpu_memory_utilization=None), "'vllm_gpu_memory_utilization' is missing"),
        (
            {
                "phases": later(
                    {
                        "method": "dpo", "dpo": SFT | {"beta": 0.1},
                        "samples": {"problems": 2, "count": 2, "batch_size": 2, "sampling": {}},
                    }
                )
            },
            "phases.2.method is 'dpo', which the backend unsloth does not train here; expected sft or grpo",
        ),
        (
            {"phases": later({"method": "sft", "sft": SFT | {"bf16": True, "shuffle_dataset": True}})},
            "phases.2.sft.shuffle_dataset: the backend unsloth ignores it",
        ),
        ({"accelerate": {"num_processes": 2, "distributed_type": "MULTI_GPU"}}, "accelerate must be null"),
    ],
)  # fmt: skip
def test_what_unsloth_would_do_otherwise_is_refused_in_one_sentence(changes: dict[str, Any], says: str) -> None:
    from grpo_cot.unsloth_backend import check

    with pytest.raises(InputError, match=f"^r.yaml: .*{says}"):
        check(recipe(**changes), "r.yaml")


def in_python(*lines: str) -> str:
    """What a fresh process says that runs these lines."""
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def test_without_unsloth_or_a_gpu_the_backend_says_what_to_do() -> None:
    said = in_python(
        "import sys",
        "from grpo_cot.unsloth_backend import REWRITTEN, enable",
        "print('imported early:', sorted(set(REWRITTEN) & sys.modules.keys()))",
        "enable()",
    )
    assert "imported early: []" in said  # Unsloth must come before what it rewrites
    if importlib.util.find_spec("unsloth") is None:
        assert "backend is unsloth, but unsloth is not installed; run the step in the image cuda" in said
    elif not has_gpu():
        assert "backend is unsloth, which needs a GPU (Unsloth cannot find any torch accelerator" in said


def has_gpu() -> bool:
    return "True" in in_python("import torch; print(torch.cuda.is_available())")


def unsloth_source(path: str) -> ast.Module:
    """A module of the installed Unsloth, which cannot be imported without a GPU."""
    found = importlib.util.find_spec("unsloth")
    if found is None or found.origin is None:
        pytest.skip("Unsloth is not installed here; it is in the image cuda")
    return ast.parse((Path(found.origin).parent / path).read_text(encoding="utf-8"))


def method(module: ast.Module, class_name: str, name: str) -> ast.FunctionDef:
    return next(
        function
        for part in module.body
        if isinstance(part, ast.ClassDef) and part.name == class_name
        for function in part.body
        if isinstance(function, ast.FunctionDef) and function.name == name
    )


def test_every_argument_that_unsloth_gets_is_one_of_its_own() -> None:
    from grpo_cot.unsloth_backend import adapter_arguments, base_arguments

    loader = method(unsloth_source("models/loader.py"), "FastLanguageModel", "from_pretrained")
    asked = recipe(**shared())
    given = base_arguments(asked, asked.phases[0], Path("base"), seed=1)
    named = {argument.arg for argument in loader.args.args}
    # The only one that goes through **kwargs: there it is read by this name.
    assert given.keys() - named == {"local_files_only"}
    assert 'kwargs.get("local_files_only"' in ast.unparse(loader).replace("'", '"')
    assert {"dtype"} <= named
    adapter = method(unsloth_source("models/llama.py"), "FastLlamaModel", "get_peft_model")
    given = adapter_arguments(asked, asked.phases[0], seed=1)
    assert given.keys() <= {argument.arg for argument in adapter.args.args}
