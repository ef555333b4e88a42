"""The memory plan against the pipeline's own training: bytes of tensors, estimated and measured, at their peak.

    python bench/memory.py [NAME ...]

Each configuration trains two steps of a random base in Qwen2's shape on this machine's CPU. Every second prompt is as
long as the recipe allows, the others are a little shorter, so that every batch has padding. Measured, in the second
step, when the optimiser's state is there: the tensors that stay, counted, and what torch's allocator hands out beside
them, kernels' own needs included (its events, as the profiler gets them). Estimated: the plan of the same recipe for a
CPU, so without CUDA's own share. Exits with status 1 when a peak is estimated more than 15 % off.
"""

import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, set_seed
from trl import GRPOTrainer

from grpo_cot.common.files import Row, read_yaml
from grpo_cot.memory.estimate import Blueprint, Memory, estimate, scales
from grpo_cot.models.generation import encode
from grpo_cot.models.loading import DEVICE
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.schema import worked
from grpo_cot.training.methods.registry import workload
from grpo_cot.training.phases import train_phases

ROOT = Path(__file__).parent.parent
TINY = ROOT / "assets/tiny/model"
TOLERANCE = 0.15
SHAPE = {
    "model_type": "qwen2", "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 32000, "tie_word_embeddings": True,
}  # fmt: skip
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
COMMON = {
    "max_steps": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-4, "optim": "adamw_torch", "bf16": False,
    "gradient_checkpointing": False, "save_strategy": "no", "logging_steps": 1, "report_to": "none",
    "shuffle_dataset": False,
}  # fmt: skip
GRPO = COMMON | {
    "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 48, "temperature": 0.9,
    "beta": 0.0, "loss_type": "dapo", "scale_rewards": "group",
}  # fmt: skip
SFT = COMMON | {"per_device_train_batch_size": 4, "loss_type": "nll"}
# Name: method, what is trained, quantization, dtype, settings over the method's.
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any] | None, dict[str, Any] | None, str, dict[str, Any]]] = {
    "grpo, full weights": ("grpo", None, None, "float32", {}),
    "grpo, full weights, KL, accumulated": (
        "grpo", None, None, "float32",
        {"beta": 0.04, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    ),
    "grpo, LoRA": ("grpo", LORA, None, "float32", {"per_device_train_batch_size": 16}),
    "grpo, NF4 QLoRA": ("grpo", LORA, NF4 | {"bnb_4bit_compute_dtype": "float32"}, "float32", {}),
    "grpo, NF4 QLoRA, checkpointing": (
        "grpo", LORA, NF4 | {"bnb_4bit_compute_dtype": "float32"}, "float32", {"gradient_checkpointing": True},
    ),
    "sft, full weights": ("sft", None, None, "float32", {}),
    "sft, NF4 QLoRA, bfloat16": (
        "sft", LORA, NF4 | {"bnb_4bit_compute_dtype": "bfloat16"}, "bfloat16",
        {"bf16": True, "per_device_train_batch_size": 8},
    ),
    "sft, NF4 QLoRA, chunked loss, checkpointing": (
        "sft", LORA, NF4 | {"bnb_4bit_compute_dtype": "float32"}, "float32",
        {"loss_type": "chunked_nll", "gradient_checkpointing": True, "per_device_train_batch_size": 16},
    ),
}  # fmt: skip


def main() -> None:
    """Run the configurations named, or all, and print the table."""
    if DEVICE != "cpu":
        sys.exit("this reads torch's allocator for the CPU: run it with CUDA_VISIBLE_DEVICES= (bench/gpu is for GPUs)")
    chosen = sys.argv[1:] or list(CONFIGURATIONS)
    off = []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            started = time.perf_counter()
            recipe, rows = case(*CONFIGURATIONS[name])
            base = random_base(Path(folder) / recipe.model.dtype, recipe.model.dtype)
            kept, peaks = measured(recipe, rows, base, Path(folder) / name)
            blueprint = Blueprint(
                AutoConfig.from_pretrained(base), False, recipe.model, recipe.quantization, recipe.phases[0].lora
            )
            ratio = table(name, estimate(blueprint, workload(recipe, 0, on_gpu=False)), kept, peaks)
            print(f"  {time.perf_counter() - started:.0f} s", flush=True)
            if abs(ratio - 1) > TOLERANCE:
                off.append(name)
    if off:
        sys.exit(f"estimated more than {TOLERANCE:.0%} off: {'; '.join(off)}")


def case(
    method: str, lora: dict[str, Any] | None, quantization: dict[str, Any] | None, dtype: str, settings: dict[str, Any]
) -> tuple[Recipe, list[Row]]:
    """A recipe, and rows of which every second is exactly as long as it allows."""
    content = read_yaml(ROOT / "experiments/tiny-grpo.yaml")
    words = " ".join(["Ben has apples and buys coins."] * 10)
    rows: list[Row] = [
        {
            "id": str(number), "messages": [{"role": "user", "content": words[: len(words) - 30 * (number % 2)]}],
            "gold": "7", "locale": "en", "solution": words,
        }
        for number in range(32)
    ]  # fmt: skip
    tokenizer = load_tokenizer(TINY)
    prompt = len(encode(tokenizer, [rows[0]["messages"]], {})[0])
    answer = tokenizer(worked(words, "7") + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    content["prompt"]["max_prompt_length"] = prompt
    content["rewards"] = {"random": 1.0}
    content["model"] = {"dtype": dtype, "attn_implementation": "sdpa", "threads": torch.get_num_threads()}
    content["quantization"] = quantization
    phase: dict[str, Any] = {"method": method, "lora": lora}
    if method == "grpo":
        phase |= {"rollouts": None, "grpo": GRPO | settings}
    else:
        phase |= {"sft": SFT | {"max_length": prompt + len(answer)} | settings}
    content["phases"] = [phase]
    return Recipe.model_validate(content), rows


def random_base(folder: Path, dtype: str) -> Path:
    """A base in Qwen2's shape with random weights and the embedded model's tokenizer."""
    if not folder.is_dir():
        tokenizer = load_tokenizer(TINY)
        special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        set_seed(1)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPE, **special), dtype=getattr(torch, dtype))
        model.generation_config = GenerationConfig(**special)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def measured(recipe: Recipe, rows: list[Row], base: Path, scratch: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of what stays, by part, and the most beside it by moment, in the second step of the pipeline's training."""
    step, draw = transformers.Trainer.training_step, GRPOTrainer._generate_single_turn
    update = torch.optim.AdamW.step
    watching = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    kept: dict[str, int] = {}

    def training_step(trainer: Any, *arguments: Any, **keywords: Any) -> Any:
        if trainer.state.global_step == 1 and not kept:
            kept.update(staying(trainer, recipe.phases[0].lora is not None))
            watching.start()
        with record_function("training"):
            return step(trainer, *arguments, **keywords)

    def single_turn(trainer: Any, *arguments: Any, **keywords: Any) -> Any:
        with record_function("sampling"):
            return draw(trainer, *arguments, **keywords)

    def adam_step(optimiser: Any, *arguments: Any, **keywords: Any) -> Any:
        with record_function("update"):
            updated = update(optimiser, *arguments, **keywords)
        if kept:
            watching.stop()
        return updated

    transformers.Trainer.training_step, GRPOTrainer._generate_single_turn = training_step, single_turn
    torch.optim.AdamW.step = adam_step  # type: ignore[assignment, method-assign]
    try:
        train_phases(recipe, rows, [], base, 1, scratch, {})
    finally:
        transformers.Trainer.training_step, GRPOTrainer._generate_single_turn = step, draw
        torch.optim.AdamW.step = update  # type: ignore[method-assign]
    return kept, peaks_of(watching)


def staying(trainer: Any, adapter: bool) -> dict[str, int]:
    """Bytes of weights, quantization's scales, reference and optimiser's state; what is shared counts once."""
    parts: Counter[str] = Counter()
    seen: set[int] = set()

    def count(part: str, *tensors: torch.Tensor) -> None:
        for storage in (tensor.untyped_storage() for tensor in tensors):
            parts[part] += 0 if storage._cdata in seen else storage.nbytes()
            seen.add(storage._cdata)

    for name, parameter in trainer.model.named_parameters():
        part = "reference" if ".ref." in name else "adapter" if adapter and parameter.requires_grad else "weights"
        count(part, parameter.data, *scales(getattr(parameter, "quant_state", None)))
    count("weights", *trainer.model.buffers())
    if getattr(trainer, "ref_model", None) is not None:
        count("reference", *trainer.ref_model.parameters(), *trainer.ref_model.buffers())
    for state in trainer.optimizer.state.values():
        count("optimiser", *(value for value in state.values() if torch.is_tensor(value)))
    return dict(parts)


def peaks_of(watched: profile) -> dict[str, int]:
    """The most bytes at once since the start, within each moment; sampling is no part of training here."""
    assert watched.profiler is not None and watched.profiler.kineto_results is not None
    events: list[Any] = sorted(watched.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    moments = [
        (event.name(), event.start_ns(), event.end_ns())
        for event in events
        if event.name() in ("training", "sampling", "update")
    ]
    peaks: Counter[str] = Counter()
    allocations = [event for event in events if event.name() == "[memory]"]
    for event, total in zip(allocations, itertools.accumulate(event.nbytes() for event in allocations), strict=True):
        within = {name for name, start, end in moments if start <= event.start_ns() <= end}
        for name in within - {"training"} or within:
            peaks[name] = max(peaks[name], total)
    return dict(peaks)


def table(name: str, plan: Memory, kept: dict[str, int], peaks: dict[str, int]) -> float:
    """Print estimate, measurement and ratio by part and moment; the ratio of the peaks."""
    print(f"\n{name:<46} {'estimate':>9} {'measured':>9}  ratio")

    def line(label: str, guess: int, truth: int) -> None:
        print(f"  {label:<44} {guess / 2**20:9.1f} {truth / 2**20:9.1f} {guess / truth:6.2f}")

    for part, size in plan.kept.items():
        line(part, size, kept[part])
    for moment, guess in (("training", plan.training), ("update", plan.update), ("sampling", plan.sampling)):
        if guess:
            line(f"{moment}, beside these", sum(guess.values()), peaks[moment])
    peak = sum(kept.values()) + max(peaks.values())
    line("peak, MiB", plan.total, peak)
    return plan.total / peak


if __name__ == "__main__":
    main()
