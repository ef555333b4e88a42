"""Dynamic sampling: what is replaced, what is logged of it, and that a kill changes nothing."""

from pathlib import Path
from typing import Any

import pytest
from group_recipes import recipe as group_recipe
from group_recipes import trainer_of
from support import ROOT, kill_at, training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json, read_yaml
from grpo_cot.recipes.recipe import Recipe

TINY = ROOT / "assets/tiny/model"


def recipe(rounds: int, **changes: Any) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    phase = content["phases"][0]
    phase["grpo"] |= {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "max_completion_length": 40}
    phase["grpo"] |= changes.pop("grpo", {})
    if order := changes.pop("order", None):
        phase["grpo"]["shuffle_dataset"] = False
        phase["pass_rates"] = {
            "problems": 12, "count": 4, "batch_size": 32, "low": 0.0, "high": 1.0, "order": order,
            "sampling": {"do_sample": True, "max_new_tokens": 40},
        }  # fmt: skip
    phase["dynamic_sampling"] = {"rounds": rounds}
    return Recipe.model_validate(content | {"rewards": {"correctness": 1.0}} | changes)


def texts_of(trainer: Any, rows: list[Any]) -> list[str]:
    """The prompts of rows as a trainer logs them."""
    texts = []
    for row in rows:
        ids = trainer.processing_class.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
        texts.append(trainer.processing_class.decode(ids, skip_special_tokens=True))
    return texts


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "every", "replaced"), [(15, 3, True), (2, 99, False)])
def test_groups_without_an_advantage_are_replaced_by_those_of_other_prompts(
    tmp_path: Path, rounds: int, every: int, replaced: bool
) -> None:
    """A reward that pays for one prompt of `every`: what is trained on is the groups that it varies in."""
    from grpo_cot.training.signal.dynamic_sampling import ROUNDS, STILL_SILENT

    given = group_recipe({"correctness": 1.0}, first="grpo")
    given.phases[0] = given.phases[0].model_copy(update={"dynamic_sampling": recipe(rounds).phases[0].dynamic_sampling})
    trainer = trainer_of(given, tmp_path)
    rows, group, asked = list(trainer.train_dataset), trainer.num_generations, []
    paying = [row["prompt"] for row in rows[1::every]]

    def paid(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        asked.append(prompts[::group])
        return [float(prompt in paying and place % 2) for place, prompt in enumerate(prompts)]

    trainer.reward_funcs[0] = paid
    trainer.model.train()
    first = [rows[1], rows[0]]
    batch = trainer._generate_and_score_completions([dict(row) for row in first for _ in range(group)])
    metrics = trainer._metrics["train"]
    assert metrics[STILL_SILENT] == [0.0 if replaced else 0.5] and metrics[ROUNDS] == [len(asked) - 1.0]
    assert len(asked) == 1 + rounds or asked[-1][0] in paying
    assert (batch["advantages"].view(-1, group) != 0).any(dim=1).tolist() == [True, replaced]
    assert [list(trainer._logs["prompt"])[place] for place in (0, group)] == texts_of(trainer, first)
    everything = [prompt for prompts in asked for prompt in prompts]
    assert len(everything) == len({str(prompt) for prompt in everything})  # nobody is asked twice in a step
    texts = trainer.processing_class.batch_decode(batch["prompt_ids"][::group], skip_special_tokens=True)
    assert first[0]["prompt"][-1]["content"] in texts[0]
    assert (first[1]["prompt"][-1]["content"] in texts[1]) is not replaced
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    assert len(metrics["reward"]) == 1  # that of the first draw
    assert metrics["frac_reward_zero_std"] == [0.5]


def test_groups_of_another_batch_are_put_in_with_their_padding() -> None:
    import torch

    from grpo_cot.training.signal.dynamic_sampling import with_groups

    def batch(prompt: int, completion: int, begin: int) -> dict[str, Any]:
        ids = torch.arange(begin, begin + 4)[:, None]
        return {
            "prompt_ids": ids.repeat(1, prompt), "prompt_mask": torch.ones(4, prompt, dtype=torch.long),
            "completion_ids": ids.repeat(1, completion), "completion_mask": torch.ones(4, completion, dtype=torch.long),
            "advantages": torch.arange(begin, begin + 4.0), "num_items_in_batch": torch.tensor(4 * completion),
            "old_per_token_logps": torch.full((4, completion), -1.0), "ref_per_token_logps": None,
        }  # fmt: skip

    whole = with_groups(batch(2, 3, 10), [1], batch(4, 2, 20), [0], 2, 9)
    assert whole["prompt_ids"].tolist() == [[9, 9, 10, 10], [9, 9, 11, 11], [20] * 4, [21] * 4]
    assert whole["prompt_mask"].tolist() == [[0, 0, 1, 1]] * 2 + [[1] * 4] * 2
    assert whole["completion_ids"].tolist() == [[10] * 3, [11] * 3, [20, 20, 9], [21, 21, 9]]
    assert whole["completion_mask"].tolist() == [[1] * 3] * 2 + [[1, 1, 0]] * 2
    assert whole["old_per_token_logps"].tolist() == [[-1] * 3] * 2 + [[-1, -1, 0]] * 2
    assert whole["advantages"].tolist() == [10, 11, 20, 21] and whole["num_items_in_batch"] == 10


@pytest.mark.slow
def test_a_killed_training_asks_the_same_prompts_and_ends_the_same_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    from grpo_cot.training.phases import train_phases

    def train(name: str) -> Path:
        return train_phases(recipe(2), training_rows(), [], TINY, 3, tmp_path / name, {}) / "01-grpo"

    whole = train("whole")
    log = read_json(whole / "log.json")
    assert any(entry["dynamic_sampling/rounds"] > 0 for entry in log)
    with monkeypatch.context() as patched:
        kill_at(patched, GRPOTrainer, 3)
        with pytest.raises(KeyboardInterrupt):
            train("killed")
    killed = train("killed")
    for name in ("log.json", "adapter_model.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("before", "after", "rounds", "sentences"),
    [
        (
            0.8, 0.25, 1.5,
            ["Of a step's groups 80% carried no signal at first, and 25% after 1.5 rounds a step on average."],
        ),
        (
            1.0, 1.0, 2.0,
            ["Of a step's groups 100% carried no signal at first, and 100% after 2.0 rounds a step on average: other "
             "prompts taught no more; keep a band of pass rates (pass_rates) instead."],
        ),
        (0.0, 0.0, 0.0, ["Every group of every step carried a signal: no round of dynamic sampling was drawn."]),
        (0.5, 0.5, 0.0, ["Of a step's groups 50% carried no signal, and there was no other prompt to ask; add rows."]),
        (None, None, None, []),
    ],
)  # fmt: skip
def test_the_sentence_says_what_the_rounds_brought(
    before: float | None, after: float | None, rounds: float | None, sentences: list[str]
) -> None:
    from grpo_cot.training.signal.dynamic_sampling import ROUNDS, STILL_SILENT, dynamic_sampling_sentences

    entry = {"frac_reward_zero_std": before, STILL_SILENT: after, ROUNDS: rounds}
    logged = [{name: value for name, value in entry.items() if value is not None}]
    assert dynamic_sampling_sentences(logged) == sentences


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"accelerate": {"num_processes": 2}}, "dynamic_sampling replaces groups in one process"),
        ({"order": "easiest_first"}, "dynamic_sampling asks prompts at random, which undoes pass_rates.order"),
        ({"backend": "unsloth"}, "but the backend unsloth keeps its batches in another form"),
        ({"grpo": {"scale_rewards": "batch"}}, "dynamic_sampling is given, but grpo.scale_rewards is 'batch'"),
        (
            {"grpo": {"multi_objective_aggregation": "normalize_then_sum"}},
            "dynamic_sampling is given, but grpo.multi_objective_aggregation is 'normalize_then_sum'",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(changes: dict[str, Any], says: str) -> None:
    from grpo_cot.checks.rules import check_training_sections

    with pytest.raises(InputError) as error:
        check_training_sections(recipe(2, **changes), "recipe.yaml")
    assert says in str(error.value)


def test_of_prompts_that_stand_twice_in_the_rows_one_is_asked() -> None:
    from grpo_cot.training.signal.dynamic_sampling import _others

    rows = [{"prompt": letter} for letter in "abbbc"]
    assert sorted(row["prompt"] for row in _others(rows, ["a"], 4)) == ["b", "c"]


def test_a_group_whose_completions_are_masked_does_not_teach() -> None:
    import torch

    from grpo_cot.training.signal.dynamic_sampling import _groups

    batch = {
        "advantages": torch.tensor([1.0, -1.0, 1.0, -1.0]), "completion_mask": torch.tensor([[0], [0], [1], [0]])
    }  # fmt: skip
    assert _groups(batch, 2, varied=True) == [1] and _groups(batch, 2, varied=False) == [0]
