"""Recipe sections against the installed libraries: what is allowed here is what the libraries' code knows."""

import inspect
import typing

import pytest

pytestmark = pytest.mark.slow
SECTIONS = ("grpo", "lora", "quantization", "sampling", "accelerate", "fsdp_config", "deepspeed_config")


def test_every_value_that_we_allow_for_grpo_occurs_in_trls_code() -> None:
    from trl.trainer import grpo_config, grpo_trainer

    from grpo_cot.library_settings import ALLOWED

    code = inspect.getsource(grpo_trainer) + inspect.getsource(grpo_config)
    for name in ("loss_type", "scale_rewards", "importance_sampling_level", "multi_objective_aggregation", "vllm_mode"):
        for value in typing.get_args(ALLOWED[name]):
            assert f'"{value}"' in code or f"'{value}'" in code, (name, value)


def test_every_key_that_we_type_belongs_to_a_library() -> None:
    from grpo_cot.library_settings import ALLOWED, OWNED, accepted_keys

    known = {key for section in SECTIONS for key in accepted_keys(section)}
    assert ALLOWED.keys() <= known
    assert OWNED.keys() - {"task_type"} <= known


def test_the_accepted_settings_of_the_recipes_build_the_libraries_own_objects() -> None:
    from peft import LoraConfig
    from support import ROOT
    from transformers import BitsAndBytesConfig, GenerationConfig
    from trl import GRPOConfig

    from grpo_cot.library_settings import check_recipe
    from grpo_cot.recipes import load_recipe

    for path in ROOT.glob("experiments/*.yaml"):
        recipe = load_recipe(path)
        check_recipe(recipe, path)
        GRPOConfig(output_dir="x", use_cpu=True, **recipe.phases[0].grpo)
        LoraConfig(**recipe.phases[0].lora)
        BitsAndBytesConfig(**recipe.quantization)
        GenerationConfig(**recipe.evaluate.sampling)
