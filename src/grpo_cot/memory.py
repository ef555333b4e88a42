"""What training a phase needs of a GPU's memory: estimated from the model's own modules, not measured.

Nothing is allocated: the model is built on torch's meta device, where tensors have a shape and no content, so that
parameters and adapter are counted exactly, by the classes that will hold them. Activations are what autograd really
keeps of a forward pass over such tensors. The rest are formulas, each beside its source.

Left out: fragmentation, copies that an optimiser makes during its step, buffers of several processes and any sharding
(the figures are one process's that holds the whole model). Too high for models whose attention has dropout (GPT-2) or a
trained position bias (T5), unless they checkpoint: traced on a CPU their attention keeps matrices of length x length,
which a GPU's kernels mostly avoid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from grpo_cot.files import InputError
from grpo_cot.recipes import LibrarySettings

CONTEXT = 2**30  # CUDA's context and its libraries' workspaces: commonly 0.5 to 1 GiB
FLOAT32 = 4
ABSMAX_BLOCK = {"nf4": 64, "fp4": 64}  # weights that share a scale
SCALE_BLOCK = 256  # scales that share a scale of their own, under double quantization
OPTIMISER_BLOCK = 256  # state values that share a scale in bitsandbytes' 8-bit optimisers
SMALLEST_8BIT = 4096  # below that many values bitsandbytes keeps a state in float32
CHUNK = 256  # positions whose logits TRL's chunked loss holds at once


@dataclass(frozen=True)
class Workload:
    """The largest batch of a phase on one GPU.

    `rows` and `length`: sequences of a batch and tokens of the longest; `targets`: tokens of each whose logits are
    held, and that the decoder of an encoder-decoder reads. `drawn`: sequences that are sampled at once, prompt and
    completion together `drawn_length` tokens; 0 where nothing is. `reference`: whether a copy of what is trained is
    held for the KL or for DPO.
    """

    rows: int
    length: int
    targets: int
    drawn: int
    drawn_length: int
    loss: Literal["usual", "chunked", "selected"]  # see `logits`
    optimiser: str
    autocast: bool
    checkpointing: bool
    temperature: float
    reference: bool


@dataclass(frozen=True)
class Memory:
    """Bytes by part. `kept` stays throughout; of `training` and `sampling` only one is there at a time."""

    kept: dict[str, int]
    training: dict[str, int]
    sampling: dict[str, int]

    @property
    def total(self) -> int:
        """The estimated peak, CUDA's own share included."""
        moment = max(sum(self.training.values()), sum(self.sampling.values()))
        return sum(self.kept.values()) + moment


