"""The GPU memory of a training phase, estimated by running the model's own code on tensors without content.

The model is built on torch's meta device, with bitsandbytes' and PEFT's own layers where the recipe asks for them. For
an estimate, torch's fake tensors (which have a shape, a dtype and a device, and no content) take the weights' places.
One training step's forward and backward pass and one sampled token are run on the largest batch, and the bytes alive at
the fullest moment are counted. The optimiser's bytes are a formula (`grpo_cot.training.workload`).

Left out: fragmentation, a kernel's own workspace, buffers of several processes and any sharding (the figures are one
process's that holds the whole model). Too high for models whose attention has dropout (GPT-2) or a trained position
bias (T5), unless they checkpoint: the fake tensors are a CPU's, whose attention then keeps matrices of length x length,
which a GPU's kernels mostly avoid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate.utils import convert_outputs_to_fp32
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import dora
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
    DynamicCache,
    PreTrainedConfig,
)
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module
from trl.trainer.sft_trainer import _CHUNKED_LM_HEAD_CHUNK_SIZE, _chunk
from trl.trainer.utils import entropy_from_logits, selective_log_softmax_and_entropy

from grpo_cot.common.errors import InputError
from grpo_cot.memory.live_bytes import LiveBytes
from grpo_cot.recipes.phases import LibrarySettings
from grpo_cot.recipes.recipe import ModelSection
from grpo_cot.training.probe import lengthen, read_prompts, sampled_token
from grpo_cot.training.rollouts import replaced
from grpo_cot.training.shared_prompts import as_read
from grpo_cot.training.workload import Workload, optimiser_state, optimiser_step

# flash_attention_2 takes the padding out. So it keeps the same tensors as torch's own kernel without a mask.
UNPADDED = "sdpa_without_a_mask"
AttentionInterface.register(UNPADDED, sdpa_attention_forward)
AttentionMaskInterface.register(UNPADDED, lambda *_, **__: None)
CONTEXT = 2**30  # CUDA's context and its libraries' workspaces: commonly 0.5 to 1 GiB


@dataclass(frozen=True)
class Memory:
    """Bytes by part. `kept` stays throughout; of the other three only one is there at a time."""

    kept: dict[str, int]
    training: dict[str, int]
    update: dict[str, int]
    sampling: dict[str, int]

    @property
    def total(self) -> int:
        """The estimated peak, CUDA's own share included."""
        moments = (self.training, self.update, self.sampling)
        return sum(self.kept.values()) + max(sum(moment.values()) for moment in moments)


