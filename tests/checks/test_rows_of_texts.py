"""Which recipes fit a data set of texts."""

from pathlib import Path

import pytest
from support import ROOT

from grpo_cot.checks.runs import check_rows_kind
from grpo_cot.common.errors import InputError
from grpo_cot.data.kinds import read_any
from grpo_cot.recipes.recipe import Recipe, RewardModelSection, load_recipe
from grpo_cot.rewards.registry import REWARDS

TRAINED = RewardModelSection(max_length=64, training={})


def recipe(name: str, sets: list[str] | None = None, **sections: object) -> Recipe:
    loaded = load_recipe(ROOT / f"experiments/{name}.yaml")
    evaluate = loaded.evaluate.model_copy(update={"sets": sets or ["test"]})
    return loaded.model_copy(update={"rewards": {"soft_format": 1.0}, "evaluate": evaluate, **sections})


def check(recipe: Recipe, dataset: str = "generated-feedback") -> None:
    check_rows_kind(Path("r.yaml"), recipe, dataset, *read_any(ROOT / f"sources/datasets/{dataset}.yaml"))


@pytest.mark.parametrize("name", ["tiny-sft", "tiny-ppo", "tiny-grpo", "tiny-sft-grpo"])
def test_methods_that_need_no_final_answer_fit(name: str) -> None:
    check(recipe(name))
    check(recipe(name, reward_model=TRAINED))


@pytest.mark.parametrize(
    ("name", "method"),
    [("tiny-rejection-sampling", "rejection_sampling"), ("tiny-dpo-pairs", "dpo"), ("tiny-encoder-decoder", "seq2seq")],
)
def test_methods_that_compare_answers_do_not(name: str, method: str) -> None:
    with pytest.raises(InputError, match=rf"r.yaml: phases.1.method is '{method}', but .* only sft, grpo, ppo learn"):
        check(recipe(name))


def test_rewards_that_compare_with_final_answers_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"r.yaml: rewards.correctness compares with final answers, but the"):
        check(recipe("tiny-ppo", rewards={"soft_format": 1.0, "correctness": 0.0}))


def test_the_texts_that_the_judge_learns_from_are_not_for_evaluation() -> None:
    check(recipe("tiny-ppo", sets=["test", "validation"]))
    with pytest.raises(InputError, match=r"evaluate.sets names 'judge', the texts .* take it out"):
        check(recipe("tiny-ppo", sets=["test", "judge"]))


def test_a_length_before_the_answer_is_not_to_be_had_of_texts() -> None:
    def curt(prompts: list[str], completions: list[str], reasoning_tokens: list[int]) -> list[float]:
        return [0.0] * len(completions)

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(REWARDS, "curt", curt)
        with pytest.raises(InputError, match=r"rewards.curt reads reasoning_tokens, .* let it read completion_ids"):
            check(recipe("tiny-ppo", rewards={"soft_format": 1.0, "curt": 0.0}))


@pytest.mark.parametrize("dataset", ["generated", "generated-preferences"])
def test_a_reward_model_needs_texts(dataset: str) -> None:
    check(recipe("tiny-ppo"), dataset)
    with pytest.raises(InputError, match=f"reward_model is a classifier of texts, but .* {dataset!r} are no texts"):
        check(recipe("tiny-ppo", reward_model=TRAINED), dataset)
