"""Attention of one token with shared keys is Transformers' own, but for rounding."""

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shared", [1, 3, 9])
def test_it_gives_what_transformers_gives(queries: int, masked: bool, shared: int) -> None:
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from grpo_cot.models.attention import attention

    torch.manual_seed(0)
    query, key, value = torch.randn(4, 9, queries, 8), torch.randn(4, shared, 12, 8), torch.randn(4, shared, 12, 8)
    mask = torch.rand(4, 1, queries, 12) < 0.7
    mask[..., 0] = True
    module: Any = SimpleNamespace(num_key_value_groups=9 // shared, is_causal=True, training=False)
    given = (module, query, key, value, mask if masked else None)
    found, _ = attention(*given, scaling=0.3)
    expected, _ = sdpa_attention_forward(*given, scaling=0.3)
    torch.testing.assert_close(found, expected)


def test_a_bias_of_the_positions_and_values_of_another_size_are_transformers_own() -> None:
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from grpo_cot.models.attention import attention

    torch.manual_seed(0)
    query, key, value = torch.randn(4, 9, 1, 8), torch.randn(4, 3, 12, 8), torch.randn(4, 3, 12, 5)
    module: Any = SimpleNamespace(num_key_value_groups=3, is_causal=True, training=False)
    for given, settings in (
        ((module, query, key, value, None), {}),
        ((module, query, key, key, None), {"position_bias": torch.randn(4, 9, 1, 12)}),
    ):
        torch.testing.assert_close(attention(*given, **settings)[0], sdpa_attention_forward(*given, **settings)[0])


def test_models_that_ask_for_torchs_attention_get_it() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    import grpo_cot.models.loading
    from grpo_cot.models.attention import attention

    assert grpo_cot.models.loading.DEVICE in ("cpu", "cuda")
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attention
