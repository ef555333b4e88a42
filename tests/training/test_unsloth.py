"""The backend unsloth: what it refuses before anything loads, what it hands to Unsloth, and what models load like."""

import ast
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from unsloth_recipes import GRPO, SFT, later, recipe, shared

from grpo_cot.common.errors import InputError
from grpo_cot.models.description import ModelDescription
from grpo_cot.recipes.recipe import ModelSection, Recipe, load_recipe


def test_what_unsloth_can_train_passes_and_other_backends_are_not_asked() -> None:
    from grpo_cot.checks.backends.unsloth import check_unsloth

    check_unsloth(recipe(), "r.yaml")
    check_unsloth(recipe(quantization=None), "r.yaml")
    check_unsloth(recipe(**shared()), "r.yaml")
    check_unsloth(recipe(phases=later({"method": "grpo", "rollouts": None, "grpo": GRPO})), "r.yaml")
    check_unsloth(recipe(backend="transformers", **{"model.dtype": "float32"}), "r.yaml")


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
    from grpo_cot.checks.backends.unsloth import check_unsloth

    with pytest.raises(InputError, match=f"^r.yaml: .*{says}"):
        check_unsloth(recipe(**changes), "r.yaml")


def in_python(*lines: str) -> str:
    """What a fresh process says that runs these lines; it finds what this one finds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "\n".join(lines)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def without_a_gpu() -> None:
    """Skip a test of what happens without one, where there is one."""
    if "True" in in_python("import torch; print(torch.cuda.is_available())"):
        pytest.skip("there is a GPU, and this is about what happens without one")


def test_the_backend_is_imported_before_what_unsloth_rewrites() -> None:
    said = in_python(
        "import sys",
        "from grpo_cot.training.unsloth import REWRITTEN",
        "print(sorted(set(REWRITTEN) & sys.modules.keys()))",
    )
    assert said == "[]\n"


@pytest.mark.slow
def test_without_unsloth_or_a_gpu_the_backend_says_what_to_do() -> None:
    without_a_gpu()
    said = in_python("from grpo_cot.training.unsloth import enable", "enable()").splitlines()[-1]
    if importlib.util.find_spec("unsloth") is None:
        assert said.endswith(
            "backend is unsloth, but unsloth is not installed here; run in the image cuda (make images IMAGES=cuda, "
            "GRPO_COT_ENGINE=docker), or set backend to transformers"
        )
    else:
        assert said.endswith(
            "backend is unsloth, which needs a GPU (Unsloth cannot find any torch accelerator? You need a GPU.); run "
            "the step where there is one, or set backend to transformers"
        )


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
    from grpo_cot.training.unsloth import adapter_arguments, base_arguments

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


def compared(wanted: Recipe, number: int, scratch: Path, *, stated: bool = True) -> str:
    """How a phase fares with the trainer that Unsloth puts in TRL's place, on a model of Transformers' and PEFT's.

    Without `stated` its configuration gets the recipe's settings alone.
    """
    from peft import LoraConfig, get_peft_model

    from grpo_cot.models import loading as models
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.training import faithful as effective
    from grpo_cot.training import unsloth as unsloth_backend
    from grpo_cot.training.methods.registry import METHODS, trainer_configuration
    from grpo_cot.training.methods.setup import Setup

    state_defaults = unsloth_backend.explicit
    if not stated:
        unsloth_backend.explicit = lambda kind, settings: dict(settings)
    phase, base = wanted.phases[number], ROOT / "assets/tiny/model"
    try:
        configuration = trainer_configuration(wanted, phase, scratch, 1)
        asked = effective.snapshot(configuration)
        model = models.load_base(base, wanted.model, wanted.quantization)
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **(wanted.phases[0].lora or {})))
        model.max_seq_length = unsloth_backend.sequence_length(wanted, phase)
        rows = [
            {
                "id": str(row), "messages": [{"role": "user", "content": "1 + 1?"}], "gold": "2", "locale": "en",
                "solution": "1 + 1 = 2",
            }
            for row in range(16)
        ]  # fmt: skip
        setup = Setup(wanted, phase, load_tokenizer(base), rows)
        trainer = METHODS[phase.method].trainer(setup, configuration, model, METHODS[phase.method].dataset(setup))
        assert any(kind.__name__.startswith("_Unsloth") for kind in type(trainer).__mro__)
        effective.compare(wanted, phase, asked, trainer)
    except InputError as error:
        return str(error)
    finally:
        unsloth_backend.explicit = state_defaults
    return "as asked"


def tell_how_unsloths_trainers_fare(scratch: Path) -> None:
    """For a process of its own, whose TRL is Unsloth's from here on: one line a case."""
    os.environ |= {"UNSLOTH_COMPILE_LOCATION": str(scratch / "compiled"), "UNSLOTH_DISABLE_STATISTICS": "1"}
    os.environ["UNSLOTH_ALLOW_CPU"] = "1"  # Unsloth's own switch: with it it can be imported without a GPU, ...
    importlib.import_module("unsloth")
    del os.environ["UNSLOTH_ALLOW_CPU"]  # ... but leaves TRL alone
    rewriting = importlib.import_module("unsloth.models.rl")
    rewriting.PatchFastRL(FastLanguageModel=importlib.import_module("unsloth").FastLanguageModel)
    sft = {"method": "sft", "lora": recipe().phases[0].lora, "sft": SFT | {"bf16": True, "report_to": "none"}}
    two = later({"method": "grpo", "rollouts": None, "grpo": GRPO | {"beta": 0.1}})
    paid = {"rewards": {"random": 1.0}}
    for name, wanted, number, stated in (
        ("grpo", recipe(**paid), 0, True),
        ("sft", recipe(**paid, phases=[sft]), 0, True),
        ("unstated", recipe(**paid), 0, False),
        ("dapo", recipe(**paid, **{"phases.0.grpo.loss_type": "dapo"}), 0, False),
        ("dr_grpo", recipe(**paid, **{"phases.0.grpo.loss_type": "dr_grpo"}), 0, True),
        ("precision", recipe(**paid, **{"phases.0.grpo.bf16": False}), 0, True),
        ("reference", recipe(**paid, phases=two), 1, True),
    ):
        print(f"\n{name}: {compared(wanted, number, scratch / name, stated=stated)}")
    from grpo_cot.training.methods.registry import trainer_configuration

    for path in sorted(ROOT.glob("experiments/*.yaml")):
        wanted = load_recipe(path)
        if wanted.backend == "unsloth":
            for phase in wanted.phases:
                trainer_configuration(wanted, phase, scratch, 1)
            print(f"\n{path.name}: as asked")


