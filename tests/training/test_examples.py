"""Every method of training for a few steps on the embedded models: what it learns from, what it leaves, resumption."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from grpo_cot.checks.rules import check_training_sections
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml
from grpo_cot.data.generated.slips import pairs
from grpo_cot.problems.generators import problems
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.schema import worked

COMMON = {
    "max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "bf16": False, "save_steps": 2,
    "gradient_checkpointing": False, "logging_steps": 1, "report_to": "none",
}  # fmt: skip
SFT = {**COMMON, "max_length": 256, "loss_type": "nll"}
DPO = {**COMMON, "max_length": 256, "loss_type": ["sigmoid"], "beta": 0.1}
SAMPLES = {
    "problems": 16, "batch_size": 20, "count": 24,  # the base seldom answers rightly in the schema
    "sampling": {"do_sample": True, "temperature": 1.0, "max_new_tokens": 64, "stop_strings": ["</answer>"]},
}  # fmt: skip
SCHEMA = read_yaml(ROOT / "experiments/tiny-grpo.yaml")["prompt"]["system"]


def recipe(*phases: dict[str, Any], adapter: bool = True) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    lora = content["phases"][0]["lora"]
    content["rewards"] = {}
    content["quantization"] = content["quantization"] if adapter else None
    content["phases"] = [
        {"lora": lora if adapter and number == 0 else None, **phase} for number, phase in enumerate(phases)
    ]
    return Recipe.model_validate(content)


def rows(number: int, split: str = "train") -> list[dict[str, Any]]:
    return [
        {
            "id": f"{split}-{index}", "gold": str(problem.value), "locale": "en", "solution": "\n".join(problem.steps),
            "messages": [{"role": "system", "content": SCHEMA}, {"role": "user", "content": problem.question}],
        }
        for index, problem in enumerate(itertools.islice(problems(split, 3), number))
    ]  # fmt: skip


def pair_rows(number: int, split: str = "train") -> list[dict[str, Any]]:
    """As `rows`, with a right and a wrong answer in the place of the solution."""
    return [
        {
            "id": f"{split}-{index}", "gold": pair.gold, "locale": "en", "solution": None, "chosen": pair.chosen,
            "rejected": pair.rejected,
            "messages": [{"role": "system", "content": SCHEMA}, {"role": "user", "content": pair.question}],
        }
        for index, pair in enumerate(itertools.islice(pairs("basic", split, 3), number))
    ]  # fmt: skip


def train(wanted: Recipe, scratch: Path, base: str = "tiny", validation: Any = (), prompts: Any = None) -> Path:
    from grpo_cot.training.phases import train_phases

    prompts = rows(16) if prompts is None else prompts
    return train_phases(wanted, prompts, validation, ROOT / "assets" / base / "model", 1, scratch, {})


def losses(result: Path, phase: str) -> list[float]:
    return [entry["loss"] for entry in json.loads((result / phase / "log.json").read_text()) if "loss" in entry]


@pytest.mark.slow
def test_sft_learns_the_completion_alone_and_a_resumed_run_ends_to_the_byte_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    wanted = recipe({"method": "sft", "sft": SFT | {"per_device_train_batch_size": 16}})  # all rows in one step
    whole = train(wanted, tmp_path / "whole") / "01-sft"
    # The first logged loss is that of the untrained model on the completions' tokens: prompts do not count.
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(
        ROOT / "assets/tiny/model",
        quantization_config=BitsAndBytesConfig(**(wanted.quantization or {})),
        dtype="float32",
    )
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "assets/tiny/model")
    total = tokens = 0.0
    for row in rows(16):
        prompt = tokenizer(tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True))
        answer = tokenizer(worked(row["solution"], row["gold"]) + tokenizer.eos_token)["input_ids"]
        ids = torch.tensor([prompt["input_ids"] + answer])
        labels = torch.tensor([[-100] * len(prompt["input_ids"]) + answer])
        with torch.inference_mode():
            total += float(base(input_ids=ids, labels=labels).loss) * len(answer)
        tokens += len(answer)
    assert losses(tmp_path / "whole/result", "01-sft")[0] == pytest.approx(total / tokens, rel=1e-3)

    class Killed(Exception):
        pass

    original = transformers.Trainer._save_checkpoint

    def save_then_stop(self: Any, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        raise Killed

    monkeypatch.setattr(transformers.Trainer, "_save_checkpoint", save_then_stop)
    with pytest.raises(Killed):
        train(wanted, tmp_path / "killed")
    monkeypatch.undo()
    resumed = train(wanted, tmp_path / "killed") / "01-sft"
    assert {path.name for path in resumed.iterdir()} == {path.name for path in whole.iterdir()}
    for path in whole.iterdir():
        assert path.read_bytes() == (resumed / path.name).read_bytes(), path.name
    assert isinstance(PeftModel.from_pretrained(base, str(resumed)), PeftModel)


@pytest.mark.slow
def test_rejection_sampling_keeps_what_is_right_and_dpo_pairs_it_with_what_is_wrong(tmp_path: Path) -> None:
    from grpo_cot.rewards.ours import correctness_in_schema

    two = recipe(
        {"method": "rejection_sampling", "samples": SAMPLES, "sft": SFT},
        {"method": "dpo", "samples": SAMPLES, "dpo": DPO},
    )
    result = train(two, tmp_path)
    golds = {row["id"]: row["gold"] for row in rows(16)}
    drawn = {}
    for phase in ("01-rejection_sampling", "02-dpo"):
        samples = [json.loads(line) for line in (result / phase / "samples.jsonl").read_text().splitlines()]
        drawn[phase] = samples
        assert len(samples) == SAMPLES["problems"]
        for row in samples:
            for kind, paid in (("right", 2.0), ("wrong", 0.0)):
                assert len(set(row[kind])) == len(row[kind])
                for completion in row[kind]:
                    assert correctness_in_schema([""], [completion], [golds[row["id"]]], locale=["en"]) == [paid]
    assert drawn["01-rejection_sampling"] != drawn["02-dpo"]  # the second draws from what the first has trained
    first, second = ((result / name / "adapter_model.safetensors").read_bytes() for name in sorted(drawn))
    assert first != second
    log = json.loads((result / "02-dpo/log.json").read_text())
    # Before its first step the policy is its reference: the continued adapter as the phase before left it.
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.slow
def test_sft_learns_the_chosen_answers_of_pairs_and_dpo_to_prefer_them(tmp_path: Path) -> None:
    from grpo_cot.evaluation.likelihood import likelihoods
    from grpo_cot.models.loading import load

    given = pair_rows(16)
    two = recipe(
        {"method": "sft", "sft": SFT | {"learning_rate": 1e-4}}, {"method": "dpo", "samples": None, "dpo": DPO}
    )
    result = train(two, tmp_path, prompts=given)
    assert json.loads((result / "01-sft/configuration.json").read_text())["rows"] == 16
    assert not (result / "02-dpo/samples.jsonl").exists()
    margins = []
    for phase in ("01-sft", "02-dpo"):
        description = json.loads((result / "model.json").read_text()) | {"path": phase}
        (result / "one.json").write_text(json.dumps(description))
        model, tokenizer, _ = load(result / "one.json")
        chosen, rejected = (
            likelihoods(
                model, tokenizer, [row["messages"] for row in given], [row[side] for row in given], batch_size=16,
                chat_template_kwargs={}, progress="test", finished={},
            )
            for side in ("chosen", "rejected")
        )  # fmt: skip
        margins.append([one.log_likelihood - two.log_likelihood for one, two in zip(chosen, rejected, strict=True)])
    assert sum(after > before for before, after in zip(*margins, strict=True)) >= 14


def test_pairs_of_the_data_set_are_learnt_without_what_the_prompt_opened() -> None:
    from grpo_cot.models.opening import Opening
    from grpo_cot.training.examples import published_pairs, worked_solutions

    [row] = pair_rows(1)
    for opened, expected in (("", row["chosen"]), ("<reasoning>", row["chosen"].removeprefix("<reasoning>"))):
        begun = Opening(opened, strips=False)
        [pair] = published_pairs([row], begun)
        assert pair["chosen"] == expected and pair["rejected"] == row["rejected"].removeprefix(opened)
        assert [example["completion"] for example in worked_solutions([row], begun)] == [expected]
    with pytest.raises(InputError, match=r"its rows are no pairs of answers \(rows: preference in its source file\)"):
        published_pairs(rows(1), Opening("", strips=False))


@pytest.mark.slow
@pytest.mark.parametrize(("base", "method"), [("tiny-gpt2", "sft"), ("tiny-mt5", "seq2seq")])
def test_all_weights_of_both_architectures_train_load_answer_and_keep_the_best_checkpoint_of_the_validation_split(
    tmp_path: Path, base: str, method: str
) -> None:
    from grpo_cot.evaluation.likelihood import likelihoods
    from grpo_cot.models.generation import encode, generate
    from grpo_cot.models.loading import load

    selecting = {
        "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss",
        "per_device_eval_batch_size": 8,
        # Ever larger steps, so that the last is not the best.
        "learning_rate": 8e-2, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 8,
    }  # fmt: skip
    settings = (SFT if method == "sft" else COMMON) | selecting | {"max_steps": 8}
    result = train(recipe({"method": method, method: settings}, adapter=False), tmp_path, base, rows(8, "test"))
    model, tokenizer, description = load(result / "model.json")
    assert (description.kind, description.architecture) == ("full", "causal" if method == "sft" else "seq2seq")
    said = generate(
        model, tokenizer, encode(tokenizer, [row["messages"] for row in rows(3)], {}),
        {"do_sample": False, "max_new_tokens": 8}, batch_size=2, seed=0, progress="test",
    )  # fmt: skip
    assert [0 < completion.tokens <= 8 for completion in said] == [True] * 3
    log = json.loads((result / f"01-{method}/log.json").read_text())
    judged = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    best = min(judged, key=judged.__getitem__)
    assert len(judged) == 4 and best != 8
    assert json.loads((result / f"01-{method}/configuration.json").read_text())["selected"]["step"] == best
    # What was saved is that checkpoint: its loss on the validation rows, one row at a time, is the logged one.
    held_out = likelihoods(
        model, tokenizer, [row["messages"] for row in rows(8, "test")],
        [worked(row["solution"], row["gold"]) for row in rows(8, "test")],
        batch_size=1, chat_template_kwargs={}, progress="test", finished={},
    )  # fmt: skip
    loss = -sum(found.log_likelihood for found in held_out if found) / sum(found.tokens for found in held_out if found)
    assert loss == pytest.approx(judged[best], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "phase", "says"),
    [
        ("tiny-mt5", {"method": "sft", "sft": SFT}, "an encoder-decoder, which the method 'sft' cannot train"),
        ("tiny", {"method": "seq2seq", "seq2seq": COMMON}, "a causal model, which the method 'seq2seq' cannot train"),
        ("tiny", {"method": "sft", "sft": SFT | {"max_length": 20}}, "max_length is 20, and all 16 rows are longer"),
    ],
)
def test_a_phase_that_cannot_train_says_why(tmp_path: Path, base: str, phase: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        train(recipe(phase, adapter=False), tmp_path, base)


def test_nothing_right_is_nothing_to_learn_from() -> None:
    from grpo_cot.training.examples import own_pairs, right_completions

    samples = [{"id": "1", "messages": [], "right": [], "wrong": ["a"]}]
    with pytest.raises(InputError, match="none of 1 problems rightly"):
        right_completions(samples)
    with pytest.raises(InputError, match="no pair to learn from"):
        own_pairs(samples)
    samples = [{"id": "1", "messages": [], "right": ["r"], "wrong": ["a", "b"]}]
    assert [(row["chosen"], row["rejected"]) for row in own_pairs(samples)] == [("r", "a")]


def test_methods_for_different_models_do_not_mix() -> None:
    mixed = recipe({"method": "seq2seq", "seq2seq": COMMON}, {"method": "sft", "sft": SFT}, adapter=False)
    with pytest.raises(InputError, match="mixes seq2seq with other methods"):
        check_training_sections(mixed, "recipe")
