"""A sampler behind vLLM's interface, for machines without a GPU: a second real copy of the base in Transformers.

It reads the delivered adapter from its folder, samples with it, and says the log-probabilities.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from support import ROOT

BASE = ROOT / "assets/tiny/model"
NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}


class LoRARequest(NamedTuple):
    """vLLM 0.30's, which has more."""

    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class SamplingParams:
    """vLLM 0.30's, which has more."""

    n: int
    repetition_penalty: float
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_tokens: int
    logprobs: int


class Engine:
    """What TRL and grpo_cot use of vllm.LLM, with vLLM 0.30's names: no other is accepted."""

    latest: "Engine"

    def __init__(
        self, *, model: str, dtype: str, seed: int, tensor_parallel_size: int, gpu_memory_utilization: float,
        max_model_len: int, max_num_seqs: int, enable_sleep_mode: bool, model_impl: str,
        distributed_executor_backend: str, max_num_batched_tokens: int, logprobs_mode: str, trust_remote_code: bool,
        quantization: str | None = None, enable_lora: bool = False, max_lora_rank: int = 16,
    ) -> None:  # fmt: skip
        import torch
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        Engine.latest = self
        self.arguments = {name: value for name, value in locals().items() if name in Engine.__init__.__annotations__}
        self.launched = {name: os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        bits = BitsAndBytesConfig(**NF4 | {"bnb_4bit_compute_dtype": dtype}) if quantization else None
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, dtype), quantization_config=bits, device_map={"": "cpu"}
        )
        self.asleep: set[str] = set()
        self.events: list[Any] = []
        inner = SimpleNamespace(load_weights=self.load_weights)
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=inner))
        self.llm_engine = SimpleNamespace(
            remove_lora=self.remove_lora, model_executor=SimpleNamespace(driver_worker=worker)
        )

    def sleep(self, level: int) -> None:
        self.events.append(f"sleep {level}")
        self.asleep = {"weights", "kv_cache"}

    def wake_up(self, tags: list[str]) -> None:
        self.asleep -= set(tags)

    def reset_prefix_cache(self) -> None:
        self.events.append("forget prefixes")

    def remove_lora(self, lora_id: int) -> None:
        self.events.append(f"remove {lora_id}")
        self.model.delete_adapter(str(lora_id))

    def load_weights(self, pairs: list[tuple[str, Any]]) -> None:
        assert "weights" not in self.asleep
        for name, value in pairs:
            self.model.get_parameter(name).data.copy_(value)

    def load_adapter(self, request: LoRARequest) -> None:
        from peft import PeftModel

        name = str(request.lora_int_id)
        if not isinstance(self.model, PeftModel):
            self.model = PeftModel.from_pretrained(self.model, request.lora_path, adapter_name=name)
        elif name not in self.model.peft_config:  # as vLLM, which reads an id's folder once
            self.model.load_adapter(request.lora_path, name)
        self.model.set_adapter(name)
        self.model.train()  # in evaluation a 4-bit model on the CPU computes with other kernels than in training

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: SamplingParams, *, use_tqdm: bool,
        lora_request: LoRARequest | None = None,
    ) -> list[Any]:  # fmt: skip
        import torch

        assert not self.asleep
        if lora_request is not None:
            self.events.append(f"sample with {lora_request.lora_name}")
            self.load_adapter(lora_request)
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        width = max(map(len, ids))
        padded = torch.tensor([[0] * (width - len(row)) + row for row in ids])
        drawn = self.model.generate(
            input_ids=padded, attention_mask=(torch.arange(width) >= width - torch.tensor([[len(row)] for row in ids])),
            do_sample=True, temperature=sampling_params.temperature, top_k=0, top_p=1.0, output_scores=True,
            max_new_tokens=sampling_params.max_tokens, return_dict_in_generate=True,
        )  # fmt: skip
        tokens = drawn.sequences[:, width:]
        scored = torch.stack(drawn.scores, dim=1).log_softmax(-1).gather(2, tokens[..., None])[..., 0]
        outputs = []
        for prompt, row, values in zip(ids, tokens.tolist(), scored.tolist(), strict=True):
            row = row[: row.index(2) + 1] if 2 in row else row
            said = [{token: SimpleNamespace(rank=1, logprob=value)} for token, value in zip(row, values, strict=False)]
            outputs.append(
                SimpleNamespace(prompt_token_ids=prompt, outputs=[SimpleNamespace(token_ids=row, logprobs=said)])
            )
        return outputs


class Client:
    """What TRL uses of its client of a vLLM server."""

    def __init__(self, **_: Any) -> None:
        unused = dict.fromkeys(
            ("tensor_parallel_size", "gpu_memory_utilization", "max_model_len", "max_num_seqs", "enable_sleep_mode",
             "model_impl", "distributed_executor_backend", "max_num_batched_tokens", "logprobs_mode",
             "trust_remote_code", "seed"),
        )  # fmt: skip
        self.engine = Engine(model=str(BASE), dtype="float32", **unused)
        self.metadata: list[Any] = []

    def init_communicator(self, device: Any) -> None: ...

    def update_named_params(self, metadata: list[Any], parameters: Iterator[tuple[str, Any]]) -> None:
        for (name, kind, shape), (sent, value) in zip(metadata, parameters, strict=True):
            assert (name, kind, shape) == (sent, str(value.dtype).removeprefix("torch."), list(value.shape))
            self.engine.load_weights([(name, value)])

    def reset_prefix_cache(self) -> None: ...

    def generate(self, prompts: list[list[int]], features: None, n: int, **sampling: Any) -> dict[str, Any]:
        names = SamplingParams.__dataclass_fields__.keys() & sampling.keys()
        parameters = SamplingParams(n=1, **{name: sampling[name] for name in names})
        asked = [{"prompt_token_ids": prompt} for prompt in prompts for _ in range(n)]
        outputs = [output.outputs[0] for output in self.engine.generate(asked, parameters, use_tqdm=False)]
        values = [[[entry.logprob for entry in token.values()] for token in output.logprobs] for output in outputs]
        return {"prompt_ids": prompts, "completion_ids": [output.token_ids for output in outputs], "logprobs": values}
