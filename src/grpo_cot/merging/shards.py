"""Merging shard by shard on the CPU: of the model, at most the tensors of one output file are in memory at a time.

The model is built without content. For each of the base's files its tensors are read one module at a time, as loading
would hand them to training (renamed, cast, quantized and dequantized by Transformers and bitsandbytes themselves), the
module's adapter is merged by PEFT's own layer, and the file is written under the base's own names for files and
tensors. So every program that loads the base loads the merged model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.integrations.bitsandbytes import dequantize_bnb_weight
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import AutoHfQuantizer
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from grpo_cot.common.files import read_json, write_json
from grpo_cot.models.loading import DEVICE
from grpo_cot.models.tokenizers import refusing_corrupt


class WholeModelNeededError(Exception):
    """Why a model cannot be merged shard by shard; the words follow "because"."""


class Place(NamedTuple):
    """Where a tensor lies: the file, and its name there."""

    file: Path
    key: str


class Weights:
    """A model folder's tensors, read one at a time under the names that the model's classes give them."""

    def __init__(self, folder: Path, dtype: torch.dtype, quantization: Mapping[str, Any] | None) -> None:
        """Find every tensor; with `quantization`, `read` returns it quantized and dequantized.

        Raises:
            InputError: a file is missing or corrupt.
            WholeModelNeededError: the files' tensors are not one to one the model's.
        """
        self.folder, self.dtype = folder, dtype
        self.model = self.empty_model()
        self.shapes = self.model.state_dict(keep_vars=True)
        self.places = places(folder, self.model)
        self.sources = {name: self._source(name) for name in self.shapes}
        self._quantizer: Any = None
        if quantization:
            self._quantizer = AutoHfQuantizer.from_config(BitsAndBytesConfig(**quantization), pre_quantized=False)
            self._quantizer.preprocess_model(model=self.model, dtype=dtype, device_map={"": DEVICE})

    def empty_model(self) -> PreTrainedModel:
        """The model without content, on torch's meta device."""
        with refusing_corrupt(self.folder):
            configuration = AutoConfig.from_pretrained(self.folder)
            kind = AutoModelForSeq2SeqLM if configuration.is_encoder_decoder else AutoModelForCausalLM
            with torch.device("meta"):
                return kind.from_config(configuration, dtype=self.dtype)

    def read(self, name: str) -> torch.Tensor:
        """A tensor on the CPU, in the type and with the values that training saw."""
        place = self.sources[name]
        # Read, not mapped: mapped pages would count as this process's memory until the file is closed.
        with refusing_corrupt(self.folder), safe_open(place.file, framework="pt", backend="pread") as file:
            tensor: torch.Tensor = file.get_tensor(place.key).to(self.shapes[name].dtype)
        if self._quantizer is None or not self._quantizer.param_needs_quantization(self.model, name):
            return tensor
        module = self.model.get_submodule(name.rpartition(".")[0])
        quantized = self._quantizer.get_quantize_ops().convert({name: tensor.to(DEVICE)}, model=self.model)[name]
        dequantized: torch.Tensor = dequantize_bnb_weight(quantized, getattr(module, "state", None))
        module.quant_state = None  # bitsandbytes keeps the scales there
        return (dequantized.T if issubclass(module.source_cls, Conv1D) else dequantized).to(tensor)

    def tied(self, name: str) -> list[str]:
        """The tensors that the model's classes hold to be one with this one, itself included."""
        return [other for other, tensor in self.shapes.items() if tensor is self.shapes[name]]

    def _source(self, name: str) -> Place:
        """Where a tensor comes from: its own place, or that of one that it is tied to.

        Raises:
            WholeModelNeededError: there is neither.
        """
        if not (owners := [other for other in [name, *self.tied(name)] if other in self.places]):
            raise WholeModelNeededError(f"the base's safetensors files lack {name}")
        return self.places[owners[0]]


def places(folder: Path, model: PreTrainedModel) -> dict[str, Place]:
    """Where each of the model's tensors lies, by its name in the model, as Transformers renames them when it loads.

    Tensors that the model has no place for are left out, as loading leaves them out.

    Raises:
        InputError: a file is missing or corrupt.
        WholeModelNeededError: there are no safetensors files, or loading would join, split or reshape tensors.
    """
    with refusing_corrupt(folder):
        shapes = tensors_in(folder)
    if not shapes:
        raise WholeModelNeededError("the base has no safetensors files")
    expected = model.state_dict()
    conversions = get_model_conversion_mapping(model)
    rules = [[entry for entry in conversions if isinstance(entry, kind)] for kind in (WeightRenaming, WeightConverter)]
    named = {}
    for place, shape in shapes.items():
        name, converter = rename_source_key(place.key, *rules, model.base_model_prefix, expected)
        if name not in expected and place.key in expected:
            name, converter = place.key, None
        if name in expected:
            if converter or shape != tuple(expected[name].shape):
                raise WholeModelNeededError(f"{place.key} has another shape in the base's files than in the model")
            named[name] = place
    return named


