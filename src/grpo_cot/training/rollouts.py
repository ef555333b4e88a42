"""Rollouts by vLLM in GRPO: how it loads the base, how it gets the weights in training, and the attestation of both.

TRL synchronises by merging the adapter into the base, pushing all weights and subtracting the adapter again. On a
4-bit base that loses most of the adapter and moves the base; on any base rounding moves it a little at every step. So
with `sync: adapter` vLLM keeps the base that it loaded and is given the adapter alone, as a LoRA request with an id
that it has not seen; and with `sync: merge` the adapter is merged into a copy of one layer at a time.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from trl import GRPOTrainer
from trl.generation import vllm_generation
from trl.trainer import grpo_trainer

from grpo_cot.recipes.phases import GrpoPhase, RolloutsSection
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.training.attestation import SyncAttestation, adapter_tensors, attest, requests
from grpo_cot.vllm.arguments import ROLLOUTS_INSTEAD, check_available, rollout_arguments

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what TRL sets for vLLM to read


def rollout_trainer(recipe: Recipe, phase: GrpoPhase, arguments: Mapping[str, Any]) -> Any:
    """TRL's trainer, made with `arguments`, with attested rollouts by vLLM as `phase.rollouts` says.

    Raises:
        InputError: vLLM is not there, or cannot sample what is trained.
    """
    assert phase.rollouts is not None
    where = f"phases.{recipe.phases.index(phase) + 1}"
    engine = rollout_arguments(recipe, phase, where)
    check_available(f"{where}.grpo.use_vllm is true", ROLLOUTS_INSTEAD)
    return attested_trainer(arguments, phase.rollouts, engine)


def attested_trainer(arguments: Mapping[str, Any], rollouts: RolloutsSection, engine: Mapping[str, Any]) -> Any:
    """As `rollout_trainer`, without its checks; `engine` is how vLLM loads the base (`rollout_arguments`)."""
    if rollouts.sync == "shared":  # Unsloth has put its trainer in TRL's place, and started the engine
        trainer = GRPOTrainer(**arguments)
        _stop_at_turn_ends(trainer)
        given = requests(trainer.vllm_generation.llm, trainer.accelerator.device)
        attest(trainer, SyncAttestation(rollouts.log_probability_gap, given))
        return trainer

    def generation(*positional: Any, **settings: Any) -> Generation:
        kind = AdapterGeneration if rollouts.sync == "adapter" else Generation
        return kind(*positional, engine=engine, configuration=arguments["args"], **settings)

    # The constructor names the class itself: for as long as it runs, the name means ours.
    with replaced(grpo_trainer, "VLLMGeneration", generation):
        trainer = GRPOTrainer(**arguments)
    _stop_at_turn_ends(trainer)
    attestation = SyncAttestation(rollouts.log_probability_gap)
    if rollouts.sync == "adapter":
        attestation.given = requests(trainer.vllm_generation.llm.llm, trainer.accelerator.device)
    attest(trainer, attestation)
    return trainer


def _stop_at_turn_ends(trainer: Any) -> None:
    """Have vLLM stop where the trainer takes a completion for ended; by itself it knows the base's files alone."""
    stops = {"stop_token_ids": sorted(trainer.eos_token_ids)}
    trainer.vllm_generation.generation_kwargs = {**(trainer.vllm_generation.generation_kwargs or {}), **stops}


@dataclass
class AdapterEngine:
    """vllm.LLM on a base that stays, asked with the adapter that it was given last."""

    llm: Any
    adapter: Any = None  # the request

    def __getattr__(self, name: str) -> Any:
        """All else is the engine's own."""
        return getattr(self.llm, name)

    def generate(self, *positional: Any, **settings: Any) -> Any:
        """As vllm.LLM's, with the adapter."""
        return self.llm.generate(*positional, lora_request=self.adapter, **settings)

    def sleep(self, level: int) -> None:
        """Free the GPU; unlike at TRL's level 2 the base waits in the host's memory, for nobody pushes it again."""
        self.llm.sleep(level=min(level, 1))


