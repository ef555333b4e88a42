"""What a recipe would do: counts, and memory from exact parameter counts."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import ROOT

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml, write_jsonl, write_text
from grpo_cot.data.sources import SOURCE_FILE
from grpo_cot.memory.plan import PhasePlan, Plan, choose, plan, training_rows
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.training.workload import Workload

PUBLISHED_ROWS = {
    "vi-mt5-small": "mt5-small",
    "vi-encoder-decoder": "encoder-decoder-scratch",
    "vi-gpt2-medium": "gpt2-medium",
    "vi-decoder-only": "decoder-only-scratch",
    "vi-qwen2.5-3b-sft": "qwen2.5-3b-sft",
    "vi-gsm8k-3b": "qwen2.5-3b-grpo",
}
BASES = {
    "vi-mt5-small": "mt5-small",
    "vi-encoder-decoder": "encoder-decoder",
    "vi-gpt2-medium": "gpt2-medium",
    "vi-decoder-only": "decoder-only",
    "vi-qwen2.5-3b-sft": "qwen2.5-3b-instruct",
    "vi-gsm8k-3b": "qwen2.5-3b-instruct",
}


def suite(name: str) -> Any:
    return SOURCE_FILE.validate_python(read_yaml(ROOT / f"sources/datasets/{name}.yaml"))


def planned(experiment: str, dataset: str | None = None, base: str | None = None) -> Plan:
    return plan(ROOT, experiment, dataset, base)


def only_phase(found: Plan) -> PhasePlan:
    (phase,) = found.phases
    return phase


def test_every_published_row_has_its_recipe_at_full_size() -> None:
    rows = read_yaml(ROOT / "src/grpo_cot/reporting/published_results.yaml")["rows"]
    assert set(PUBLISHED_ROWS.values()) == rows.keys()
    for name, row in PUBLISHED_ROWS.items():
        assert load_recipe(ROOT / f"experiments/{name}.yaml").published_row == row


def test_no_recipe_chooses_its_checkpoint_on_what_it_reports() -> None:
    """Checkpoints are chosen on the split `validation` (grpo_cot.training), so no recipe may report that one first."""
    for name in PUBLISHED_ROWS:
        recipe = load_recipe(ROOT / f"experiments/{name}.yaml")
        assert "validation" not in recipe.evaluate.sets
        first = recipe.phases[0].settings
        assert first["load_best_model_at_end"] and first["metric_for_best_model"] == "eval_loss"
        assert recipe.evaluate.sample is None


def test_the_second_phase_of_grpo_on_vi_gsm8k_follows_the_same_fine_tuning() -> None:
    alone, both = (load_recipe(ROOT / f"experiments/{name}.yaml") for name in ("vi-qwen2.5-3b-sft", "vi-gsm8k-3b"))
    assert both.phases[0] == alone.phases[0]
    assert both.phases[1].settings["max_steps"] == 1000
    assert (both.prompt, both.model, both.quantization, both.evaluate) == (
        alone.prompt, alone.model, alone.quantization, alone.evaluate,
    )  # fmt: skip


def test_the_reference_recipe_is_as_published() -> None:
    recipe = load_recipe(ROOT / "experiments/grpo-cot-3b.yaml")
    (phase,) = recipe.phases
    published = {
        "learning_rate": 5e-6, "adam_beta1": 0.9, "adam_beta2": 0.99, "weight_decay": 0.1, "warmup_steps": 0.1,
        "lr_scheduler_type": "cosine", "optim": "adamw_8bit", "num_generations": 8, "max_completion_length": 200,
        "max_steps": 250, "max_grad_norm": 0.1, "beta": 0.04, "loss_type": "grpo",
    }  # fmt: skip
    assert published.items() <= phase.settings.items()
    assert phase.lora is not None
    assert (phase.lora["r"], phase.lora["lora_alpha"], len(phase.lora["target_modules"])) == (64, 64, 7)
    assert recipe.prompt.max_prompt_length == 256
    assert recipe.check.questions == ["How many r's in strawberry?"]
    assert (recipe.check.sampling["temperature"], recipe.check.sampling["top_p"]) == (0.8, 0.95)


def test_the_templates_of_plain_models_keep_the_text_and_add_no_roles() -> None:
    from jinja2 import Template

    messages = [{"role": "system", "content": "Rules."}, {"role": "user", "content": "How many?"}]
    for name, expected in (
        ("gpt2", "Rules.\n\nHow many?\n\n"), ("gpt2-medium", "Rules.\n\nHow many?\n\n"),
        ("decoder-only", "Rules.\n\nHow many?\n\n"), ("mt5-small", "Rules.\nHow many?\n</s>"),
        ("encoder-decoder", "Rules.\nHow many?\n</s>"),
    ):  # fmt: skip
        template = read_yaml(ROOT / f"sources/bases/{name}.yaml")["chat_template"]
        assert Template(template).render(messages=messages, eos_token="</s>", add_generation_prompt=True) == expected


def test_training_rows_are_counted_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GSM8K_DIR", raising=False)
    assert training_rows(suite("generated"), tmp_path).count == 2000
    assert training_rows(suite("gsm8k-hub"), tmp_path).count == 7473
    assert training_rows(suite("vi_gsm8k"), tmp_path).count == 7473 - 500
    unknown = training_rows(suite("gsm8k"), tmp_path)
    assert unknown.count is None
    assert "not known before the step download" in unknown.origin
    write_jsonl(tmp_path / "train.jsonl", [{"id": "1"}, {"id": "2"}])
    assert training_rows(suite("vi_gsm8k"), tmp_path).count == 2


def test_training_rows_of_local_files_are_counted_in_them(
    gsm8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GSM8K_DIR", str(gsm8k_folder))
    assert training_rows(suite("gsm8k"), tmp_path).count == 7473
    assert training_rows(suite("gsm8k-suite"), tmp_path).count == 7473 - 500


def test_data_set_and_base_come_from_the_runs() -> None:
    assert choose(ROOT, "tiny-grpo", None, None) == ("tiny-grpo", "generated", "tiny")
    assert choose(ROOT, "tiny-grpo", "gsm8k", None) == ("tiny-grpo", "gsm8k", "tiny")


def project(tmp_path: Path, params: str) -> Path:
    for name in ("experiments/a", "sources/datasets/d1", "sources/datasets/d2", "sources/bases/b"):
        write_text(tmp_path / f"{name}.yaml", "")
    write_text(tmp_path / "params.yaml", params)
    return tmp_path


RUNS = """
runs:
  one: {recipe: a, dataset: d1, base: b, image: cpu, seed: 1}
  two: {recipe: a, dataset: d2, base: b, image: cpu, seed: 1}
