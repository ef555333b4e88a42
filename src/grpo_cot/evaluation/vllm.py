"""Completions by vLLM: the base quantized in flight, the adapter as a LoRA request and never merged.

Nothing here imports vLLM before it is asked for completions.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json
from grpo_cot.evaluation.pairs import Ask
from grpo_cot.library.lora import check_served
from grpo_cot.models.description import ModelDescription, read_description
from grpo_cot.models.generation import Completion, completion, encode
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.models.turns import stop_tokens
from grpo_cot.vllm.arguments import check_available, load_arguments, sampling_parameters

ASKED, INSTEAD = "evaluate.engine is 'vllm'", "set evaluate.engine to transformers"
CHUNK = 1024  # prompts that vLLM is given at once, and that a kill can lose


def engine_arguments(description: ModelDescription, weights: Path) -> dict[str, Any]:
    """The arguments of vllm.LLM, but for the model's folder, that load the base as training did.

    `weights` is the folder of the adapter, or of the full weights.

    Raises:
        InputError: vLLM cannot load it so.
    """
    if description.architecture != "causal":
        raise InputError(f"{ASKED}, which runs no encoder-decoders; {INSTEAD}")
    rank = None
    if description.kind == "adapter":
        adapter = read_json(weights / "adapter_config.json")
        check_served(adapter, str(weights / "adapter_config.json"), INSTEAD)
        rank = adapter["r"]
    return load_arguments(description.model, description.quantization, rank, asked=ASKED, instead=INSTEAD)


def answer_both(
    model_json: Path, asks: Sequence[Ask], *, batch_size: int, chat_template_kwargs: Mapping[str, Any], seed: int,
    finished: MutableMapping[str, Any],
) -> dict[str, dict[str, list[Completion]]]:  # fmt: skip
    """For `base` and `trained`, the completions of every ask by its name.

    Up to `batch_size` sequences are in work at once. Chunks of completions are stored in `finished`, and taken from
    there where they are. The engines have ended when this returns, and their memory is free.

    Raises:
        InputError: vLLM is absent, or cannot do as the recipe says.
    """
    description = read_description(model_json)
    weights = model_json.parent / description.path
    arguments = engine_arguments(description, weights)
    places = {"greedy": "evaluate.sampling", "samples": "evaluate.samples.sampling"}
    parameters = {ask.name: sampling_parameters(ask.sampling, places[ask.name]) for ask in asks}
    check_available(ASKED, INSTEAD)
    base = Path(description.base)
    tokenizer = load_tokenizer(base)
    # For each engine its models, each with its adapter: an adapter's base is the same engine without it.
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
        self._ends = defaults.eos_token_id
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
        ends = stop_tokens(self._ends, tokenizer)
        request = LoRARequest("trained", 1, str(adapter)) if adapter else None
        completions: list[Completion] = []
        for start in range(0, len(encoded), CHUNK):
            name = f"{model} {ask.name} {start // CHUNK}"
            if name not in finished:
                chunk = encoded[start : start + CHUNK]
                settings = [
                    SamplingParams(**parameters, stop_token_ids=ends, seed=self._seed + start + position)
                    for position in range(len(chunk))
                ]
                inputs = [{"prompt_token_ids": ids} for ids in chunk]
                outputs = self._llm.generate(inputs, settings, lora_request=request)
                stops, limit = parameters.get("stop") or [], parameters["max_tokens"]
                finished[name] = [
                    completion(output.outputs[0].token_ids, tokenizer, set(ends), stops, limit) for output in outputs
                ]
            completions += [Completion(*fields) for fields in finished[name]]
        return completions