class Blueprint:
    """A model without content, with the recipe's adapter on it."""

    def __init__(
        self, configuration: PreTrainedConfig, untied: bool, dtype: str, quantization: LibrarySettings | None,
        lora: LibrarySettings | None,
    ) -> None:  # fmt: skip
        """Build it from a configuration; `untied` where the files hold an output matrix of their own.

        Raises:
            InputError: the adapter's target modules are none of the model's.
        """
        self._quantization = quantization or {}
        self._dtype: torch.dtype = getattr(torch, dtype)
        kind = AutoModelForSeq2SeqLM if configuration.is_encoder_decoder else AutoModelForCausalLM
        with torch.device("meta"):
            self.model: Any = kind.from_config(configuration, dtype=self._dtype, attn_implementation="sdpa")
            embeddings, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
            if untied and head.weight is embeddings.weight:  # Transformers' T5 classes tie what mT5's files do not
                head.weight = torch.nn.Parameter(torch.empty_like(embeddings.weight))
        skipped = self._quantization.get("llm_int8_skip_modules") or get_keys_to_not_convert(self.model)
        self._quantized = {
            id(module.weight): module.weight.numel()
            for name, module in self.model.named_modules()
            if quantization and type(module) in (torch.nn.Linear, Conv1D) and should_convert_module(name, skipped)
        }
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.vocabulary: int = head.weight.shape[0]
        self._base = list(self.model.parameters())
        self.lora = lora is not None
        if lora is not None:
            try:
                self.model = get_peft_model(
                    self.model, LoraConfig(task_type="CAUSAL_LM", **lora), low_cpu_mem_usage=True
                )
            except ValueError as error:
                raise InputError(f"lora: PEFT refuses it: {' '.join(str(error).split())[:200]}") from None
        self._trained: list[torch.Tensor] = [
            parameter for parameter in self.model.parameters() if parameter.requires_grad
        ]

    @property
    def trained_parameters(self) -> int:
        """How many values training changes."""
        return sum(parameter.numel() for parameter in self._trained)

    @property
    def quantized_parameters(self) -> int:
        """How many values bitsandbytes holds in 4 or 8 bits."""
        return sum(self._quantized.values())

    def weights(self) -> int:
        """Bytes of the base as it lies on the GPU.

        4 bits: half a byte a value and a float32 scale for every 64 of them; under double quantization these are one
        byte each, with a float32 scale for every 256 (Dettmers et al., 2023, QLoRA, section 3: 0.127 bits a value).
        8 bits: a byte a value (and a float32 scale a row, left out: under 0.5 %). What is not quantized keeps the
        recipe's dtype.
        """
        total = 0.0
        for parameter in self._base:
            values = parameter.numel()
            if id(parameter) not in self._quantized:
                total += values * self._dtype.itemsize
            elif self._quantization.get("load_in_4bit"):
                scales = values / ABSMAX_BLOCK[self._quantization.get("bnb_4bit_quant_type", "fp4")]
                double = self._quantization.get("bnb_4bit_use_double_quant")
                total += values / 2 + (scales + scales / SCALE_BLOCK * FLOAT32 if double else scales * FLOAT32)
            else:
                total += values
        return round(total)

    def trained(self) -> int:
        """Bytes of what is trained: an adapter is in float32 (`grpo_cot.training`), full weights are in their dtype."""
        return self.trained_parameters * (FLOAT32 if self.lora else self._dtype.itemsize)

    def optimiser(self, name: str) -> int:
        """Bytes of an optimiser's state.

        AdamW (Loshchilov and Hutter, 2019) keeps two values a parameter, in its dtype; in 8 bits (Dettmers et al.,
        2022) one byte each and a float32 scale for every 256; Adafactor (Shazeer and Stern, 2018) one float32 a row
        and one a column. Paged states are counted, though they can move to the host.

        Raises:
            InputError: no estimate is known for this optimiser.
        """
        width = FLOAT32 if self.lora else self._dtype.itemsize
        if name in ("adamw_torch", "adamw_torch_fused"):
            return 2 * width * self.trained_parameters
        if name.removeprefix("paged_") in ("adamw_8bit", "adamw_bnb_8bit"):
            byte = 1 + FLOAT32 / OPTIMISER_BLOCK
            return round(sum(2 * p.numel() * (byte if p.numel() >= SMALLEST_8BIT else FLOAT32) for p in self._trained))
        if name == "adafactor":
            return FLOAT32 * sum(p.shape[-2] + p.shape[-1] if p.dim() > 1 else p.numel() for p in self._trained)
        raise InputError(
            f"optim is {name!r}, whose memory cannot be estimated; expected adamw_torch, adamw_torch_fused, "
            "adamw_8bit, adamw_bnb_8bit, paged_adamw_8bit or adafactor"
        )

    def layers(self) -> int:
        """Transformer layers, of encoder and decoder together."""
        configuration = self.model.config
        decoder = getattr(configuration, "num_decoder_layers", 0) if configuration.is_encoder_decoder else 0
        return int(configuration.num_hidden_layers + decoder)

    def cache(self, tokens: int) -> int:
        """Bytes of keys and values that sampling keeps for that many tokens, of all sequences together.

        Two tensors a layer, in the recipe's dtype. An encoder-decoder keeps the prompt's in its cross-attention.
        """
        configuration = self.model.config
        heads = getattr(configuration, "num_key_value_heads", None) or configuration.num_attention_heads
        size = (
            getattr(configuration, "head_dim", None) or configuration.hidden_size // configuration.num_attention_heads
        )
        layers = getattr(configuration, "num_decoder_layers", None) or configuration.num_hidden_layers
        return int(2 * layers * heads * size * self._dtype.itemsize * tokens)

    def dequantized_layer(self) -> int:
        """Bytes of the largest quantized matrix in the dtype that it is multiplied in, one at a time."""
        dtype = self._quantization.get("bnb_4bit_compute_dtype", "float32")
        return max(self._quantized.values(), default=0) * int(getattr(torch, dtype).itemsize)

    def activations(self, work: Workload) -> int:
        """Bytes that autograd keeps of a forward pass, logits aside, and of one layer's backward pass.

        With gradient checkpointing (Chen et al., 2016) it keeps each layer's input, and one layer at a time is computed
        again. In the backward pass a layer's gradients are taken to need as much as its activations.
        """
        everything = self._saved(work, checkpointing=False)
        layer = everything // self.layers()
        if work.checkpointing:
            return self._saved(work, checkpointing=True) + 2 * layer
        return everything + layer

    def _saved(self, work: Workload, checkpointing: bool) -> int:
        """Bytes of the tensors that autograd saves in a forward pass, the model's own left out."""
        if checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            if self.lora:
                self.model.enable_input_require_grads()
        else:
            self.model.gradient_checkpointing_disable()
        self.model.train()
        saved: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            saved[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with FakeTensorMode(), _fake_weights(self.model, self.lora) as own:
            inputs = {"input_ids": torch.zeros(work.rows, work.length, dtype=torch.long)}
            if self.model.config.is_encoder_decoder:
                inputs["decoder_input_ids"] = torch.zeros(work.rows, work.targets, dtype=torch.long)
            # Half precision on a CPU casts the same operations as on a GPU, as far as a Transformer has them.
            with (
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
                torch.autocast("cpu", torch.bfloat16, enabled=work.autocast),
            ):
                self.model(**inputs, use_cache=False)
        return sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in own)