datasets: [d1, d2]
bases: {b: cpu}
comparisons: {}
"""
NO_RUNS = "{runs: {}, datasets: [], bases: {}, comparisons: {}}"


@pytest.mark.parametrize(
    ("params", "arguments", "says"),
    [
        (RUNS, ("a", None, None), "which dataset? Its runs have several; give --dataset NAME, one of: d1, d2"),
        (NO_RUNS, ("a", "d1", None), "which base? It is in no run of params.yaml and suites/; give --base NAME"),
        (NO_RUNS, ("aa", None, None), "experiments/aa.yaml does not exist; did you mean 'a'?"),
        (NO_RUNS, ("a", "d3", "b"), "sources/datasets/d3.yaml does not exist; expected one of: d1, d2"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_one_sentence(
    tmp_path: Path, params: str, arguments: tuple[str, str | None, str | None], says: str
) -> None:
    with pytest.raises(InputError, match=r"experiments|sources") as refusal:
        choose(project(tmp_path, params), *arguments)
    assert says in str(refusal.value)


def test_a_run_is_planned_as_its_line_says(tmp_path: Path) -> None:
    root = project(tmp_path, RUNS)
    assert choose(root, "two", None, None) == ("a", "d2", "b")
    write_text(root / "suites/s.yaml", RUNS.replace("one:", "three:").replace("d1, base", "d2, base"))
    assert choose(root, "three", None, None) == ("a", "d2", "b")


@pytest.mark.slow
def test_the_default_runs_plan_counts_what_the_loaded_model_has() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    found = planned("tiny-grpo")
    phase = only_phase(found)
    assert (phase.steps, phase.prompts, phase.examples) == (100, 8, 64)
    assert phase.tokens == 64 * (256 + 72)
    assert phase.epochs == pytest.approx(100 * 8 / 2000)
    model = AutoModelForCausalLM.from_pretrained(ROOT / "assets/tiny/model")
    assert found.parameters == model.num_parameters()
    lora = load_recipe(ROOT / "experiments/tiny-grpo.yaml").phases[0].lora
    assert lora is not None
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora))
    assert found.trained_parameters == adapted.get_nb_trainable_parameters()[0]
    assert phase.memory.kept["adapter"] == 4 * found.trained_parameters
    assert phase.memory.kept["optimiser"] == 8 * found.trained_parameters


@pytest.mark.slow
def test_four_bit_weights_are_as_large_as_bitsandbytes_makes_them() -> None:
    """The quantized matrices, their scales, and what stays in the recipe's dtype, on the embedded model."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    recipe = load_recipe(ROOT / "experiments/tiny-grpo.yaml")
    assert recipe.quantization is not None
    model = AutoModelForCausalLM.from_pretrained(
        ROOT / "assets/tiny/model", quantization_config=BitsAndBytesConfig(**recipe.quantization), dtype=torch.float32
    )
    held = 0
    for parameter in model.parameters():
        held += parameter.numel() * parameter.element_size()
        if state := getattr(parameter, "quant_state", None):
            held += state.absmax.numel() * state.absmax.element_size() + state.state2.absmax.numel() * 4
    assert only_phase(planned("tiny-grpo")).memory.kept["weights"] == pytest.approx(held, rel=0.01)


