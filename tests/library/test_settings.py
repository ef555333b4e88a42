"""Recipe sections against the installed libraries: what is allowed here is what the libraries' code knows."""

import importlib
import inspect
import typing

import pytest

pytestmark = pytest.mark.slow
SECTIONS = (
    "grpo", "sft", "dpo", "ppo", "seq2seq", "lora", "quantization", "sampling", "accelerate", "fsdp_config",
    "deepspeed_config",
)  # fmt: skip


@pytest.mark.parametrize("section", ["grpo", "sft", "dpo"])
def test_every_value_that_we_allow_occurs_in_trls_code(section: str) -> None:
    from grpo_cot.library.values import ALLOWED, ALLOWED_IN

    modules = [importlib.import_module(f"trl.trainer.{section}_{part}") for part in ("trainer", "config")]
    code = "".join(map(inspect.getsource, modules))
    checked = [ALLOWED_IN[section]["loss_type"]]
    if section == "dpo":
        checked = list(typing.get_args(checked[0]))
    if section == "grpo":
        names = ("scale_rewards", "importance_sampling_level", "multi_objective_aggregation", "vllm_mode")
        checked += [ALLOWED[name] for name in names]
    for literal in checked:
        for value in typing.get_args(literal):
            assert f'"{value}"' in code or f"'{value}'" in code, value


def test_every_key_that_we_type_belongs_to_a_library() -> None:
    from grpo_cot.library.settings import accepted_keys
    from grpo_cot.library.values import ALLOWED, OWNED

    known = {key for section in SECTIONS for key in accepted_keys(section)}
    assert ALLOWED.keys() <= known
    assert OWNED.keys() - {"task_type"} <= known


def test_the_settings_of_every_recipe_are_checked_and_build_the_libraries_own_objects() -> None:
    from peft import LoraConfig
    from support import ROOT
    from transformers import BitsAndBytesConfig, GenerationConfig

    from grpo_cot.checks.recipe import check_recipe
    from grpo_cot.recipes.recipe import load_recipe

    for path in ROOT.glob("experiments/*.yaml"):
        recipe = load_recipe(path)
        check_recipe(recipe, path)
        for phase in recipe.phases:
            phase.configuration_class()(output_dir="x", use_cpu=True, **phase.settings, **phase.implied)
            if phase.lora:
                LoraConfig(**phase.lora)
        BitsAndBytesConfig(**recipe.quantization or {})
        GenerationConfig(**recipe.evaluate.sampling)


def test_vllm_answers_as_the_base_and_as_the_trained_model_and_as_no_earlier_phase() -> None:
    from support import ROOT

    from grpo_cot.common.errors import InputError
    from grpo_cot.library.settings import check_evaluate
    from grpo_cot.recipes.recipe import load_recipe

    section = load_recipe(ROOT / "tests/pipeline/short.yaml").evaluate
    for engine, before in (("vllm", None), ("transformers", 1)):
        check_evaluate(section.model_copy(update={"engine": engine, "before": before}), "recipe")
    with pytest.raises(InputError, match=r"recipe: evaluate.before is 1, but .* set evaluate.engine to transformers"):
        check_evaluate(section.model_copy(update={"engine": "vllm", "before": 1}), "recipe")