def estimate(blueprint: Blueprint, work: Workload) -> Memory:
    """The memory of one phase, by part.

    Raises:
        InputError: the optimiser is none that an estimate is known for.
    """
    kept = {"weights": blueprint.weights()}
    if blueprint.lora:
        kept["adapter"] = blueprint.trained()
    if work.reference:
        kept["reference"] = blueprint.trained()
    kept |= {"optimiser": blueprint.optimiser(work.optimiser), "CUDA itself": CONTEXT}
    training = {
        "gradients": blueprint.trained(),
        "activations": blueprint.activations(work),
        "logits": logits(blueprint.vocabulary, work),
    }
    if dequantized := blueprint.dequantized_layer():
        training["dequantized layer"] = dequantized
    sampling = {"KV cache": blueprint.cache(work.drawn * work.drawn_length)} if work.drawn else {}
    return Memory(kept, training, sampling)


def logits(vocabulary: int, work: Workload) -> int:
    """Bytes of the logits and of what the loss makes of them, at the start of the backward pass.

    A value is held in float32 (Accelerate turns a model's outputs into it), and so is its gradient; under autocast
    there is one more in bfloat16. `selected`, of GRPO and DPO (TRL's `selective_log_softmax`), adds a copy where a
    temperature other than 1 divides them. The `usual` loss (`torch.nn.functional.cross_entropy`) keeps
    log-probabilities as well; TRL's `chunked` form of it holds 256 positions at a time.
    """
    positions = work.rows * (work.targets + 1)
    copies = 2 * FLOAT32 + (2 if work.autocast else 0)
    if work.loss == "selected":
        copies += FLOAT32 if work.temperature != 1 else 0
    else:
        copies += FLOAT32
        positions = min(positions, CHUNK) if work.loss == "chunked" else positions
    return positions * vocabulary * copies


@contextmanager
def _fake_weights(model: torch.nn.Module, lora: bool) -> Iterator[set[int]]:
    """Put tensors without content on the CPU in the place of those on the meta device; yields their storages' keys.

    On the CPU torch chooses attention kernels as on a GPU; on the meta device it takes the one that keeps all scores.
    """
    replaced: dict[torch.Tensor, torch.Tensor] = {}
    places: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    for module in model.modules():
        owners: list[dict[str, Any]] = [module._parameters, module._buffers]
        for tensors in owners:
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                places.append((tensors, name, tensor))
                if tensor not in replaced:
                    trained = tensor.requires_grad
                    dtype = torch.float32 if lora and trained else tensor.dtype
                    new: torch.Tensor = torch.empty(tensor.shape, dtype=dtype, device="cpu")
                    if isinstance(tensor, torch.nn.Parameter):
                        new = torch.nn.Parameter(new, requires_grad=trained)
                    replaced[tensor] = new
                tensors[name] = replaced[tensor]
    try:
        yield {tensor.untyped_storage()._cdata for tensor in replaced.values()}
    finally:
        for tensors, name, tensor in places:
            tensors[name] = tensor