@pytest.mark.slow
def test_a_base_from_a_package_is_planned_before_it_is_fetched() -> None:
    assert planned("tiny-grpo", "generated", "smollm2-135m-instruct").parameters == 134_515_008  # as its page has it


@pytest.mark.slow
def test_the_reference_recipe_is_planned_from_its_source_alone() -> None:
    found = planned("grpo-cot-3b", "gsm8k-hub", "qwen2.5-3b-instruct")
    phase = only_phase(found)
    assert found.parameters == 3_085_938_688  # as the model's page has it
    assert found.trained_parameters == 119_734_272  # r 64 on seven matrices of 36 layers
    assert 2.0e9 < phase.memory.kept["weights"] < 2.1e9
    assert (phase.steps, phase.prompts, phase.examples) == (250, 1, 8)
    assert phase.epochs == pytest.approx(250 / 7473)
    assert phase.fits(16)
    assert not phase.fits(8)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED_ROWS)
def test_the_recipes_at_full_size_fit_a_card_of_24_gb(name: str) -> None:
    found = planned(name, "vi_gsm8k", BASES[name])
    assert all(phase.fits(24) for phase in found.phases)
    first = found.phases[0]
    epochs = load_recipe(ROOT / f"experiments/{name}.yaml").phases[0].settings["num_train_epochs"]
    assert first.steps == epochs * math.ceil(6973 / first.examples)
    if name == "vi-mt5-small":
        assert found.parameters == 300_176_768  # its files hold an output matrix that Transformers' class would tie
    if name == "vi-gsm8k-3b":
        second = found.phases[1]
        assert (second.steps, second.prompts, second.examples) == (1000, 2, 16)
        assert second.memory.kept["reference"] == second.memory.kept["adapter"]  # the adapter as fine-tuning left it