@pytest.mark.slow
def test_unsloths_real_trainers_are_let_pass_or_found_out(tmp_path: Path) -> None:
    """What it changes when it is asked to train a recipe that `check` refuses, or is not told every default."""
    unsloth_source("__init__.py")
    without_a_gpu()
    said = in_python(
        "from pathlib import Path",
        "import test_unsloth",
        f"test_unsloth.tell_how_unsloths_trainers_fare(Path({str(tmp_path)!r}))",
    )
    found = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    assert found.get("grpo") == "as asked", said[-3000:]
    assert found["sft"] == "as asked"
    assert "grpo.weight_decay asked 0.0, got 0.001" in found["unstated"]
    assert "grpo.epsilon_high asked None, got 0.28" in found["dapo"]
    assert "grpo.mask_truncated_completions asked False, got True" in found["dapo"]
    assert "grpo.scale_rewards asked 'group', got 'none'" in found["dr_grpo"]
    assert "grpo.mixed_precision asked 'no', got" in found["precision"]  # bf16 on a GPU that has it, here fp16
    recipes = {path.name for path in ROOT.glob("experiments/*.yaml") if load_recipe(path).backend == "unsloth"}
    assert {name: found.get(name) for name in recipes} == dict.fromkeys(recipes, "as asked"), said[-3000:]
    assert "grpo.beta's reference asked 'what the phase before left', got 'the base model'" in found["reference"]


@pytest.mark.slow
def test_flash_attention_without_a_gpu_or_without_its_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.models import loading as models

    without_a_gpu()
    settings = ModelSection(dtype="bfloat16", attn_implementation="flash_attention_2", threads=1)
    with pytest.raises(InputError, match="'flash_attention_2', which needs a GPU; use 'sdpa' on a CPU"):
        models.load_base(ROOT / "assets/tiny/model", settings, None)
    monkeypatch.setattr(models, "DEVICE", "cuda")
    with pytest.raises(InputError, match=r"'flash_attention_2', but the package flash-attn \(2.3.3 or newer\) is not"):
        models.load_base(ROOT / "assets/tiny/model", settings, None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
def test_an_adapter_that_unsloth_trained_loads_as_any_other(tmp_path: Path) -> None:
    """Its configuration holds what Unsloth adds, where its base was at that time, and a key of a later version."""
    import torch
    from peft import LoraConfig, get_peft_model

    from grpo_cot.models import loading as models

    folder, section = ROOT / "assets/tiny/model", ModelSection(dtype="float32", attn_implementation="sdpa", threads=2)
    torch.manual_seed(0)
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False)
    trained = get_peft_model(models.load_base(folder, section, None), lora)
    trained.save_pretrained(tmp_path / "01-grpo")
    path = tmp_path / "01-grpo/adapter_config.json"
    of_unsloth = {
        "base_model_name_or_path": "unsloth/another-base-bnb-4bit", "key_of_a_later_version": 1,
        "auto_mapping": {
            "base_model_class": "Qwen2ForCausalLM", "parent_library": "transformers.models.qwen2.modeling_qwen2",
            "unsloth_fixed": True,
        },
    }  # fmt: skip
    path.write_text(json.dumps(json.loads(path.read_text()) | of_unsloth))
    description = ModelDescription(
        kind="adapter", architecture="causal", path="01-grpo", base=str(folder), model=section, quantization=None
    )
    (tmp_path / "model.json").write_text(description.model_dump_json())
    model, tokenizer, _ = models.load(tmp_path / "model.json")
    ids = tokenizer("What is 2 + 3?", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = model(ids).logits
        assert torch.equal(logits, trained.eval()(ids).logits)
        with model.disable_adapter():
            assert not torch.allclose(logits, model(ids).logits)
