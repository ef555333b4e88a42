"""The proof, at every sync, that the sampler samples from what the trainer trains.

A policy that is sampled from other weights than the ones in training learns from nobody's mistakes, and nothing in the
reward curve says so. Three things are compared after every generation: the adapter as the sampler was given it with
the trainer's, the frozen weights with what they were when the training began, and the log-probabilities of the sampled
tokens by both. Each is a curve (`sync/...`), and the training stops at the first that does not hold.

Nothing here knows vLLM: a trainer is TRL's GRPOTrainer or a subclass of it (Unsloth's), and an adapter request is
anything with `lora_path`, or with `lora_tensors` (Unsloth's).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from grpo_cot.common.errors import InputError
from grpo_cot.vllm.arguments import ROLLOUTS_INSTEAD as INSTEAD

Tensors = Mapping[str, torch.Tensor]
BLOCK = 2**24  # bytes that are summed at once: four times as much is needed beside the weights


def checksum(tensors: Iterable[torch.Tensor]) -> int:
    """A number that changes with any change of one 8-byte word of the tensors' bytes, or of their order.

    The bytes are read as 64-bit integers and summed modulo 2^64, each times an odd pseudorandom number of its place;
    several changes at once cancel with a chance of about 2^-60. Exact, on the device where the tensors are, with one
    synchronisation: checksums of one device compare, those of two do not.
    """
    total = None
    for block in _blocks(tensors):
        words = block.view(torch.int64)
        part = (words * _weights(BLOCK // 8, words.device)[: len(words)]).sum()
        total = part if total is None else total * 0x5DEECE66D + part
    return 0 if total is None else int(total)


@cache
def _weights(count: int, device: torch.device) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(0)
    return torch.empty(count, dtype=torch.int64, device=device).random_(generator=generator).mul_(2).add_(1)


def _blocks(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """All tensors' bytes, one after the other, in copies of at most BLOCK bytes, filled up to whole words."""
    waiting: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        for piece in torch.split(_bytes(tensor), BLOCK):
            if size + len(piece) > BLOCK:
                yield _joined(waiting, size)
                waiting, size = [], 0
            waiting.append(piece)
            size += len(piece)
    if size:
        yield _joined(waiting, size)


def _joined(pieces: list[torch.Tensor], size: int) -> torch.Tensor:
    return torch.cat([*pieces, pieces[0].new_zeros(-size % 8)])


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def frozen_tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Every parameter that is not trained, as stored: of a 4-bit one the packed weights, and all of its scales."""
    for parameter in model.parameters():
        if not parameter.requires_grad:
            yield parameter.data
            state = getattr(parameter, "quant_state", None)
            while state is not None:  # the scales, and with double quantization the scales of the scales
                yield from (part for part in (state.absmax, state.code, state.offset) if part is not None)
                state = state.state2


def adapter_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """The trained adapter's live parameters by the names that PEFT's files have."""
    return dict(
        get_peft_model_state_dict(
            model,
            state_dict=dict(model.named_parameters()),  # the model's own would pack every 4-bit scale
            adapter_name="default",
            save_embedding_layers=False,
        )
    )


class Form(NamedTuple):
    """A tensor's shape and type, and the checksum of its bytes."""

    shape: torch.Size
    dtype: torch.dtype
    checksum: int


Given = Mapping[str, Form]  # an adapter by the names of its tensors


def forms(tensors: Tensors) -> Given:
    """What the tensors hold now."""
    return {name: Form(part.shape, part.dtype, checksum([part])) for name, part in tensors.items()}


def requests(llm: Any, device: torch.device) -> Callable[[], Given | None]:
    """Have a vllm.LLM note what each adapter request holds when it is first asked with; what returns the last one's.

    A request names a file, or holds tensors, which may be the trainer's own (Unsloth's are): whatever the trainer does
    with them later, what counts is what they were. And vLLM loads the adapter of a number once: asked again with that
    number, it samples with what it has, whatever the request holds by then.
    """
    noted: dict[int, Given] = {}
    asked: list[Any] = [None]
    generate = llm.generate

    def noting(*positional: Any, lora_request: Any = None, **settings: Any) -> Any:
        asked[0] = lora_request
        if lora_request is not None and lora_request.lora_int_id not in noted:
            noted[lora_request.lora_int_id] = forms(delivered_tensors(lora_request, device))
        return generate(*positional, lora_request=lora_request, **settings)

    llm.generate = noting
    return lambda: None if asked[0] is None else noted[asked[0].lora_int_id]


def delivered_tensors(request: Any, device: torch.device) -> Tensors:
    """The adapter's tensors that an adapter request hands to the sampler: those in it, or those in its file."""
    tensors: Tensors | None = getattr(request, "lora_tensors", None)
    return tensors or load_file(Path(request.lora_path) / "adapter_model.safetensors", device=str(device))