@pytest.mark.slow
@pytest.mark.parametrize(("group", "dora"), [(1, False), (4, False), (4, True)])
def test_a_step_is_estimated_as_the_loaded_quantized_model_runs_it(group: int, dora: bool) -> None:
    """Bytes alive at the fullest moment of a forward and a backward pass with padding; bench/memory.py does more."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from trl.trainer.utils import selective_log_softmax_and_entropy

    from grpo_cot.memory.architecture import architecture
    from grpo_cot.memory.estimate import Blueprint
    from grpo_cot.memory.live_bytes import LiveBytes
    from grpo_cot.training.methods.registry import workload
    from grpo_cot.training.shared_prompts import _scores

    recipe = load_recipe(ROOT / "experiments/tiny-grpo.yaml")
    lora, quantization = recipe.phases[0].lora, recipe.quantization
    assert lora is not None and quantization is not None
    lora |= {"use_dora": dora}
    blueprint = Blueprint(*architecture(ROOT, "tiny"), recipe.model, quantization, lora)
    work = replace(workload(recipe, 0, on_gpu=False), rows=4, length=128, targets=64, group=group)
    model = AutoModelForCausalLM.from_pretrained(
        ROOT / "assets/tiny/model", quantization_config=BitsAndBytesConfig(**quantization), dtype=torch.float32
    )
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora)).train()
    ids, mask = torch.arange(1, 4 * 128 + 1).reshape(4, 128), torch.ones(4, 128, dtype=torch.long)
    ids[:, : 64 if group == 4 else 0], mask[0, 0] = 1, int(group == 4)
    trainer: Any = SimpleNamespace(temperature=1.0, _entropy_bonus_enabled=False)
    live = LiveBytes(blueprint.part)
    live.ignore([*model.parameters(), *model.buffers()])
    with live:
        if group == 4:
            chosen, _ = _scores(trainer, model, ids, mask, 64, entropy=True)
        else:
            logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=65, use_cache=False).logits[:, :-1]
            chosen, _ = selective_log_softmax_and_entropy(
                logits[:, -64:], ids[:, 64:], entropy_requires_grad=False, row_mask=mask[:, 64:]
            )
            del logits
        chosen.sum().backward()
    real = sum(live.peaks[""].values())

    def size(changed: Workload) -> int:
        return sum(blueprint.step(changed).values())

    assert size(work) == pytest.approx(real, rel=0.02)
    assert size(replace(work, rows=8)) == pytest.approx(2 * real, rel=0.05)
    assert size(replace(work, checkpointing=True)) < 0.7 * real
    attention = recipe.model.model_copy(update={"attn_implementation": "flash_attention_2"})
    without_masks = Blueprint(*architecture(ROOT, "tiny"), attention, quantization, lora).step(work)
    # Flash attention takes no mask of a row's own, so that each completion has its own prompt.
    assert sum(without_masks.values()) < 0.97 * real if group == 1 else sum(without_masks.values()) > 1.3 * real


@pytest.mark.slow
def test_a_draw_of_pass_rates_and_a_validation_are_said_and_epochs_are_unknown_before_the_draw() -> None:
    names = ("tiny-signal", "tiny-all-prompts", "tiny-dynamic-sampling")
    kept, all_of_them, replaced = (only_phase(planned(name, "generated-mixed", "tiny")) for name in names)
    draw, validation = kept.notes
    assert draw.startswith("draws 8 completions to each of 1000 prompts first") and kept.epochs is None
    assert validation.startswith("answers 500 validation problems every 10 steps, 100 at a time")
    assert all_of_them.notes == [validation] and all_of_them.epochs == 60 * 8 / 2000
    assert replaced.notes[0].startswith("draws groups without a signal again, at most 4 times a step")


@pytest.mark.slow
def test_vllm_beside_training_holds_the_base_a_second_time_unless_it_shares_it(tmp_path: Path) -> None:
    base = read_yaml(ROOT / "sources/bases/tiny-decoder-only.yaml")
    base["config"] = {
        "model_type": "qwen2", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 8,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    }  # fmt: skip
    write_text(tmp_path / "sources/bases/wide.yaml", json.dumps(base))
    for name in ("sources/datasets", "assets"):
        (tmp_path / name).symlink_to(ROOT / name)
    content = read_yaml(ROOT / "experiments/grpo-cot-3b.yaml")
    (phase,) = content["phases"]
    phase["grpo"] |= {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.65}
    found = {}
    for backend, sync in (("transformers", "adapter"), ("unsloth", "shared")):
        phase["rollouts"] = {"sync": sync, "log_probability_gap": 0.1}
        write_text(tmp_path / f"experiments/{sync}.yaml", json.dumps(content | {"backend": backend}))
        found[sync] = only_phase(plan(tmp_path, sync, "gsm8k-hub", "wide"))
    own, shared = found["adapter"], found["shared"]
    assert own.memory.kept == shared.memory.kept
    assert own.memory.training["activations"] < shared.memory.training["activations"]  # each prompt once
    assert not own.memory.sampling  # the keys and values are vLLM's
    assert "65% of the card for a second copy of the base" in " ".join(own.notes)
    assert "the one base of both" in " ".join(shared.notes)
    assert own.vllm is not None and own.vllm.needs > own.memory.kept["weights"]
    # On a card where one base fits beside the rest, and half of a second one.
    weights = own.memory.kept["weights"]
    for found_one, fits in ((own, False), (shared, True)):
        share = 0.9 - (found_one.memory.total - weights / 2) / (8 * 2**30)
        assert found_one.vllm is not None
        assert replace(found_one, vllm=replace(found_one.vllm, share=share)).fits(8) is fits
    too_small = own.vllm.needs / (80 * 2**30) * 0.99
    assert not replace(own, vllm=replace(own.vllm, share=too_small)).fits(80)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("vi-mt5-small", "vi_gsm8k", "gpt2"), "the base 'gpt2' is a causal model, which 'seq2seq' cannot train"),
        (("tiny-grpo", None, "gpt2"), "PEFT refuses it"),
        (("vi-mt5-small", "gsm8k", "mt5-small"), "evaluate.sets names 'polymath-vi', which the data set 'gsm8k' lacks"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(arguments: tuple[str, str | None, str | None], says: str) -> None:
    with pytest.raises(InputError) as refusal:
        planned(*arguments)
    assert says in str(refusal.value)


@pytest.mark.slow
def test_a_base_without_sizes_says_what_to_do(tmp_path: Path) -> None:
    from grpo_cot.memory.architecture import architecture

    source = (ROOT / "sources/bases/qwen2.5-0.5b-instruct.yaml").read_text()
    write_text(tmp_path / "sources/bases/other.yaml", source.partition("shape:")[0])
    with pytest.raises(InputError, match=r"'shape' lacks 'model_type'.*dvc repro base@other"):
        architecture(tmp_path, "other")
    write_text(tmp_path / "sources/bases/other.yaml", source.replace("hidden_size", "hiden_size"))
    with pytest.raises(InputError, match="unknown key 'hiden_size'; did you mean 'hidden_size'"):
        architecture(tmp_path, "other")