class Blueprint:
    """A model without content, with the recipe's adapter on it."""

    def __init__(
        self, configuration: PreTrainedConfig, untied: bool, settings: ModelSection,
        quantization: LibrarySettings | None, lora: LibrarySettings | None,
    ) -> None:  # fmt: skip
        """Build it from a configuration; `untied` where the files hold an output matrix of their own.

        Raises:
            InputError: the adapter's target modules are none of the model's.
        """
        quantized = BitsAndBytesConfig(**quantization) if quantization else None
        self._dtype: torch.dtype = getattr(torch, settings.dtype)
        kind = AutoModelForSeq2SeqLM if configuration.is_encoder_decoder else AutoModelForCausalLM
        attention = UNPADDED if settings.attn_implementation == "flash_attention_2" else settings.attn_implementation
        with torch.device("meta"):
            self.model: Any = kind.from_config(configuration, dtype=self._dtype, attn_implementation=attention)
            embeddings, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
            if untied and head.weight is embeddings.weight:  # Transformers' T5 classes tie them, mT5's files do not
                head.weight = torch.nn.Parameter(torch.empty_like(embeddings.weight))
        self.modules = [name for name, _ in self.model.named_modules() if name]  # of the base alone
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.vocabulary: int = head.weight.shape[0]
        skipped = (quantization or {}).get("llm_int8_skip_modules") or get_keys_to_not_convert(self.model)
        self.quantized_parameters = sum(
            module.weight.numel()
            for name, module in self.model.named_modules()
            if quantized and type(module) in (torch.nn.Linear, Conv1D) and should_convert_module(name, skipped)
        )
        self.dequantized: int = 0  # bytes
        self._in_8_bits = self.quantized_parameters if quantized and quantized.load_in_8bit else 0
        if quantized and quantized.load_in_4bit:
            self.dequantized = self.quantized_parameters * quantized.bnb_4bit_compute_dtype.itemsize
            # bitsandbytes makes its tables once: not among the tensors without content.
            quantize_4bit(torch.zeros(64), compress_statistics=True, quant_type=quantized.bnb_4bit_quant_type)
            self.model = replace_with_bnb_linear(self.model, skipped, quantized)
            self.model.is_loaded_in_4bit = True
        self.lora = lora is not None
        if lora is not None:
            try:
                adapter = LoraConfig(task_type="CAUSAL_LM", **lora)
                with replaced(dora, "deepcopy", self._plain):
                    self.model = get_peft_model(self.model, adapter, low_cpu_mem_usage=True)
            except ValueError as error:
                raise InputError(f"lora: PEFT refuses it: {' '.join(str(error).split())[:200]}") from None
        self._inner = self.model.get_base_model() if self.lora else self.model
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._width = 4 if self.lora else self._dtype.itemsize
        self.model.train()  # also where it samples: so does a trainer's

    def _plain(self, layer: Linear4bit) -> torch.nn.Linear:
        """What DoRA takes the norms of, in place of a copy of a layer in 4 bits, which needs content."""
        return torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta", dtype=self._dtype)

    @property
    def trained_parameters(self) -> int:
        """The number of values that training changes."""
        return sum(parameter.numel() for parameter in self._trained)

    def weights(self) -> int:
        """Bytes of the base as it lies on the GPU: in the recipe's dtype, or as bitsandbytes holds it, scales included.

        Of 8 bits the scales (a float32 a row) are left out: under 0.5 %.
        """
        with self._content_free() as (frozen, trained):
            tensors = frozen if self.lora else [*frozen, *trained]
            size = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        return int(size - self._in_8_bits * (self._dtype.itemsize - 1))

    def trained(self) -> int:
        """Bytes of the trained values: an adapter in float32 (`grpo_cot.training`), full weights in their dtype."""
        return self.trained_parameters * self._width

    def optimiser(self, work: Workload) -> tuple[int, int]:
        """Bytes of the optimiser's state, and of its temporary tensors during a step.

        Raises:
            InputError: no estimate is known for this optimiser.
        """
        shapes = [tuple(parameter.shape) for parameter in self._trained]
        return (
            optimiser_state(work.optimiser, shapes, self._width),
            optimiser_step(work.optimiser, shapes, self._width, on_gpu=work.on_gpu),
        )

    def cache(self, tokens: int) -> int:
        """Bytes of keys and values of that many tokens in the recipe's dtype: two tensors a layer."""
        configuration = self.model.config
        heads = getattr(configuration, "num_key_value_heads", None) or configuration.num_attention_heads
        size = (
            getattr(configuration, "head_dim", None) or configuration.hidden_size // configuration.num_attention_heads
        )
        return int(2 * configuration.num_hidden_layers * heads * size * self._dtype.itemsize * tokens)

    def step(self, work: Workload) -> dict[str, int]:
        """Bytes by part when a forward and a backward pass are at their fullest; weights and optimiser aside.

        Gradient checkpointing is the recipe's: each layer's input is kept, and one layer at a time is computed again
        (Chen et al., 2016).
        """
        if work.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
            if self.lora:
                self.model.enable_input_require_grads()
        live = LiveBytes(self.part)
        with self._content_free() as (frozen, trained):
            live.ignore([*frozen, *trained])
            with live, _autocast(work) as forward:
                for parameter in trained:
                    if work.accumulates:
                        parameter.grad = torch.zeros_like(parameter)
                        live.assign([parameter.grad], "gradients")
                    parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                        lambda one: live.assign([one.grad], "gradients")
                    )
                self._loss(work, forward).backward()  # type: ignore[no-untyped-call]
        self.model.gradient_checkpointing_disable()
        if work.checkpointing and self.lora:
            self.model.disable_input_require_grads()
        return live.peaks[""]

    def sampling(self, work: Workload) -> dict[str, int]:
        """Bytes by part when Transformers samples, at the fullest: while it reads the prompts, or at the last token."""
        if not work.drawn:
            return {}
        live = LiveBytes(self.part)
        cache = DynamicCache(config=self.model.config)
        with self._content_free() as (frozen, trained):
            live.ignore([*frozen, *trained])
            # PEFT's generate() calls the model within, which Accelerate has not put under autocast.
            with live, torch.no_grad(), _autocast(replace(work, autocast=work.autocast and not self.lora)) as forward:
                live.moment("prompts")
                call = partial(forward, self._inner)
                read_prompts(call, cache, as_read(work, self._inner))
                live.moment("last token")
                lengthen(cache, work.drawn_length - 1)
                live.assign((part for layer in cache.layers for part in (layer.keys, layer.values)), "KV cache")
                sampled_token(call, cache, work, 1, work.drawn_length)
        return max(live.peaks.values(), key=lambda parts: sum(parts.values()))

    def _loss(self, work: Workload, forward: Any) -> torch.Tensor:
        """The forward pass and the trainer's loss."""
        # A mask is given, as it is unless all sequences happen to be of one length: attention keeps more then.
        ids, mask = (torch.ones(work.rows, work.length, dtype=torch.long) for _ in range(2))
        inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        if work.loss == "usual":
            labels = torch.zeros(work.rows, work.targets, dtype=torch.long)
            if self.model.config.is_encoder_decoder:
                inputs["decoder_input_ids"] = labels
            outputs = forward(self.model, **inputs, labels=labels)
            if not (work.on_gpu or self.model.config.is_encoder_decoder):
                with torch.no_grad():  # a metric of SFTTrainer; on a GPU the kernel for it makes no copies
                    entropy_from_logits(outputs.logits[:, :-1])
            loss: torch.Tensor = outputs.loss
            return loss
        if work.loss == "chunked":
            return self._chunked(forward, inputs)
        shared = as_read(work, self._inner)
        if shared.group > 1:
            rows = self._shared_rows(shared)
            logits = forward(self.model, **rows).logits.reshape(-1, work.targets, self.vocabulary)
        else:
            seen: list[torch.Tensor] = []  # what the output layer reads: PPO makes its values of it
            hook = self._inner.get_output_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
            logits = forward(self.model, **inputs, logits_to_keep=work.targets + 1).logits[:, :-1]
            hook.remove()
            logits = logits[:, -work.targets :]  # TRL takes it again; its gradient is one more copy for a moment
        if work.loss == "preference":
            with torch.no_grad():
                reference = forward(self.model, **inputs).logits  # alive until the loss is there
        ids = torch.zeros(logits.shape[:2], dtype=torch.long)
        if work.on_gpu:
            values: torch.Tensor = _FusedLogProbabilities.apply(logits)  # type: ignore[no-untyped-call]
        else:
            values, _ = selective_log_softmax_and_entropy(
                logits, ids, entropy_requires_grad=False, temperature=work.temperature, row_mask=torch.ones_like(ids)
            )
        del logits
        if work.loss == "preference":
            del reference
        if work.loss == "actor_critic":
            return values.sum() + (seen[0][:, :-1].float() @ torch.ones(seen[0].shape[-1], 1)).sum()
        return values.sum()

    def _shared_rows(self, work: Workload) -> dict[str, Any]:
        """The arguments of a model that reads each prompt once: a row holds it and its completions."""
        groups, tokens = work.rows // work.group, work.length - work.targets - 1 + work.group * work.targets
        ids = torch.ones(groups, tokens, dtype=torch.long)
        return {
            "input_ids": ids, "position_ids": ids, "use_cache": False, "logits_to_keep": work.group * work.targets,
            "attention_mask": torch.ones(groups, 1, tokens, tokens, dtype=torch.bool),
        }  # fmt: skip

    def _chunked(self, forward: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's `chunked_nll`: the output layer on some positions at a time, each computed again for its gradient."""
        hidden = forward(self._inner.base_model, **inputs).last_hidden_state[:, :-1]
        hidden = hidden.reshape(-1, hidden.shape[-1])
        hidden = hidden[torch.arange(len(hidden))]  # TRL packs the positions that count
        head, size = self._inner.get_output_embeddings(), _CHUNKED_LM_HEAD_CHUNK_SIZE
        loss = torch.zeros(())
        for chunk in hidden[: 2 * size].split(size):  # a third one would find the same as the second
            labels = torch.zeros(len(chunk), dtype=torch.long)
            parts = (chunk, head.weight, head.bias, labels, 1.0, None)
            loss = loss + checkpoint(_chunk, *parts, use_reentrant=False, preserve_rng_state=False)[0]
        return loss

    def part(self, tensor: torch.Tensor, operation: Any) -> str:
        """The part of the memory that a new tensor of an operation belongs to, for `LiveBytes`."""
        if operation is not None and operation.namespace == "bitsandbytes" and "dequantize_4bit" in operation.name():
            return "dequantized layer"
        return "logits" if tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary else "activations"

    @contextmanager
    def _content_free(self) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
        """Inside, fake tensors of a CPU take the places of those on the meta device; yields the frozen and the trained
        ones, each once.

        On the CPU torch chooses attention kernels as on a GPU; on the meta device it takes the one that keeps all
        scores.
        """
        fakes: dict[torch.Tensor, torch.Tensor] = {}
        places: list[tuple[dict[str, Any], str, torch.Tensor]] = []
        frozen: list[torch.Tensor] = []
        trained: list[torch.Tensor] = []
        with FakeTensorMode(allow_non_fake_inputs=True), replaced(dora, "dequantize_module_weight", _dequantized):
            for module in self.model.modules():
                owners: list[dict[str, Any]] = [module._parameters, module._buffers]
                for tensors, name in [(owner, name) for owner in owners for name in owner if owner[name] is not None]:
                    tensor = tensors[name]
                    places.append((tensors, name, tensor))
                    if tensor not in fakes:
                        fake = fakes[tensor] = self._fake(module, name, tensor)
                        (trained if fake.requires_grad else frozen).append(fake)
                        frozen += scales(getattr(fake, "quant_state", None))
                    tensors[name] = fakes[tensor]
            try:
                yield frozen, trained
            finally:
                for tensors, name, tensor in places:
                    tensors[name] = tensor

    def _fake(self, module: torch.nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        if tensor.requires_grad:
            dtype = torch.float32 if self.lora else self._dtype
        else:
            dtype = module.compute_dtype if isinstance(module, Linear4bit) and name == "bias" else self._dtype
        new = torch.empty(tensor.shape, dtype=dtype, device="cpu")
        if not (isinstance(module, Linear4bit) and name == "weight"):
            return torch.nn.Parameter(new, requires_grad=tensor.requires_grad)
        weight: Any = module.weight
        packed, state = quantize_4bit(
            new, blocksize=weight.blocksize, compress_statistics=weight.compress_statistics,
            quant_type=weight.quant_type,
        )  # fmt: skip
        parameter = torch.nn.Parameter(packed, requires_grad=False)
        parameter.quant_state = state  # type: ignore[attr-defined]  # where bitsandbytes' layer looks for it
        return parameter


def _dequantized(layer: torch.nn.Module) -> Any:
    """The weight that DoRA computes with; PEFT knows one in 4 bits by its class, which it does not have here."""
    weight: Any = layer.weight
    return dequantize_4bit(weight, weight.quant_state) if isinstance(layer, Linear4bit) else weight


class _FusedLogProbabilities(torch.autograd.Function):
    """The memory of TRL's kernel for a GPU (trl/kernels/logprob_entropy.py): the logits, and a gradient as large."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits)
        return logits.new_empty(logits.shape[:-1], dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (logits,) = ctx.saved_tensors
        return torch.empty_like(logits, memory_format=torch.contiguous_format)


def estimate(blueprint: Blueprint, work: Workload) -> Memory:
    """The memory of one phase, by part.

    Raises:
        InputError: the optimiser is none that an estimate is known for.
    """
    constant = {"weights": blueprint.weights()}
    if blueprint.dequantized and not work.on_gpu:
        constant["dequantized weights"] = blueprint.dequantized  # `grpo_cot.models.loading` keeps them on a CPU
    if blueprint.lora:
        constant["adapter"] = blueprint.trained()
    if work.reference:
        constant["reference"] = blueprint.trained()
    constant["optimiser"], temporary = blueprint.optimiser(work)
    if work.on_gpu:
        constant["CUDA itself"] = CONTEXT
    update = {"gradients": blueprint.trained()} | ({"optimiser's step": temporary} if temporary else {})
    return Memory(constant, blueprint.step(work), update, blueprint.sampling(work))


@contextmanager
def _autocast(work: Workload) -> Iterator[Any]:
    """Yields a call of a model as Accelerate makes it: under autocast, with its outputs turned into float32.

    On a CPU half precision casts the same operations as on a GPU, as far as a Transformer has them.
    """
    if not work.autocast:
        yield lambda model, **inputs: model(**inputs)
        return
    before = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", work.on_gpu)  # PEFT asks this flag whether to cast by itself
    try:
        yield convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(lambda model, **inputs: model(**inputs)))
    finally:
        torch.set_autocast_enabled("cuda", before)


def scales(state: Any) -> list[torch.Tensor]:
    """A quantization's scales and the scales of scales; not the tables of values, which all layers share."""
    if state is None:
        return []
    return [state.absmax, *([] if state.offset is None else [state.offset]), *scales(state.state2)]
