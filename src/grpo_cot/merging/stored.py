"""The weights that the merged model must hold: asked of the trained model's own layers, and compared with the stored.

A layer's output for a unit vector is a column of its weight, whatever an adapter computes on the way. So the comparison
shares nothing with the merge, which adds matrices. Where a stored number has 8 or 11 significant bits, the right one is
the nearest to the trained one: it lies within half a step. That holds at any size of the adapter, and a layer that was
left out is seen where the whole model's logits drown it in rounding.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from grpo_cot.merging.shards import Weights, WholeModelNeededError
from grpo_cot.models.description import ModelDescription
from grpo_cot.models.loading import load_adapter, load_base
from grpo_cot.recipes.recipe import ModelSection

COLUMNS = 64  # of each layer that the adapter touches, drawn with a fixed seed
# A float32 sum of a product's terms is off by some of the last bits of a usual weight.
ARITHMETIC = 2e-6


class Columns(NamedTuple):
    """Rows are the chosen inputs of a layer, (inputs, outputs): its weights there, trained and without the adapter."""

    places: torch.Tensor
    trained: torch.Tensor
    base: torch.Tensor
    biases: tuple[torch.Tensor, torch.Tensor] | None  # trained, base


class Stored(NamedTuple):
    """The comparison with the merged model. Shares are of the worst layer."""

    misplaced: float  # share of its weights that are further than half a step from the trained ones
    layer: str | None  # its name, where any weight is misplaced
    layer_kept: float | None  # the share of the adapter that this layer keeps
    weights_kept: float | None  # the share that all of them keep: the projection of merged - base on trained - base


def in_float32(description: ModelDescription, weights: Path) -> PreTrainedModel | PeftModel:
    """The trained model with the weights that training computed with, in float32; an adapter is on it and apart.

    Raises:
        InputError: the weights or their base are missing or corrupt.
    """
    if description.kind == "full":
        return load_in_float32(weights, description)
    folder = Path(description.base)
    try:
        reader = description.quantization and Weights(
            folder, getattr(torch, description.model.dtype), description.quantization
        )
    except WholeModelNeededError:
        model = load_base(folder, _any_type(description), description.quantization).dequantize().float()
        return load_adapter(model, weights, trainable=False)
    model = load_in_float32(folder, description)
    if reader:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(reader.read(name))
    return load_adapter(model, weights, trainable=False)


def load_in_float32(folder: Path, description: ModelDescription) -> PreTrainedModel:
    """A base, or full weights, with the values of the type that training held them in.

    Raises:
        InputError: the weights are missing or corrupt.
    """
    return load_base(folder, _any_type(description), None).float()


def _any_type(description: ModelDescription) -> ModelSection:
    """How the model is loaded, with an attention that computes in float32, as Flash Attention does not."""
    return description.model.model_copy(update={"attn_implementation": "sdpa"})


def plain(model: nn.Module) -> nn.Module:
    """The model under PEFT's own, whose names are the base's."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def columns(model: nn.Module) -> dict[str, Columns]:
    """By layer, columns of each weight that the adapter on a model in float32 touches."""
    return {name: _columns(layer) for name, layer in adapted(model) if not isinstance(layer, ModulesToSaveWrapper)}


