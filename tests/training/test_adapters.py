"""Each option of LoraConfig that is carried, from training through the base beside it to the merged model."""

from pathlib import Path
from typing import Any

import pytest
from support import ROOT, training_rows

from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.recipe import Recipe

pytestmark = pytest.mark.prove
BASE = ROOT / "assets/tiny/model"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 4, "lora_alpha": 8, "use_dora": True, "use_rslora": True, "target_modules": "all-linear"},
        {"r": 4, "lora_alpha": 8, "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"v_proj": 3}, "use_rslora": True,
         "target_modules": PROJECTIONS, "layers_to_transform": [1, 2], "layers_pattern": "layers"},
        {"r": 4, "lora_alpha": 8, "modules_to_save": ["norm"], "init_lora_weights": "gaussian",
         "target_modules": "all-linear", "exclude_modules": ["q_proj"]},
        {"r": 4, "lora_alpha": 8, "trainable_token_indices": [5, 6, 7], "init_lora_weights": False,
         "target_modules": ["v_proj"]},
        {"r": 4, "lora_alpha": 8, "target_modules": ["v_proj"], "modules_to_save": ["lm_head"],
         "ensure_weight_tying": True},
        {"r": 4, "lora_alpha": 8, "target_modules": ["lm_head", "v_proj"]},
        {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["embed_tokens", "down_proj"]},
    ],
)  # fmt: skip
def test_an_option_of_the_adapter_is_trained_compared_with_the_base_and_merged(
    tmp_path: Path, lora: dict[str, Any]
) -> None:
    import torch

    from grpo_cot.evaluation.pairs import both
    from grpo_cot.library.lora import check_lora
    from grpo_cot.merging.comparison import parity
    from grpo_cot.merging.merge import merge
    from grpo_cot.merging.parity import difference
    from grpo_cot.models.description import read_description
    from grpo_cot.models.loading import load_base
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.training.phases import train_phases

    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    steps = {"max_steps": 3, "save_steps": 100, "max_completion_length": 16, "learning_rate": 0.01}
    content["phases"][0] |= {"lora": lora, "grpo": content["phases"][0]["grpo"] | steps}
    content["rewards"] = {"random": 1.0}  # always varies, so that every step moves the policy
    recipe = Recipe.model_validate(content)
    check_lora(lora, "lora")
    result = train_phases(recipe, training_rows(), [], BASE, 1, tmp_path, {})
    description = read_description(result / "model.json")
    ids = torch.arange(5, 40)[None]
    with torch.inference_mode():
        expected = load_base(BASE, description.model, description.quantization)(ids).logits
        answered = {name: which(ids).logits for name, which in both(result / "model.json", before=None)}
    assert torch.equal(answered["base"], expected)
    assert not torch.allclose(answered["trained"], expected, atol=1e-4)
    (tmp_path / "merged").mkdir()
    weights = result / description.path
    merge(description, weights, recipe.merge, load_tokenizer(BASE), tmp_path / "merged")
    questions = [[{"role": "user", "content": text}] for text in ("How many?", "What is 3 + 4?")]
    figures = parity(result / "model.json", tmp_path / "merged", questions, {}, recipe.merge)
    assert difference(figures, recipe.merge.dtype) is None
    assert figures["effect"] > 1e-3 and figures["arithmetic"] < 0.05 and figures["kept"] == pytest.approx(1, abs=0.1)