def tensors_in(folder: Path) -> dict[Place, tuple[int, ...]]:
    """Every tensor of a model folder's safetensors files, with its shape."""
    names: set[str] = set()
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        names = {SAFE_WEIGHTS_NAME}
    elif (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        names = set(read_json(folder / SAFE_WEIGHTS_INDEX_NAME)["weight_map"].values())
    shapes: dict[Place, tuple[int, ...]] = {}
    for path in [folder / name for name in sorted(names)]:
        with safe_open(path, framework="pt") as file:
            shapes |= {Place(path, key): tuple(file.get_slice(key).get_shape()) for key in sorted(file.keys())}
    return shapes


class Merger:
    """The model with the adapter on it, filled and merged one module at a time."""

    def __init__(self, weights: Weights, adapter: Path | None) -> None:
        """Put the adapter on an empty model.

        Every weight starts as one zero, repeated without taking memory, rather than on the meta device: PEFT moves an
        adapter to where its layer is.

        Raises:
            InputError: the adapter is missing or corrupt, or does not fit the base.
        """
        self._weights = weights
        self._nothing = torch.zeros(())
        self._model: nn.Module = weights.empty_model()
        for module in self._model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                empty = self._nothing.expand(parameter.shape)
                module.register_parameter(name, nn.Parameter(empty, requires_grad=False))
            for name, buffer in list(module.named_buffers(recurse=False)):
                module._buffers[name] = self._nothing.expand(buffer.shape)
        if adapter:
            with refusing_corrupt(adapter):
                model = PeftModel.from_pretrained(self._model, str(adapter), low_cpu_mem_usage=True, torch_device="cpu")
                if absent := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
                    raise ValueError(f"{absent[0]} is missing")
                self._model = model.get_base_model()

    def touches(self, name: str) -> bool:
        """Whether a tensor of the base gets values of its own from the adapter."""
        path, _, attribute = name.rpartition(".")
        module = self._model.get_submodule(path)
        wrapped = isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        return wrapped or not self._empty(getattr(module, attribute))

    def merged(self, path: str, attributes: Mapping[str, str], dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """A module's tensors with the adapter merged, in `dtype`; `attributes` gives the names to return them under."""
        module = self._model.get_submodule(path)
        if isinstance(module, AuxiliaryTrainingWrapper):
            if not isinstance(module, ModulesToSaveWrapper):  # which holds a trained copy of all
                self._fill(module.original_module, path)
            module = module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        elif isinstance(module, BaseTunerLayer):
            layer, module = module, module.get_base_layer()
            self._fill(module, path)
            layer.merge()
        else:
            self._fill(module, path)
        tensors = {}
        for attribute, key in attributes.items():
            tensor = getattr(module, attribute)
            value = tensor.detach()
            if value.is_floating_point():
                value = value.to(dtype).contiguous()
            tensors[key] = value
            tensor.data = self._nothing.expand(tensor.shape)
        return tensors

    def _fill(self, module: nn.Module, path: str) -> None:
        """Give a module the base's tensors, but for those that came with the adapter."""
        for attribute, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            name = f"{path}.{attribute}" if path else attribute
            if self._empty(tensor) and name in self._weights.sources:
                value = self._weights.read(name)
                tensor.data = value.float() if value.is_floating_point() else value  # the sum is rounded once

    def _empty(self, tensor: torch.Tensor) -> bool:
        return tensor.data_ptr() == self._nothing.data_ptr()


def separated_tensors(weights: Weights, merger: Merger) -> set[str]:
    """The tied tensors that are no longer one once the adapter is merged."""
    groups = [weights.tied(name) for name in weights.shapes if len(weights.tied(name)) > 1 and merger.touches(name)]
    return {name for group in groups for name in group}


def layout(weights: Weights, separated: set[str]) -> dict[Path, dict[str, dict[str, str]]]:
    """The content of each file: module -> its tensors' attributes -> their names in the file.

    A module's tensors stand together, where the base has its first. Tied tensors stand there as often as in the base,
    but for the `separated` ones, which all do.
    """
    files: dict[str, Path] = {}
    content: dict[Path, dict[str, dict[str, str]]] = {}
    for name in weights.shapes:
        if name in weights.places or name in separated:
            module, _, attribute = name.rpartition(".")
            file = files.setdefault(module, weights.sources[name].file)
            key = weights.places[name].key if name in weights.places else name
            content.setdefault(file, {}).setdefault(module, {})[attribute] = key
    return content


def write_file(path: Path, merger: Merger, modules: Mapping[str, Mapping[str, str]], dtype: torch.dtype) -> int:
    """Merge these modules into one file; the bytes of its tensors.

    The merger is used for one file alone: the adapter's pages that it has touched stay in memory with it.
    """
    tensors: dict[str, torch.Tensor] = {}
    for module, attributes in modules.items():
        tensors |= merger.merged(module, attributes, dtype)
    save_file(tensors, path, metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in tensors.values())


def merge_shards(
    base: Path, adapter: Path | None, computed: torch.dtype, quantization: Mapping[str, Any] | None,
    dtype: torch.dtype, folder: Path,
) -> None:  # fmt: skip
    """Write the base with the adapter merged as safetensors files in `dtype`, with their index and config.json.

    `computed` is the type that training held the base's weights in; with `quantization` they are quantized and
    dequantized first. Tensors that the base ties and the adapter separates are written each on their own.

    Raises:
        InputError: base or adapter are missing or corrupt, or do not fit.
        WholeModelNeededError: it can only be done with the whole model in memory; nothing has been written.
    """
    weights = Weights(base, computed, quantization)
    separated = separated_tensors(weights, Merger(weights, adapter))
    index: dict[str, str] = {}
    total = 0
    for file, modules in tqdm(layout(weights, separated).items(), desc="merging", unit="file"):
        total += write_file(folder / file.name, Merger(weights, adapter), modules, dtype)
        index |= {key: file.name for attributes in modules.values() for key in attributes.values()}
    if set(index.values()) != {SAFE_WEIGHTS_NAME}:
        content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
        write_json(folder / SAFE_WEIGHTS_INDEX_NAME, content)
    configuration = weights.model.config
    configuration.architectures = [type(weights.model).__name__]
    configuration.dtype = str(dtype).removeprefix("torch.")
    # An encoder-decoder's classes read this field otherwise; they tell from the tensors themselves.
    if separated and not configuration.is_encoder_decoder:
        configuration.tie_word_embeddings = False
    configuration.save_pretrained(folder)