def adapted(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers with an adapter on them, by their names in the model without one."""
    for name, child in model.named_children():
        place = f"{path}.{name}" if path else name
        if isinstance(child, BaseTunerLayer | AuxiliaryTrainingWrapper):
            yield place, child
        else:
            yield from adapted(child, place)


def has_copies(model: nn.Module) -> bool:
    """Whether some modules were trained whole (`modules_to_save`)."""
    return any(isinstance(layer, ModulesToSaveWrapper) for _, layer in adapted(model))


def without_adapter(layer: nn.Module) -> nn.Module:
    """An adapted layer's own module, under the adapter's."""
    if isinstance(layer, BaseTunerLayer):
        base: nn.Module = layer.get_base_layer()
        return base
    own: nn.Module = layer.original_module  # type: ignore[assignment]
    return own


@torch.no_grad()
def base_columns(model: nn.Module) -> dict[str, torch.Tensor]:
    """By layer, the same columns of the weights under the adapter, as a model in any arithmetic holds them."""
    found = {}
    for name, layer in adapted(model):
        if isinstance(layer, BaseTunerLayer):
            base = without_adapter(layer)
            found[name] = _rows(base, base, _places(layer))[0].float()
    return found


@torch.no_grad()
def _columns(layer: nn.Module) -> Columns:
    base, places = without_adapter(layer), _places(layer)
    trained, bias = _rows(layer, base, places)
    plain, plain_bias = _rows(base, base, places)
    both = None if bias is None or plain_bias is None else (bias, plain_bias)
    return Columns(places, trained, plain, both)


def _places(layer: nn.Module) -> torch.Tensor:
    base = without_adapter(layer)
    size = base.num_embeddings if isinstance(base, nn.Embedding) else _inputs(base)
    places = torch.randperm(size, generator=torch.Generator().manual_seed(0))[:COLUMNS]
    special: Any = getattr(layer, "token_adapter", None)
    if special is not None:  # PEFT's for the embeddings of some tokens alone
        places = torch.cat([places, *map(torch.tensor, special.token_indices.values())])
    found: torch.Tensor = torch.unique(places)
    return found


def _inputs(base: Any) -> int:
    return int(base.weight.shape[0] if isinstance(base, Conv1D) else base.in_features)


def _rows(layer: nn.Module, base: nn.Module, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The layer's weight at some inputs, (inputs, outputs), and its bias (outputs), where it can have one."""
    device = next(base.parameters()).device
    if isinstance(base, nn.Embedding):
        return layer(places.to(device)).cpu(), None
    units = torch.zeros(len(places), _inputs(base), device=device)
    units[torch.arange(len(places)), places] = 1
    bias = layer(torch.zeros_like(units))[0].cpu()
    with _without_bias(base):
        return layer(units).cpu(), bias


@contextmanager
def _without_bias(base: Any) -> Iterator[None]:
    """Inside, the module's bias is 0: a weight's sum with a large one would be rounded."""
    if base.bias is None:
        yield
        return
    values = base.bias.data.clone()
    base.bias.data.zero_()
    yield
    base.bias.data.copy_(values)


def digests(model: nn.Module, dtype: torch.dtype) -> dict[str, str]:
    """By name, a hash of each tensor that the adapter leaves alone or holds a trained copy of, as `dtype` stores it."""
    touched = dict(adapted(model))
    found: dict[str, str] = {}
    for path, layer in touched.items():
        if isinstance(layer, ModulesToSaveWrapper):
            trained = layer.modules_to_save[layer.active_adapters[0]]
            found |= {f"{path}.{name}": _digest(tensor, dtype) for name, tensor in trained.named_parameters()}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if not any(name.startswith(f"{path}.") for path in _ancestors(name) & touched.keys()):
            found[name] = _digest(tensor, dtype)
    return found


def _ancestors(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def _digest(tensor: torch.Tensor, dtype: torch.dtype) -> str:
    stored = tensor.detach().to(dtype).contiguous().cpu()
    content: Any = stored.reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def half_step(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Half the distance between neighbouring numbers of a type, at these values in float32."""
    information = torch.finfo(dtype)
    least = torch.full_like(values, information.tiny)
    _, exponent = torch.frexp(torch.maximum(values.abs(), least))
    return torch.ldexp(torch.full_like(values, information.eps / 4), exponent)


def compare(expected: Mapping[str, Columns], merged: nn.Module, dtype: torch.dtype) -> Stored:
    """Compare the layers' columns with those of the merged model, which was stored in `dtype` and is in float32."""
    worst: tuple[float, str, float | None] | None = None
    along = size = 0.0
    for name, found in expected.items():
        layer = merged.get_submodule(name)
        pairs = [(_weights(layer, found.places), found.trained, found.base)]
        if found.biases is not None and isinstance(getattr(layer, "bias", None), torch.Tensor):
            pairs.append((layer.bias.detach().float().cpu(), *found.biases))  # type: ignore[operator]
        wrong = sum(int(_misplaced(stored, trained, dtype).sum()) for stored, trained, _ in pairs)
        share = wrong / sum(stored.numel() for stored, _, _ in pairs)
        part = sum(float(((stored - base) * (trained - base)).sum()) for stored, trained, base in pairs)
        whole = sum(float((trained - base).square().sum()) for _, trained, base in pairs)
        along, size = along + part, size + whole
        if worst is None or share > worst[0]:
            worst = share, name, part / whole if whole else None
    if worst is None:
        return Stored(0.0, None, None, None)
    share, layer_name, layer_kept = worst
    kept = along / size if size else None
    return Stored(share, layer_name if share else None, layer_kept if share else None, kept)


def _weights(layer: nn.Module, places: torch.Tensor) -> torch.Tensor:
    weight: Any = layer.weight
    if isinstance(layer, nn.Embedding):  # asked, for some scale what they give
        rows = layer(places.to(weight.device))
    else:
        rows = weight[places] if isinstance(layer, Conv1D) else weight[:, places].T
    found: torch.Tensor = rows.detach().float().cpu()
    return found


def _misplaced(stored: torch.Tensor, trained: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Where a stored weight is not the nearest to the trained one."""
    half = half_step(torch.maximum(stored.abs(), trained.abs()), dtype)
    return (stored - trained).abs() > half * 1.001 + ARITHMETIC * trained.square().mean().sqrt()


def otherwise(held: Mapping[str, torch.Tensor], expected: Mapping[str, Columns]) -> str | None:
    """The first layer whose base is not the one that was `held` in training, or None.

    Kernels of dequantization may round otherwise: by less than a step of bfloat16.
    """
    for name, rows in held.items():
        base = expected[name].base
        if bool(((rows - base).abs() > 2 * half_step(base, torch.bfloat16) + ARITHMETIC * base.abs().max()).any()):
            return name
    return None


def separate(model: nn.Module) -> None:
    """Give each module its own copy of a weight that an adapter lies on and that it shares (tied embeddings): what is
    merged into one leaves the others as they are."""
    layers = [module.get_base_layer() for module in model.modules() if isinstance(module, BaseTunerLayer)]
    tuned = {parameter for layer in layers for parameter in layer.parameters(recurse=False)}
    found: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in found:
                setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
            elif parameter in tuned:
                found.add(parameter)


def round_merged(model: PreTrainedModel | PeftModel, dtype: torch.dtype) -> PreTrainedModel:
    """The trained model in float32 with its adapter in its weights, which are then rounded to a type. It is changed."""
    separate(model)
    merged: Any = model.merge_and_unload() if isinstance(model, PeftModel) else model
    with torch.no_grad():
        for tensor in merged.state_dict().values():  # all that is stored: BART's bias of the logits is no parameter
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(dtype))
    return merged
