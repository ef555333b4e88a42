"""The reward model: what it learns, how it goes on after a kill, how its classifier judges, and what is refused."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import kill_at
from text_recipes import TRAINING, WORDS, recipe, text_rows, write_base

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json, write_json, write_jsonl
from grpo_cot.recipes.recipe import Recipe

pytestmark = pytest.mark.slow
HELD_OUT = ("The room", "My group")  # subjects of which the training says nothing


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("bases") / "tiny-feedback")


def train(wanted: Recipe, base: Path, result: Path, validation: tuple[str, ...] = ()) -> Path:
    from grpo_cot.training.methods import reward_model

    rows, held_out = text_rows(), text_rows(validation) if validation else []
    reward_model.train(wanted, rows, held_out, base, 1, result.with_suffix(".checkpoints"), result, {})
    return result


@pytest.fixture(scope="session")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(), base, tmp_path_factory.mktemp("trained") / "reward_model", HELD_OUT)


def test_it_tells_two_obvious_classes_apart_in_texts_that_it_has_not_seen(trained: Path) -> None:
    from grpo_cot.models.classifier import Classifier
    from grpo_cot.training.methods.reward_model import verdict

    classifier = Classifier(trained)
    assert classifier.classes == ["negative", "positive"]
    rows = text_rows(HELD_OUT)
    for row, probabilities in zip(rows, classifier.probabilities([row["text"] for row in rows]), strict=True):
        assert sum(probabilities) == pytest.approx(1)
        assert probabilities[classifier.classes.index(row["label"])] > 0.9, row["text"]
    log, wanted = read_json(trained / "log.json"), recipe()
    assert not [name for entry in log for name in entry if "runtime" in name or "per_second" in name]
    assert wanted.reward_model is not None
    sentences = verdict(log, wanted.reward_model)
    assert len(sentences) == 1 and " On the validation split it was at the end 0." in sentences[0]
    assert sentences[0].startswith("It takes 100.0% of the 12 validation texts for their class. The loss went from ")


def test_what_it_leaves_is_whole_and_names_no_place(trained: Path, base: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "config.json", "configuration.json", "log.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip
    assert read_json(trained / "config.json")["id2label"] == {"0": "negative", "1": "positive"}
    configuration = read_json(trained / "configuration.json")
    assert (configuration["method"], configuration["rows"], configuration["max_length"]) == ("reward_model", 36, 16)
    assert configuration["training"]["learning_rate"] == TRAINING["learning_rate"]
    for path in trained.glob("*.json"):
        assert str(base.parent) not in path.read_text() and str(trained.parent) not in path.read_text()


def test_logits_do_not_depend_on_the_batch(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from grpo_cot.models import classifier

    texts = [row["text"] for row in text_rows()] + ["", "x" * 500, "The lecturer"]
    judge = classifier.Classifier(trained)
    together = judge.logits(texts)
    assert together.shape == (len(texts), 2) and together.dtype == torch.float32
    assert torch.equal(together, judge.logits(texts))
    for size in (1, 5):
        monkeypatch.setattr(classifier, "BATCH", size)
        assert (judge.logits(texts) - together).abs().max() < 1e-5
    assert (judge.logits(texts[::-1]).flip(0) - together).abs().max() < 1e-5
    assert judge.logits([]).shape == (0, 2)


def test_a_text_is_read_up_to_max_length(trained: Path) -> None:
    from grpo_cot.models.classifier import Classifier

    judge = Classifier(trained)
    start = "The lecturer is " + "and " * 20
    first, other = judge.logits([start + "boring", start + "lively"])
    assert first.tolist() == other.tolist()


def test_the_reward_pays_the_logit_of_the_wanted_class_of_the_whole_text(trained: Path) -> None:
    from grpo_cot.models.classifier import Classifier
    from grpo_cot.rewards.reward_model import load

    reward = load(trained)
    assert reward.__name__ == "reward_model"
    prompts = [[{"role": "system", "content": "Write."}, {"role": "user", "content": "The exam"}]] * 3
    completions = [[{"role": "assistant", "content": text}] for text in (" is boring.", "is lively.", " is boring.")]
    wanted = ["negative", "negative", "positive"]
    paid = reward(prompts=prompts, completions=completions, wanted=wanted, gold=[None] * 3)
    texts = ["The exam is boring.", "The exam is lively.", "The exam is boring."]
    logits = Classifier(trained).logits(texts)
    assert paid == [pytest.approx(float(logits[place, number]), abs=1e-5) for place, number in enumerate((0, 0, 1))]
    assert paid[0] > paid[1] and paid[0] > paid[2]


@pytest.mark.parametrize("call", [7, 14])  # in the second epoch after the first checkpoint, and in the third
def test_killed_and_resumed_it_ends_the_same_to_the_byte(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    from transformers import Trainer

    wanted = recipe(
        max_steps=16, save_strategy="steps", save_steps=4, eval_strategy="steps", eval_steps=4, logging_steps=2,
        load_best_model_at_end=True, lr_scheduler_type="linear",
    )  # fmt: skip
    whole = train(wanted, base, tmp_path / "whole", HELD_OUT)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        kill_at(patched, Trainer, call)
        train(wanted, base, tmp_path / "killed", HELD_OUT)
    assert not (tmp_path / "killed").exists()
    resumed = train(wanted, base, tmp_path / "killed", HELD_OUT)
    for path in sorted(whole.iterdir()):
        assert path.read_bytes() == (resumed / path.name).read_bytes(), path.name
    assert "selected" in read_json(whole / "configuration.json")


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_phase_learns_from_it_and_a_later_one_sees_it_in_its_starting_samples(
    base: Path, tmp_path: Path, method: str
) -> None:
    from grpo_cot.training.launch import train as step

    write_jsonl(tmp_path / "prompts/train.jsonl", text_rows())
    wanted = recipe({"reward_model": 1.0, "soft_format": 0.0}, ("sft", method))
    verdicts = step(
        wanted, tmp_path / "prompts", base, 1, scratch=tmp_path / "scratch", output=tmp_path / "train",
        curves=tmp_path / "curves",
    )  # fmt: skip
    names = ["reward_model", "01-sft", f"02-{method}"]
    assert list(verdicts) == names == list(read_json(tmp_path / "train/summary.json")["verdict"])
    assert verdicts["reward_model"][0].startswith("The loss went from")
    assert (tmp_path / "curves/reward_model/loss.tsv").is_file()
    audit = read_json(tmp_path / f"train/02-{method}/audit.json")
    assert audit["samples"]["reward_model"]["varies"] == 1.0
    assert audit["samples"]["weighted_sum"]["phantom"] is None
    log = read_json(tmp_path / f"train/02-{method}/log.json")
    assert any("rewards/reward_model/mean" in entry for entry in log)
    assert not any("phantom_advantage" in entry for entry in log)
    assert read_json(tmp_path / "train/model.json")["path"] == f"02-{method}"


def test_reward_model_warm_up_and_ppo_killed_at_three_moments_end_the_same_to_the_byte(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three in one run: each moment is drawn from the first half of what is left, and the run goes on after it."""
    from accelerate.optimizer import AcceleratedOptimizer

    from grpo_cot.training.launch import train as step

    write_jsonl(tmp_path / "prompts/train.jsonl", text_rows())
    wanted = recipe(phases=("sft", "ppo"), max_steps=12, save_strategy="steps", save_steps=4, logging_steps=2)
    for phase in wanted.phases:
        phase.settings.update(max_steps=8, save_strategy="steps", save_steps=2)
    original, steps, limit = AcceleratedOptimizer.step, 0, 10**6

    def counted(self: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == limit:
            raise KeyboardInterrupt
        return original(self, *arguments, **more)

    monkeypatch.setattr(AcceleratedOptimizer, "step", counted)

    def run(name: str) -> dict[str, bytes]:
        places = {part: tmp_path / name / part for part in ("scratch", "output", "curves")}
        step(wanted, tmp_path / "prompts", base, 1, **places)
        made = (path for part in ("output", "curves") for path in places[part].rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in made}

    whole, total = run("whole"), steps
    assert total == 12 + 8 + 8
    moments = random.Random(3)
    left = total
    for _ in range(3):
        steps, limit = 0, moments.randint(2, left // 2)
        with pytest.raises(KeyboardInterrupt):
            run("killed")
        assert not (tmp_path / "killed/output").exists()
        left -= limit - 1  # and those since the last checkpoint, which are taken again
    steps, limit = 0, 10**6
    resumed = run("killed")
    assert steps < total
    assert [name for name in whole if whole[name] != resumed.get(name)] == [] and whole.keys() == resumed.keys()


def test_a_changed_scorer_is_another_training(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unfinished work of one scorer is not gone on with from another."""
    from grpo_cot.training import launch

    places = []

    def stopped(*arguments: Any) -> Path:
        places.append(arguments[5])
        raise InputError("stopped")

    monkeypatch.setattr(launch, "train_phases", stopped)
    write_jsonl(tmp_path / "prompts/train.jsonl", text_rows())
    shutil.copytree(base, tmp_path / "base")
    for rate in (0.1, 0.1, 0.2):
        settings = read_json(tmp_path / "base/scorer/config.json") | {"hidden_dropout_prob": rate}
        write_json(tmp_path / "base/scorer/config.json", settings)
        with pytest.raises(InputError, match="stopped"):
            launch.train(
                recipe(), tmp_path / "prompts", tmp_path / "base", 1, scratch=tmp_path / "scratch",
                output=tmp_path / "train", curves=tmp_path / "curves",
            )  # fmt: skip
    assert places[0] == places[1] != places[2]


def test_what_cannot_be_trained_is_one_sentence(base: Path, tmp_path: Path) -> None:
    from grpo_cot.training.methods import reward_model

    def refused(wanted: Recipe, folder: Path = base) -> str:
        with pytest.raises(InputError) as refusal:
            train(wanted, folder, tmp_path / "result")
        assert not (tmp_path / "result").exists() and "\n" not in str(refusal.value)
        return str(refusal.value)

    shutil.copytree(base, tmp_path / "mine", ignore=shutil.ignore_patterns("scorer"))
    assert "add `scorer:` to sources/bases/mine.yaml" in refused(recipe(), tmp_path / "mine")
    section = recipe().reward_model
    assert section is not None
    long = recipe().model_copy(update={"reward_model": section.model_copy(update={"max_length": 200})})
    assert "max_length is 200, but the scorer has positions for 128 tokens" in refused(long)
    unset = recipe(load_best_model_at_end=True, save_strategy="steps")
    assert "reward_model: the phase cannot be set up: " in refused(unset)
    shutil.copytree(base, tmp_path / "cut")
    (tmp_path / "cut/scorer/model.safetensors").write_bytes(b"cut")
    assert "its files are corrupt or incomplete" in refused(recipe(), tmp_path / "cut")
    with pytest.raises(InputError, match="at least two classes"):
        rows = [row for row in text_rows() if row["label"] == "negative"]
        reward_model.train(recipe(), rows, [], base, 1, tmp_path / "a", tmp_path / "b", {})


def test_a_folder_that_is_no_classifier_is_refused(trained: Path, base: Path, tmp_path: Path) -> None:
    from grpo_cot.models.classifier import Classifier

    with pytest.raises(InputError, match="no such model folder"):
        Classifier(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"2 weights are missing, classifier\.bias first"):
        Classifier(base / "scorer")


def test_the_words_of_the_classes_are_in_the_vocabulary() -> None:
    """Otherwise the test above would be of something else than the labels."""
    from text_recipes import source

    vocabulary = json.loads((Path(source()["scorer"]["tokenizer"]["path"]) / "tokenizer.json").read_text())
    assert {word for words in WORDS.values() for word in words} <= vocabulary["model"]["vocab"].keys()