class Generation(vllm_generation.VLLMGeneration):
    """TRL's rollouts, with the base in vLLM loaded as training loads it, sampled by the run's seed, and never moved."""

    def __init__(self, *positional: Any, engine: Mapping[str, Any], configuration: Any, **settings: Any) -> None:
        """As TRL's; `engine` is how vLLM loads the base, `configuration` the trainer's."""
        self._engine = engine
        self._configuration = configuration
        super().__init__(*positional, **settings)

    def _init_vllm(self) -> None:
        if self.mode == "server":
            super()._init_vllm()
            return
        start = vllm_generation.LLM

        def started(**arguments: Any) -> Any:
            # vLLM seeds the whole process: with TRL's seed, the process's number, all runs would sample alike.
            seed = self._configuration.seed + arguments["seed"]
            return self._wrapped(start(**{**arguments, **self._engine, "seed": seed}))

        # A process that looks like one of several would make the next phase a distributed one.
        environment = {name: os.environ.get(name) for name in LAUNCHED}
        try:
            with replaced(vllm_generation, "LLM", started):
                super()._init_vllm()
        finally:
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def _wrapped(self, llm: Any) -> Any:
        return llm

    def _iter_named_params(self) -> Iterator[tuple[str, torch.Tensor]]:
        """TRL's, but an adapter is merged into copies: adding it and subtracting it does not give the base back."""
        model = self.model
        if not hasattr(model, "peft_config"):
            yield from super()._iter_named_params()
            return
        for name, parameter in model.named_parameters():
            if model.prefix in name or "original_module" in name:
                continue
            layer, inside, _ = name.partition(".base_layer.")
            value = merged(model.get_submodule(layer), parameter) if inside else parameter.data
            name = name.removeprefix("base_model.model.").replace(".base_layer", "")
            yield self._fix_param_name_to_vllm(name, extra_prefixes=["modules_to_save.default."]), value


class AdapterGeneration(Generation):
    """Rollouts from the base in vLLM with the adapter in training, which is handed over as a file and never merged."""

    def __init__(self, *positional: Any, **settings: Any) -> None:
        """As `Generation`."""
        self._folder: TemporaryDirectory[str] | None = None
        self._delivered = 0
        super().__init__(*positional, **settings)

    def _wrapped(self, llm: Any) -> AdapterEngine:
        return AdapterEngine(llm)

    def sync_weights(self) -> None:
        """Give vLLM the adapter as it is now, and have it forget the last one and what it computed with it."""
        if self.enable_sleep_mode:  # TRL counts on the sync to wake the weights
            vllm_generation.empty_cache()
            self.llm.wake_up(tags=["weights"])
            self._llm_weights_sleeping = False
        if self.llm.adapter is not None:
            self.llm.llm_engine.remove_lora(self.llm.adapter.lora_int_id)
        self.llm.adapter = self._deliver()
        self.llm.reset_prefix_cache()

    def _deliver(self) -> Any:
        """Write the adapter, in the number format that vLLM computes in, and a request for it that is not cached."""
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

        kind = getattr(torch, self._engine["dtype"])
        tensors = {name: tensor.detach().to(kind).cpu() for name, tensor in adapter_tensors(self.model).items()}
        if self._folder is None:
            size = sum(tensor.nbytes for tensor in tensors.values())
            self._folder = _scratch(size, Path(self._configuration.output_dir))
            self.model.peft_config["default"].save_pretrained(self._folder.name)
        folder = Path(self._folder.name)
        whole = folder / "adapter_model.safetensors"
        # The file that vLLM may still have mapped stays as it is.
        save_file(tensors, whole.with_suffix(".new"))
        whole.with_suffix(".new").replace(whole)
        self._delivered += 1
        return LoRARequest(f"sync-{self._delivered}", self._delivered, str(folder))


@torch.no_grad()
def merged(layer: BaseTunerLayer, parameter: torch.nn.Parameter) -> torch.Tensor:
    """A parameter of an adapted layer's base with the adapter merged in; the base stays as it is, bit for bit."""
    kept = [(part, part.data) for part in layer.get_base_layer().parameters()]
    for part, data in kept:
        part.data = data.clone()
    layer.merge()
    value = parameter.data.clone()
    layer.unmerge()
    for part, data in kept:
        part.data = data
    return value


def _scratch(size: int, otherwise: Path) -> "TemporaryDirectory[str]":
    """A folder for two adapters of `size` bytes, in shared memory where that has the room (in Docker it is 64 MB)."""
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 4 * size
    if not roomy:
        otherwise.mkdir(parents=True, exist_ok=True)
    return TemporaryDirectory(dir=shared if roomy else otherwise, prefix="adapter-")


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """A module's global name with another meaning, for the length of the block."""
    previous = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, previous)
