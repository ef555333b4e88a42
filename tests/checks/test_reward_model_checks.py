"""What `make check`, the audit and `make plan` say of a reward model: its section, its scorer, and its memory."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from text_recipes import TRAINING, recipe, source, text_rows, write_base

from grpo_cot.checks.audit import broken, length_warnings
from grpo_cot.checks.rules import check_before, check_selection, check_training_sections
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json, read_yaml, write_json, write_jsonl, write_text
from grpo_cot.params import Run
from grpo_cot.recipes.recipe import Recipe


def changed(wanted: Recipe, **sections: Any) -> Recipe:
    return Recipe.model_validate(wanted.model_dump() | sections)


def refused(check: Any, *arguments: Any) -> str:
    with pytest.raises(InputError) as refusal:
        check(*arguments)
    sentence = str(refusal.value)
    assert "\n" not in sentence and len(sentence) < 900
    return sentence


def test_a_recipe_names_the_reward_model_where_it_has_one() -> None:
    check_training_sections(recipe(), "mine")
    check_training_sections(recipe({"reward_model": 0.0, "random": 1.0}), "mine")
    assert "mine: 'rewards' names reward_model, but the section reward_model is null" in refused(
        check_training_sections, changed(recipe(), reward_model=None), "mine"
    )
    assert "mine: the section reward_model is given, but 'rewards' does not name reward_model" in refused(
        check_training_sections, recipe({"random": 1.0}), "mine"
    )


@pytest.mark.parametrize(
    ("training", "says"),
    [
        ({"logging_steps": 100}, "reward_model.training.logging_steps is 100, more than the 60 of max_steps"),
        ({"logging_strategy": "no"}, "reward_model.training.logging_strategy is 'no': no curve"),
        ({"warmup_steps": 3}, "reward_model.training.warmup_steps is 3, which the schedule 'constant'"),
    ],
)
def test_what_its_trainer_would_leave_out_is_refused(training: dict[str, Any], says: str) -> None:
    assert says in refused(check_training_sections, recipe(**training), "mine")


def test_it_is_trained_in_one_process_by_transformers_own_trainer() -> None:
    several = {"num_processes": 2, "distributed_type": "MULTI_CPU"}
    said = refused(check_training_sections, changed(recipe(), accelerate=several), "mine")
    assert "reward_model is trained, and judges, in one process: 'accelerate' must be null" in said
    said = refused(check_training_sections, changed(recipe(), backend="unsloth"), "mine")
    assert "set 'backend' to transformers" in said


def test_no_figure_is_of_the_split_on_which_it_chose_its_checkpoint() -> None:
    evaluate = recipe().evaluate.model_dump() | {"sets": ["validation"]}
    check_selection(changed(recipe(), evaluate=evaluate), "mine")
    chosen = changed(recipe(load_best_model_at_end=True), evaluate=evaluate)
    assert "on which reward_model chooses its checkpoint" in refused(check_selection, chosen, "mine")
    shown = [{"question": "1 + 1?", "completion": "2"}]
    fewer = changed(
        chosen, prompt=chosen.prompt.model_dump() | {"examples": shown, "also_with": [0]},
        evaluate=evaluate | {"sets": ["test", "validation-with-0"]},
    )  # fmt: skip
    assert "reports 'validation-with-0', on which reward_model" in refused(check_selection, fewer, "mine")


@pytest.mark.parametrize(("before", "phases", "remedy"), [(1, 1, "null, for there is one phase"), (2, 2, "1 to 1, or")])
def test_a_model_is_compared_with_what_an_earlier_phase_left(before: int, phases: int, remedy: str) -> None:
    wanted = recipe(phases=("sft", "grpo")[:phases])
    evaluate = wanted.evaluate.model_dump()
    check_before(changed(wanted, evaluate=evaluate | {"before": before - 1 or None}), "mine")
    said = refused(check_before, changed(wanted, evaluate=evaluate | {"before": before}), "mine")
    assert f"mine: evaluate.before is {before}, but the trained model is what phase {phases} leaves" in said
    assert remedy in said


def test_a_reward_that_is_trained_later_is_asked_for_no_promise() -> None:
    assert broken({"reward_model": 1.0, "random": 1.0}) == {}
    assert length_warnings({"reward_model": 1.0}) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "says"),
    [
        ({}, None),
        ({"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 10, "save_strategy": "steps",
          "save_steps": 10, "metric_for_best_model": "eval_loss"}, None),
        ({"learning_rat": 0.1}, "training: unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ({"learning_rate": "0.1"}, "training.learning_rate: expected number, found '0.1' (text)"),
        ({"per_device_train_batch_size": 2**21}, "per_device_train_batch_size: expected less than or equal to 1048576"),
        ({"num_train_epochs": 1.0}, "max_steps and num_train_epochs both say how long to train"),
        ({"seed": 3}, "training.seed: this is set by the run's seed in params.yaml"),
        ({"report_to": "wandb"}, "training.report_to: expected one of 'none'"),
        ({"metric_for_best_model": "accuracy"}, "training.metric_for_best_model: expected one of 'loss'"),
        ({"optim": "adamw"}, "training.optim: expected one of"),
        ({"adam_beta1": 2.0}, "training: no optimiser or schedule can be made so"),
        ({"load_best_model_at_end": True, "save_strategy": "steps"}, "training: TrainingArguments refuses it"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"zzz": 1}}, "its trainer refuses it"),
    ],
)  # fmt: skip
def test_its_settings_are_compared_with_the_librarys(training: dict[str, Any], says: str | None) -> None:
    from grpo_cot.checks.recipe import check_recipe

    if says is None:
        check_recipe(recipe(**training), "mine")
    else:
        assert says in refused(check_recipe, recipe(**training), "mine")


@pytest.mark.slow
def test_a_setting_that_the_librarys_defaults_would_decide_is_stated() -> None:
    from grpo_cot.checks.recipe import check_training

    settings = {key: value for key, value in TRAINING.items() if key != "learning_rate"}
    wanted = changed(recipe(), reward_model={"max_length": 16, "training": settings})
    assert "reward_model.training: 'learning_rate' is missing" in refused(check_training, wanted, "mine")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with one base that brings a scorer."""
    write_text(tmp_path / "sources/bases/mine.yaml", json.dumps(source()))
    for name in ("sources/datasets", "assets"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def scorer(root: Path, **values: Any) -> None:
    content = source()
    content["scorer"] |= values
    content["scorer"] = {key: value for key, value in content["scorer"].items() if value is not None}
    write_text(root / "sources/bases/mine.yaml", json.dumps(content))


@pytest.mark.slow
def test_a_run_needs_a_scorer_that_can_read_as_much_as_the_recipe_says(project: Path) -> None:
    from grpo_cot.checks.runs import check_reading, check_run

    section = recipe().reward_model
    assert section is not None
    check_reading(project, "mine", section)
    long = section.model_copy(update={"max_length": 129})
    said = refused(check_reading, project, "mine", long)
    assert "reward_model.max_length is 129, but the scorer of the base 'mine' has positions for 128 tokens" in said
    # The first of the positions of RoBERTa's family are no text's.
    scorer(project, config={"model_type": "roberta", "max_position_embeddings": 128, "hidden_size": 8,
                            "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8})  # fmt: skip
    assert "positions for 127 tokens" in refused(check_reading, project, "mine", long)
    place = {"kind": "hub", "id": "vinai/phobert-base", "revision": "a" * 40, "tokenizer": None, "config": None}
    scorer(project, **place, seed=None, sha256=None)  # nothing is known of it yet
    check_reading(project, "mine", long)
    content = source() | {"scorer": None}
    write_text(project / "sources/bases/mine.yaml", json.dumps(content))
    wanted = recipe().model_dump() | {"evaluate": recipe().evaluate.model_dump() | {"sets": ["test"]}}
    write_text(project / "experiments/texts.yaml", json.dumps(wanted))
    run = Run(recipe="texts", dataset="generated-feedback", base="mine", image="cpu", seed=1)
    said = refused(check_run, project, "one", run)
    assert "(the run 'one'): the section reward_model is given, but the base 'mine' brings no model" in said
    assert f"add `scorer:` to {project}/sources/bases/mine.yaml" in said


@pytest.mark.slow
def test_the_source_of_a_scorer_is_checked_without_making_it(project: Path) -> None:
    from grpo_cot.checks.bases import check_base

    check_base(project, "mine")
    for values, says in (
        ({"config": {"model_type": "xglm"}}, "mine.yaml: scorer: Transformers has no classifier of texts"),
        ({"config": {"model_type": "bert", "vocab_size": 5}}, "mine.yaml: scorer: config.vocab_size: the step base"),
        ({"config": {"model_type": "bert", "num_hidden_layers": 0}}, "scorer: config.num_hidden_layers is 0, expected"),
        ({"config": {"model_type": "bert", "zzz": 0}}, "mine.yaml: scorer: config: unknown key 'zzz'"),
        ({"sha256": {"tokenizer.json": "0" * 64}}, "mine.yaml: scorer: tokenizer.json has sha256"),
        ({"tokenizer": {"path": "assets/none"}}, "mine.yaml: scorer: path is 'assets/none', and there is no such"),
        ({"kind": "embedded", "path": "assets/tiny/model", "tokenizer": None, "config": None, "seed": None,
          "sha256": {}}, "mine.yaml: scorer: a base of kind 'embedded' needs 'sha256'"),
    ):  # fmt: skip
        scorer(project, **values)
        assert says in refused(check_base, project, "mine")


@pytest.mark.slow
def test_an_embedded_scorer_is_made_and_examined(project: Path) -> None:
    from bases.made import pinned

    from grpo_cot.checks.bases import check_base

    folder = write_base(project / "made") / "scorer"
    there = {"kind": "embedded", "path": "made/scorer", "tokenizer": None, "config": None, "seed": None}
    scorer(project, **there, sha256=pinned(folder))
    check_base(project, "mine")
    write_json(folder / "config.json", read_json(folder / "config.json") | {"vocab_size": 100})
    scorer(project, **there, sha256=pinned(folder))
    assert "mine.yaml: scorer: the tokenizer's token" in refused(check_base, project, "mine")


@pytest.mark.slow
def test_the_plan_counts_its_training_and_its_weights_beside_the_phases_that_it_pays(project: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    from grpo_cot.memory.plan import plan

    wanted = recipe(phases=("sft", "grpo")).model_dump()
    wanted["reward_model"]["training"] |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    wanted["evaluate"]["sets"] = ["test"]
    write_text(project / "experiments/texts.yaml", json.dumps(wanted))
    found = plan(project, "texts", "generated-feedback", "mine")
    judge = found.reward_model
    assert judge is not None
    assert (judge.steps, judge.examples, judge.tokens) == (60, 16, 16 * 16)
    assert judge.epochs == pytest.approx(60 / (6000 / 16))
    model = AutoModelForSequenceClassification.from_pretrained(write_base(project / "made") / "scorer", num_labels=2)
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    # Beside the weights there are the numbers of positions and token types, which are whole numbers of 8 bytes.
    assert judge.memory.kept["weights"] == weights + sum(8 * buffer.numel() for buffer in model.buffers())
    assert judge.memory.kept["optimiser"] == 2 * weights and judge.memory.training["gradients"] == weights
    assert judge.memory.training["activations"] > 0
    first, second = found.phases
    assert "reward model" not in first.memory.kept
    assert second.memory.kept["reward model"] == judge.memory.kept["weights"]


def audit(folder: Path, wanted: Recipe, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the step on a folder's prompts; what it says."""
    import audit as step

    monkeypatch.setattr(sys, "argv", ["audit"])
    write_text(folder / "recipe.yaml", json.dumps(wanted.model_dump()))
    return step.main(
        Namespace(
            recipe=folder / "recipe.yaml", prompts=folder / "prompts", base=folder / "base", seed=1,
            output=folder / "audit.json", gate=folder / "gate.json",
        )
    )  # fmt: skip


@pytest.mark.slow
def test_the_audit_names_it_as_trained_later_and_draws_no_samples_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "prompts/train.jsonl", text_rows())
    write_jsonl(tmp_path / "prompts/eval-test.jsonl", text_rows(("My group",)))
    message = audit(tmp_path, recipe(phases=("grpo",)), monkeypatch)  # the base is not even there
    assert "reward_model is trained later, in the step train" in message and "WARNING" not in message
    found = read_json(tmp_path / "audit.json")
    assert (found["trained_later"], found["groups"], found["base_samples"]) == (["reward_model"], 0, {})
    assert read_json(tmp_path / "gate.json") == {"passed": True}


@pytest.mark.slow
def test_the_audit_stops_what_the_training_of_a_reward_model_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "prompts/train.jsonl", text_rows())
    write_jsonl(tmp_path / "prompts/eval-test.jsonl", [row | {"label": "mixed"} for row in text_rows(("My group",))])
    said = refused(audit, tmp_path, recipe(phases=("grpo",)), monkeypatch)
    assert "row My group boring of eval-test has the label 'mixed', which no training row has" in said
    assert not (tmp_path / "gate.json").exists()


def test_the_base_for_generated_feedback_is_small_and_its_two_tokenizers_are_of_different_kinds() -> None:
    content = read_yaml(ROOT / "sources/bases/tiny-feedback.yaml")
    kinds = [
        read_json(ROOT / part["tokenizer"]["path"] / "tokenizer.json")["model"]["type"]
        for part in (content, content["scorer"])
    ]
    assert kinds == ["BPE", "WordPiece"]
