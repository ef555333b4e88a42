"""GRPO on the validation split: it changes nothing of the training, stops it, and a killed one chooses the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, kill_at, tell_at, training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, read_json, read_jsonl, read_yaml, write_jsonl
from grpo_cot.recipes.recipe import Recipe

TINY = ROOT / "assets/tiny/model"
EVALUATES = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4}
CHOOSES = {"load_best_model_at_end": True, "metric_for_best_model": "eval_strict_accuracy"}


def recipe(patience: int | None = None, *, validates: bool = True, **grpo: Any) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    phase = content["phases"][0]
    phase["lora"] |= {"lora_dropout": 0.1}  # which must be off in an answer, and on again afterwards
    phase["grpo"] |= {
        "max_steps": 6, "save_strategy": "steps", "save_steps": 2, "max_completion_length": 40,
        "gradient_checkpointing": True, **(EVALUATES if validates else {}), **grpo,
    }  # fmt: skip
    phase["validation"] = {"problems": 7, "patience": patience} if validates else None
    return Recipe.model_validate(content | {"rewards": {"random": 1.0}})


def held_out() -> list[Row]:
    """Problems that the base answers in the schema."""
    system = {"role": "system", "content": read_yaml(ROOT / "tests/pipeline/short.yaml")["prompt"]["system"]}
    return [row | {"messages": [system, *row["messages"]]} for row in training_rows()]


def train(wanted: Recipe, scratch: Path, validation: list[Row] | None = None) -> Path:
    from grpo_cot.training.phases import train_phases

    return train_phases(wanted, training_rows(), validation or held_out(), TINY, 3, scratch, {})


def log_of(result: Path) -> list[dict[str, float]]:
    log: list[dict[str, float]] = read_json(result / "01-grpo/log.json")
    return log


def files(result: Path) -> dict[str, bytes]:
    return {str(path.relative_to(result)): path.read_bytes() for path in sorted(result.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_it_changes_nothing_of_the_training_and_grades_as_evaluation_does(tmp_path: Path) -> None:
    from grpo_cot.grading.validation import validation_figures

    watched = train(recipe(eval_on_start=True), tmp_path / "watched")
    alone = train(recipe(validates=False), tmp_path / "alone")
    log = log_of(watched)
    judged = [entry for entry in log if "eval_strict_accuracy" in entry]
    assert [entry for entry in log if entry not in judged] == log_of(alone)
    weights = "01-grpo/adapter_model.safetensors"
    assert files(watched)[weights] == files(alone)[weights]
    assert [entry["step"] for entry in judged] == [0, 2, 4, 6]
    answers = read_jsonl(watched / "01-grpo/validation.jsonl")
    assert len(answers) == 4 * 7 and all(0 < row["tokens"] <= 40 for row in answers)
    figures = validation_figures(answers, {row["id"]: row for row in held_out()})
    for graded, entry in zip(figures, judged, strict=True):
        assert (graded["step"], graded["n"]) == (entry["step"], 7)
        for name in ("strict_accuracy", "format_adherence", "truncated"):
            assert graded[name]["value"] == pytest.approx(entry[f"eval_{name}"])
        assert graded["completion_tokens"]["value"] == pytest.approx(entry["eval_completion_tokens"])
        levels = graded["by_difficulty"]
        assert sum(level["n"] for level in levels) == 7 and len(levels) > 1
        right = sum(level["n"] * level["strict_accuracy"]["value"] for level in levels)
        assert right / 7 == pytest.approx(graded["strict_accuracy"]["value"])
    assert judged[0]["eval_format_adherence"] > 0  # the base knows the schema
    by_step = [[row["text"] for row in answers[7 * at :][:7]] for at in range(4)]
    changed = [sum(a != b for a, b in zip(by_step[0], texts, strict=True)) / 7 for texts in by_step]
    assert [entry.get("eval_changed_answers") for entry in judged] == [None, *changed[1:]] and changed[-1] > 0


def scripted(accuracies: list[float]) -> Callable[[Any, Any], dict[str, float]]:
    """Figures that fall as a script says: the real answers are asked and kept all the same."""
    from grpo_cot.training.validation.answers import Validation

    figures = Validation._figures

    def fall(self: Any, answers: Any) -> dict[str, float]:
        step = self._trainer.state.global_step
        return figures(self, answers) | {"eval_strict_accuracy": accuracies[step // 2]}

    return fall


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [pytest.param(CHOOSES, id="chooses"), pytest.param({"save_steps": 1}, id="saves-between", marks=pytest.mark.prove)],
)
def test_killed_three_times_it_stops_and_chooses_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """The second evaluation is the best, and the two after it are none: training stops at the fourth of six."""
    from trl import GRPOTrainer

    from grpo_cot.training.validation.answers import Validation

    monkeypatch.setattr(Validation, "_figures", scripted([0.5, 0.1, 0.6, 0.5, 0.5, 0.9, 0.9]))
    wanted = recipe(2, max_steps=12, eval_on_start=True, **settings)
    whole = train(wanted, tmp_path / "whole")
    for call in (2, 3, 3):  # before any checkpoint, after one, and after the last evaluation that is no stop
        with monkeypatch.context() as patched:
            kill_at(patched, GRPOTrainer, call)
            with pytest.raises(KeyboardInterrupt):
                train(wanted, tmp_path / "killed")
    resumed = train(wanted, tmp_path / "killed")
    assert files(whole) == files(resumed)
    log = log_of(whole)
    evaluated = [entry["step"] for entry in log if "eval_strict_accuracy" in entry]
    assert log[-1]["step"] == 8 and evaluated == [0, 2, 4, 6, 8]
    if settings is not CHOOSES:
        assert "selected" not in read_json(whole / "01-grpo/configuration.json")
        return
    assert read_json(whole / "01-grpo/configuration.json")["selected"] == {"step": 4, "eval_strict_accuracy": 0.6}
    # The weights are that step's.
    short = train(recipe(2, max_steps=4, eval_on_start=True, **CHOOSES), tmp_path / "short")
    name = "01-grpo/adapter_model.safetensors"
    assert files(whole)[name] == files(short)[name]


@pytest.mark.slow
def test_told_to_end_it_stops_after_the_step_and_chooses_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    wanted = recipe(2, max_steps=4, eval_on_start=True, **CHOOSES)
    whole = train(wanted, tmp_path / "whole")
    for call, end in ((1, 1), (2, 3)):  # between two evaluations
        with monkeypatch.context() as patched, pytest.raises(InputError, match=rf"after step {end} of 4 and left"):
            tell_at(patched, GRPOTrainer, call)
            train(wanted, tmp_path / "told")
    assert files(whole) == files(train(wanted, tmp_path / "told"))


@pytest.mark.slow
def test_the_last_step_is_judged_and_a_training_killed_while_it_saves_makes_no_step_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpo_cot.training import phases

    wanted = recipe(max_steps=3, **CHOOSES)
    whole = train(wanted, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(phases, "_save", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(wanted, tmp_path / "killed")
    assert files(train(wanted, tmp_path / "killed")) == files(whole)
    assert [entry["step"] for entry in log_of(whole) if "eval_strict_accuracy" in entry] == [2, 3]
    assert max(entry["step"] for entry in log_of(whole)) == 3


@pytest.mark.slow
def test_two_processes_share_the_problems_and_answer_as_one_does(tmp_path: Path) -> None:
    from grpo_cot.training.launch import train_in_processes

    wanted = recipe(max_steps=2, eval_on_start=True)
    alone = read_jsonl(train(wanted, tmp_path / "alone") / "01-grpo/validation.jsonl")
    section = {"distributed_type": "MULTI_CPU", "num_processes": 2, "use_cpu": True}
    both = wanted.model_copy(update={"accelerate": section})
    both.phases[0].settings["per_device_train_batch_size"] = 8
    write_jsonl(tmp_path / "prompts/train.jsonl", training_rows())
    write_jsonl(tmp_path / "prompts/eval-validation.jsonl", held_out())
    result = train_in_processes(both, tmp_path / "prompts", TINY, 3, tmp_path / "both", {})
    answers = read_jsonl(result / "01-grpo/validation.jsonl")
    assert [(row["step"], row["id"]) for row in answers] == [(row["step"], row["id"]) for row in alone]
    assert answers[:7] == alone[:7]  # before the first step both are the base
    assert [entry["eval_problems"] for entry in log_of(result) if "eval_problems" in entry] == [7, 7]


@pytest.mark.slow
def test_rows_without_final_answers_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 0 of the validation split has no final answer.*'validation' to null"):
        train(recipe(), tmp_path, [held_out()[0] | {"gold": None}])


@pytest.mark.parametrize(
    ("grpo", "section", "says"),
    [
        ({}, None, "validation is null, but grpo.eval_strategy is 'steps'; give problems and patience"),
        ({"eval_strategy": "no"}, ..., "validation is given, but grpo.eval_strategy is 'no'; set it to null"),
        ({"eval_strategy": "no", "eval_on_start": True}, None, "eval_on_start is true, but no step is evaluated"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, ..., "follows a loss on the validation split, and GRPO has"),
        ({"eval_strategy": "no", **CHOOSES}, None, "load_best_model_at_end is true, but no step is evaluated"),
        ({"eval_steps": None}, ..., "'eval_steps' is missing, which 'validation' needs"),
        ({"load_best_model_at_end": True}, ..., "'metric_for_best_model' is missing, by which"),
        ({**CHOOSES, "save_steps": 4}, ..., "set save_strategy to 'steps' and save_steps to the 2 of eval_steps"),
        ({**CHOOSES, "save_strategy": "no"}, ..., "set save_strategy to 'steps'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(grpo: dict[str, Any], section: object, says: str) -> None:
    from grpo_cot.checks.rules import check_training_sections

    content = recipe(**grpo).model_dump()
    if section is None:
        content["phases"][0]["validation"] = None
    content["phases"][0]["grpo"] = {
        name: value for name, value in content["phases"][0]["grpo"].items() if value is not None
    }
    with pytest.raises(InputError) as error:
        check_training_sections(Recipe.model_validate(content), "recipe.yaml")
    assert says in str(error.value)


def test_the_split_that_stops_a_training_is_not_reported() -> None:
    from grpo_cot.checks.rules import check_selection

    content = recipe(3).model_dump()
    content["evaluate"]["sets"] = ["validation"]
    with pytest.raises(InputError, match=r"reports 'validation', on which phases.1 chooses its checkpoint, or stops"):
        check_selection(Recipe.model_validate(content), "recipe.yaml")
    content["phases"][0]["validation"]["patience"] = None
    check_selection(Recipe.model_validate(content), "recipe.yaml")


def test_weights_in_shards_are_refused() -> None:
    from grpo_cot.checks.rules import check_training_sections

    content = recipe().model_dump() | {"accelerate": {"num_processes": 2, "fsdp_config": {"fsdp_version": 2}}}
    with pytest.raises(InputError, match="'accelerate' has fsdp_config: under FSDP and DeepSpeed no questions"):
        check_training_sections(Recipe.model_validate(content), "recipe.yaml")
