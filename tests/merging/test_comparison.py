"""The comparison's figures are those of their definitions, and tell a right merge from wrong ones at every size."""

from pathlib import Path

import pytest

from grpo_cot.merging.parity import difference, loss

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("number", "size"),
    [
        (1, 5e-5), (2, 1e-2),
        *(pytest.param(number, size, marks=pytest.mark.prove) for number in range(5) for size in (5e-5, 6e-4, 1e-2)),
    ],
)  # fmt: skip
def test_the_gate_tells_a_right_merge_from_wrong_ones(tmp_path: Path, number: int, size: float) -> None:
    """From the size that a few steps reach, and the reference recipe's, up."""
    from merge_gate import CASES, WRONG, merges

    case = CASES[number]
    found = dict(merges(tmp_path, case, size))
    assert len(found) == 2 + len(WRONG)
    right = found.pop("right")
    assert difference(right, case.stored) is None and right["misplaced"] == 0 and right["effect"] > 0
    if case.stored == "float32":
        assert right["kept"] == pytest.approx(1, abs=1e-3) and right["left_over"] < 0.01
        assert loss(right, "float32") is None
    elif size == 1e-2:
        assert right["weights_kept"] == pytest.approx(1, abs=0.01) and right["kept"] == pytest.approx(1, abs=0.1)
    assert "is not as training left it" in str(difference(found.pop("another base"), case.stored))
    for name, figures in found.items():
        assert figures["misplaced"] > 0.015 and figures["beyond_rounding"] > 0.02, name
        assert "are not the" in str(difference(figures, case.stored)), name


@pytest.mark.parametrize(
    "lora",
    [
        {"use_rslora": True, "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"v_proj": 3}, "layers_to_transform": [1]},
        {"use_dora": True, "use_rslora": True, "target_modules": "all-linear"},
        {"modules_to_save": ["lm_head", "norm"], "init_lora_weights": False, "exclude_modules": ["q_proj"]},
        {"trainable_token_indices": [5, 6, 7], "target_modules": ["q_proj"]},
        {"target_modules": ["embed_tokens", "down_proj"], "init_lora_weights": "gaussian"},
    ],
)  # fmt: skip
def test_every_option_that_is_carried_is_merged_right_on_four_bits(tmp_path: Path, lora: dict[str, object]) -> None:
    from merge_gate import CONVERSATIONS, Case, merged, train

    from grpo_cot.merging.comparison import examine

    case = Case("float32", True, "bfloat16")
    description = train(tmp_path, case, 0.02, **lora)
    trained = examine(tmp_path / "model.json", CONVERSATIONS, {}, case.section)
    figures = merged(trained, description, tmp_path / "adapter", case, tmp_path / "merged")
    assert difference(figures, "bfloat16") is None and figures["arithmetic"] < 0.05
    assert figures["kept"] == pytest.approx(1, abs=0.05)