def log_probability_gap(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What the trainer's and the sampler's log-probabilities of the sampled tokens are apart.

    `batch` is what a GRPO trainer makes of its completions: `old_per_token_logps` and `sampling_per_token_logps`
    (rows, tokens; nats, both at the sampling temperature), `completion_mask`, `prompt_mask`, and `tool_mask` where
    there are tools. Returns three numbers: the sum of the absolute differences, the number of tokens, and how many of
    these have no log-probability.
    """
    sampler, mask = batch["sampling_per_token_logps"], batch["completion_mask"].bool()
    if "tool_mask" in batch:
        mask = mask & batch["tool_mask"].bool()
    trainer = batch["old_per_token_logps"]
    if shift := trainer.size(1) - sampler.size(1):
        # Unsloth moves a row's padding from its left to its right, so that completions begin at different places.
        begins = shift - (batch["prompt_mask"] == 0).sum(dim=1, keepdim=True)
        trainer = trainer.gather(1, begins + torch.arange(sampler.size(1), device=begins.device))
    apart = (trainer.double() - sampler.double()).abs()[mask]
    return torch.stack([apart.nansum(), mask.sum().double(), apart.isnan().sum().double()])


@dataclass
class SyncAttestation:
    """What is compared at every sync; `attest` puts it into a trainer.

    `limit` is the largest mean gap of the log-probabilities, in nats. `given` says what the adapter held that the
    sampler was last asked with (`requests`); without it the weights are merged, and there is no adapter to compare.
    """

    limit: float
    given: Callable[[], Given | None] | None = None
    _base: int | None = field(default=None, init=False)  # the frozen weights' checksum when the training began
    _seen: set[frozenset[Any]] = field(default_factory=set, init=False)  # the trained adapter at all steps so far

    def begin(self, model: torch.nn.Module) -> None:
        """Remember the frozen weights, the first time."""
        if self._base is None:
            self._base = checksum(frozen_tensors(model))

    def weights(self, model: Any) -> dict[str, float]:
        """Compare adapter and frozen weights; what holds, as metrics.

        Raises:
            InputError: the sampler was given another adapter than the trainer has, or the frozen weights changed.
        """
        held = {}
        if self.given is not None:
            self._check_adapter(adapter_tensors(model), self.given())
            held["sync/adapter_delivered"] = 1.0
        if not all(parameter.requires_grad for parameter in model.parameters()):
            if checksum(frozen_tensors(model)) != self._base:
                raise InputError(
                    "the base's weights are not those that the training began with, though they are frozen: something "
                    f"wrote into them, as merging an adapter and taking it out again does; take that out, or {INSTEAD}"
                )
            held["sync/base_unchanged"] = 1.0
        return held

    def _check_adapter(self, live: Tensors, given: Given | None) -> None:
        if given is None:
            raise InputError(
                f"vLLM was asked without the adapter: it sampled from the base; take that out, or {INSTEAD}"
            )
        if {name: tensor.shape for name, tensor in live.items()} != {name: form.shape for name, form in given.items()}:
            other = sorted(live.keys() ^ given.keys())
            raise InputError(
                f"the adapter that vLLM was given has other tensors than the trainer's ({len(other)} names differ, "
                f"{other[0] if other else 'and a shape'} first): give it the adapter in training, or {INSTEAD}"
            )
        # The sampler computes in a number format of its own, in which it is given the adapter.
        trained = forms({name: tensor.to(given[name].dtype) for name, tensor in live.items()})
        self._seen.add(frozenset(trained.items()))
        if trained == given:
            return
        if frozenset(given.items()) in self._seen:
            raise InputError(
                "vLLM sampled with the adapter of an earlier step, not with the one in training: a sync was left out, "
                f"or its delivery was stale; sync at every step, or {INSTEAD}"
            )
        wrong = sorted(name for name, form in given.items() if trained[name] != form)
        raise InputError(
            f"the adapter that vLLM was given is not the trainer's: {len(wrong)} of {len(given)} tensors differ, "
            f"{wrong[0]} first; look at the disk and memory that it went through, or {INSTEAD}"
        )

    def gap(self, total: float, tokens: float, unscored: float) -> dict[str, float]:
        """Judge the log-probabilities of a whole batch (see `log_probability_gap`).

        Raises:
            InputError: the mean gap is above the limit, or the sampler scored a token with NaN.
        """
        if unscored:
            raise InputError(
                f"vLLM gave {unscored:.0f} of {tokens:.0f} sampled tokens no log-probability (NaN), so it sampled from "
                f"broken logits: look for overflow in its number format, or {INSTEAD}"
            )
        if not tokens:  # all completions were cut off, and are masked: nothing is learnt from them either
            return {}
        if not total / tokens <= self.limit:
            raise InputError(
                f"vLLM's and the trainer's log-probabilities of the sampled tokens differ by {total / tokens:.4f} on "
                f"average, at most {self.limit:g} was expected (rollouts.log_probability_gap): look for another base, "
                "number format or logprobs mode (a server takes --logprobs-mode processed_logprobs), or "
                f"{INSTEAD}"
            )
        return {"sync/log_probability_gap": total / tokens}


def attest(trainer: Any, attestation: SyncAttestation) -> None:
    """Have a trainer compare both sides after every generation, log what it finds, and stop where one does not hold.

    The trainer must score its completions itself (`vllm_importance_sampling_correction`), as it does by default: that
    pass gives the log-probabilities, and no other is made.
    """
    generate_and_score = trainer._generate_and_score_completions

    def attested(inputs: Any) -> Any:
        attestation.begin(trainer.model)
        batch = generate_and_score(inputs)
        metrics: dict[str, float] = {}
        wrong = None
        found = trainer.accelerator.reduce(log_probability_gap(batch), "sum").tolist()
        try:
            metrics = attestation.weights(trainer.model) | attestation.gap(*found)
        except InputError as error:
            wrong = str(error)
        # All processes stop together: one alone would leave the others waiting for it.
        for sentence in gather_object([wrong]):
            if sentence:
                raise InputError(f"step {trainer.state.global_step + 1}: {sentence}")
        for name, value in metrics.items():
            trainer._metrics["train" if trainer.model.training else "eval"][name].append(value)
        return batch

    trainer._generate_and_score_completions = attested
