"""`make check` takes what the steps take: right edits of the small project's files, of the kinds that users make."""

from pathlib import Path
from typing import Any

import pytest
from checks.small_project import COMMIT, HASHES, bases, changed, contents, write, write_project
from checks.test_project import DPO, DRAWN, FAR, GRPO, PLAIN, SFT, SHORT, at, checked, variant
from checks.wrong_data_sets import HUB, LOCAL

pytestmark = pytest.mark.slow
LORA, SAMPLING = "phases.0.lora", "check.sampling"
LLAMA = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
HALVES = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
OTHER = {"kind": "hub", "id": "owner/rows", "revision": COMMIT, "licence": "mit"}

# file, and the new value of each changed field
RIGHT: list[tuple[str, dict[str, Any]]] = [
    (SHORT, {f"{LORA}.target_modules": r".*\.(q|v)_proj$"}),
    (SHORT, {f"{LORA}.target_modules": r"^model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj$"}),
    (SHORT, {f"{LORA}.target_modules": r"^(?!.*(vision|lm_head)).*(?:q_proj|v_proj).*"}),
    (SHORT, {f"{LORA}.target_modules": "all-linear", f"{LORA}.exclude_modules": r".*(lm_head|down_proj)"}),
    (SHORT, {f"{LORA}.target_modules": ["self_attn.q_proj"], f"{LORA}.layers_to_transform": [0]}),
    (SHORT, {f"{LORA}.rank_pattern": {r"^model\.layers\.0\.self_attn\.(q|k)_proj": 8}}),
    (SHORT, {f"{LORA}.use_dora": True, f"{LORA}.use_rslora": True}),
    (SHORT, {f"{LORA}.use_dora": True, "quantization": None}),
    (SHORT, {f"{LORA}.modules_to_save": ["embed_tokens", "lm_head"]}),
    (SHORT, {f"{LORA}.trainable_token_indices": {"embed_tokens": [5, 6]}}),
    (SHORT, {f"{GRPO}.optim": "paged_adamw_8bit", f"{GRPO}.adam_beta2": 0.95, f"{GRPO}.adam_epsilon": 1e-6}),
    (SHORT, {f"{GRPO}.optim": "lion_8bit", f"{GRPO}.adam_beta1": 0.95}),
    (SHORT, {f"{GRPO}.optim": "ademamix", f"{GRPO}.optim_args": "beta3=0.999, alpha=5, t_alpha=1000"}),
    (SHORT, {f"{GRPO}.optim": "sgd", f"{GRPO}.optim_args": "momentum=0.9,nesterov=True"}),
    (SHORT, {f"{GRPO}.optim": "adafactor"}),
    (SHORT, {f"{GRPO}.lr_scheduler_type": "cosine_with_min_lr", f"{GRPO}.lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),
    (SHORT, {f"{GRPO}.lr_scheduler_type": "constant_with_warmup", f"{GRPO}.warmup_steps": 12}),
    (SHORT, {f"{GRPO}.lr_scheduler_type": "linear", f"{GRPO}.warmup_steps": 0.03}),
    (SHORT, {f"{GRPO}.loss_type": "sapo", f"{GRPO}.sapo_temperature_neg": 1.05}),
    (SHORT, {f"{GRPO}.loss_type": "cispo", f"{GRPO}.epsilon_high": 5.0}),
    (SHORT, {f"{GRPO}.generation_kwargs": {"bad_words_ids": [[5]], "no_repeat_ngram_size": 4}}),
    (SHORT, {f"{GRPO}.steps_per_generation": 2, f"{GRPO}.save_steps": 4}),
    (SHORT, {SAMPLING: {"do_sample": True, "min_p": 0.05, "repetition_penalty": 1.1, "max_new_tokens": 24}}),
    (SHORT, {SAMPLING: {"do_sample": True, "sequence_bias": [[[5, 6], -10.0]], "max_new_tokens": 24}}),
    (SHORT, {SAMPLING: {"num_beams": 4, "early_stopping": True, "length_penalty": 0.8, "max_new_tokens": 24}}),
    (SHORT, {"quantization": {"load_in_8bit": True, "llm_int8_threshold": 6.0}}),
    (PLAIN, {f"{SFT}.packing": True}),
    (PLAIN, {f"{SFT}.label_smoothing_factor": 0.1, f"{SFT}.neftune_noise_alpha": 5}),
    (PLAIN, {LORA: {"r": 4, "lora_alpha": 8, "target_modules": r".*\.attn\.(c_attn|c_proj)"}}),
    (PLAIN, {f"{DPO}.loss_type": ["sigmoid", "sft"], f"{DPO}.loss_weights": [1.0, 0.2]}),
    (PLAIN, {f"{DPO}.loss_type": ["robust"], f"{DPO}.label_smoothing": 0.1, f"{DPO}.ld_alpha": 0.5}),
    (HUB, {"splits": HALVES}),
    (HUB, {"splits": {"train": "train[100:]+extra", "test": "train[:100]"}}),
    (HUB, {"splits": {"train": "train[:-100]", "test": "train[-100:]"}}),
    (HUB, {"evaluation": [OTHER | {"splits": {"first": "test[:100]"}, "contains": "test"}]}),
    (HUB, {"evaluation": [OTHER | {"configuration": "socratic", "splits": {"socratic": "test"}}]}),
    (LOCAL, {"folder": None, "splits.train": {"path": "rows/train.jsonl", "sha256": HASHES["train.jsonl"]},
             "splits.test": {"path": "rows/test.jsonl", "sha256": HASHES["test.jsonl"]}}),
    (DRAWN, {"config": {"model_type": "phi3", **LLAMA}}),  # whose class has a padding token beyond this vocabulary
    (DRAWN, {"config": {"model_type": "qwen2", **LLAMA, "max_window_layers": 0}}),
    (DRAWN, {"config": {"model_type": "t5", "d_model": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "d_kv": 4}}),
    (FAR, {"shape": {"model_type": "qwen3_moe", **LLAMA, "vocab_size": 300, "num_experts": 4}}),  # as its files say
]  # fmt: skip


def test_right_edits_are_taken(tmp_path: Path) -> None:
    write_project(tmp_path)
    for number, (path, changes) in enumerate(RIGHT):
        content = contents()[path]
        for field, value in changes.items():
            content = changed(content, at(field), value)
        variant(tmp_path, number, path, content)
    assert checked(tmp_path) == []


def test_packing_is_left_to_models_that_are_known_to_keep_rows_apart(tmp_path: Path) -> None:
    write_project(tmp_path)
    config = {"model_type": "opt", "hidden_size": 8, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    write(tmp_path / DRAWN, bases()["drawn"] | {"config": config})
    write(tmp_path / PLAIN, changed(contents()[PLAIN], at(f"{SFT}.packing"), True))
    (sentence,) = checked(tmp_path)
    assert "phases.1.sft.packing is true, but it is not known that the base 'drawn' (opt) keeps the rows" in sentence
    assert "set packing to false, or model.attn_implementation to flash_attention_2" in sentence


def test_those_models_read_a_row_in_a_sequence_as_they_read_it_alone() -> None:
    """In the form in which TRL hands packed rows over: no mask, no keys and values, positions that begin anew."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from grpo_cot.checks.runs import KEPT_APART

    torch.manual_seed(0)
    first, second = torch.randint(2, 60, (1, 7)), torch.randint(2, 60, (1, 9))
    positions = torch.cat([torch.arange(7), torch.arange(9)])[None]
    for kind in sorted(KEPT_APART):
        sizes = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0, **LLAMA}
        sizes |= {} if kind in ("gpt2", "gpt_neox") else {"num_key_value_heads": 2}
        sizes |= {"head_dim": 8} if kind.startswith(("gemma", "qwen3")) else {}
        for attention in ("sdpa", "eager"):
            configuration = AutoConfig.for_model(kind, **sizes)
            model = AutoModelForCausalLM.from_config(configuration, attn_implementation=attention).eval()
            with torch.no_grad():
                alone = model(second, position_ids=positions[:, 7:], use_cache=False).logits
                packed = model(torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits[:, 7:]
            assert (alone - packed).abs().max() < 1e-5 * alone.abs().max(), (kind, attention)
