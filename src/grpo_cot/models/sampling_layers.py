"""LoRA layers in few operations, while completions are sampled on a CPU in bfloat16.

A new token asks each adapted layer for a little work. PEFT multiplies it by the base's weight, casts it to float32, to
be the adapter's, multiplies twice, scales, adds and casts back: seven operations, and Python's way to each. For the
length of a sampling the adapter is held in bfloat16, so that three are left.

The sampled policy is the trained one but for rounding. What is rounded is the adapter by itself, and bfloat16 has
float32's exponents: the error is 2^-9 of the adapter's own effect, however small that is. (A merge would round the sum
of adapter and base, in which a small adapter is lost.)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from peft.tuners.lora import Linear as AdaptedLinear
from peft.tuners.lora import Linear4bit as AdaptedLinear4bit
from torch.nn.functional import linear

from grpo_cot.models.loading import kept_weight


@contextmanager
def in_few_operations(model: Any) -> Iterator[None]:
    """Inside, a model's plain LoRA layers answer in three operations, with the adapter as it is at the entry.

    Layers in other number formats than bfloat16, on other devices, with other adapters (DoRA, biases, active dropout,
    several at once, merged ones) or over other layers than Linear and the Linear4bit whose weight is kept dequantized
    stay PEFT's. In float32 nothing is cast, and there is little to gain.
    """
    changed = []
    try:
        for layer in model.modules():
            if type(layer) in (AdaptedLinear, AdaptedLinear4bit) and (forward := _short(layer)):
                layer.forward = forward
                changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.forward


@torch.no_grad()
def _short(layer: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What replaces a layer's forward; None where that has to stay."""
    base = layer.base_layer
    weight = kept_weight(base) if type(base) is Linear4bit else base.weight if type(base) is torch.nn.Linear else None
    if weight is None or weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or "forward" in vars(layer):
        return None
    if layer.disable_adapters or layer.merged or layer.lora_variant or len(layer.active_adapters) != 1:
        return None
    (name,) = layer.active_adapters
    if name not in layer.lora_A:
        return None
    first, second, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    plain = type(first) is type(second) is torch.nn.Linear and first.bias is second.bias is None
    if not plain or not (isinstance(dropout, torch.nn.Identity) or not dropout.training):
        return None
    into = first.weight.to(weight.dtype)
    out_of = (second.weight * layer.scaling[name]).to(weight.dtype).t().contiguous()
    bias = None if base.bias is None else base.bias.to(weight.dtype)
    return partial(_answer, layer, weight, bias, into, out_of)


def _answer(
    layer: Any, weight: torch.Tensor, bias: torch.Tensor | None, into: torch.Tensor, out_of: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """The layer's answer to `values` (..., inputs); shapes: `weight` (outputs, inputs), `into` (rank, inputs), `out_of`
    (rank, outputs)."""
    if values.dtype != weight.dtype:
        own: torch.Tensor = type(layer).forward(layer, values)
        return own
    answer = linear(values, weight, bias)
    answer.view(-1, answer.shape[-1]).addmm_(linear(values, into).view(-1, len(into)), out_of)
    return answer
