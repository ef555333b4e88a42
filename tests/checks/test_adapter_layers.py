"""An adapter on embeddings or on the output matrix: taken where the merge and vLLM carry it, refused where not."""

from typing import Any

import pytest
from rollout_recipes import BASE, NF4, recipe

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.recipe import Recipe

pytestmark = pytest.mark.slow
EMBEDDINGS = {"target_modules": ["embed_tokens", "down_proj"]}
HEAD = {"target_modules": ["lm_head", "down_proj"]}


def evaluated_by_vllm(lora: dict[str, Any], engine: str = "vllm") -> Recipe:
    content = recipe(changes={"lora": lora, "quantization": NF4}).model_dump()
    content["phases"][0] |= {"rollouts": None, "grpo": content["phases"][0]["grpo"] | {"use_vllm": False}}
    content["evaluate"]["engine"] = engine
    return Recipe.model_validate(content)


def sampled(sync: str, lora: dict[str, Any]) -> Recipe:
    return recipe(sync, {"lora": lora})


def check(given: Recipe, tied: bool = True) -> None:
    from transformers import AutoConfig

    from grpo_cot.checks.backends.adapters import check_layers
    from grpo_cot.memory.estimate import Blueprint

    configuration = AutoConfig.from_pretrained(BASE)
    configuration.tie_word_embeddings = tied
    model = Blueprint(configuration, not tied, given.model, given.quantization, given.phases[0].lora)
    check_layers(given, model.model.get_base_model(), "tiny")


@pytest.mark.parametrize(
    ("given", "tied", "said"),
    [
        (evaluated_by_vllm(EMBEDDINGS), True, "names model.embed_tokens of the base 'tiny', but evaluate."),
        (evaluated_by_vllm(EMBEDDINGS), False, "take it out, or set evaluate.engine to transformers"),
        (evaluated_by_vllm({"target_modules": r".*(lm_head|v_proj)"}), True, "names lm_head of the base 'tiny', but "),
        (sampled("adapter", HEAD), False, r"names lm_head of .* phases.1.rollouts.sync is 'adapter', and vLLM adds an"),
        (sampled("merge", EMBEDDINGS), True, "trains model.embed_tokens, but phases.1.rollouts.sync is 'merge'"),
        (sampled("merge", HEAD), True, "one matrix for embeddings and output"),
        (sampled("merge", {"modules_to_save": ["lm_head"]}), True, r"trains lm_head, but .*\(grpo.use_vllm false"),
        (sampled("merge", {"modules_to_save": ["embed_tokens"]}), True, "with ensure_weight_tying true, or sample"),
        (evaluated_by_vllm(EMBEDDINGS | {"ensure_weight_tying": True}, "transformers"), True, "_tying is true, and"),
        (evaluated_by_vllm(HEAD | {"ensure_weight_tying": True}, "transformers"), True, "merges it into one of them"),
    ],
)  # fmt: skip
def test_what_vllm_or_the_merge_would_leave_out_is_refused(given: Recipe, tied: bool, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(given, tied)


def test_a_kind_of_model_that_vllm_runs_without_adapters_is_refused() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from grpo_cot.checks.backends.adapters import check_layers

    base = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_embd=8, n_layer=1, n_head=2, vocab_size=9))
    model = get_peft_model(base, LoraConfig(target_modules=["c_attn"])).get_base_model()
    linear = {"target_modules": ["c_attn"]}
    with pytest.raises(InputError, match=r"vLLM takes no adapters on models of the kind of the base 'ours' \(gpt2\)"):
        check_layers(evaluated_by_vllm(linear), model, "ours")
    check_layers(evaluated_by_vllm(linear, "transformers"), model, "ours")
    check_layers(sampled("merge", linear), model, "ours")


@pytest.mark.parametrize(
    ("given", "tied"),
    [
        (evaluated_by_vllm({"target_modules": "all-linear"}), True),
        (evaluated_by_vllm({"target_modules": "all-linear"}), False),
        (sampled("adapter", {"target_modules": "all-linear"}), True),
        (sampled("merge", EMBEDDINGS), False),
        (sampled("merge", {"modules_to_save": ["norm"]}), True),
        (sampled("merge", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}), True),
        (evaluated_by_vllm(EMBEDDINGS, "transformers"), True),
        (evaluated_by_vllm(EMBEDDINGS | {"ensure_weight_tying": True}, "transformers"), False),
        (evaluated_by_vllm({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, "transformers"), True),
    ],
)
def test_what_is_carried_is_taken(given: Recipe, tied: bool) -> None:
    check(given, tied)
