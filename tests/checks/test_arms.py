"""The arms of studies: the settings in which each differs from the arm that it is compared with."""

from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from grpo_cot.common.files import read_yaml
from grpo_cot.data.kinds import read_any
from grpo_cot.data.overlap import refuse_shown
from grpo_cot.data.rows import load
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.params import load_params
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import load_recipe

GRPO = "phases.0.grpo"
GROUP = {f"{GRPO}.{key}" for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_generations")}
WEIGHTS = {f"rewards.published_{name}" for name in ("integer_answer", "soft_format", "strict_format")}
DRAW = ("problems", "count", "sampling.do_sample", "sampling.temperature", "sampling.max_new_tokens")
RATES = (*DRAW, "batch_size", "low", "high", "order")
EVALUATED = ("evaluate.samples", *(f"evaluate.samples.{name}" for name in DRAW))
NOT_CORRECTNESS = {f"rewards.{name}" for name in ("integer_answer", "soft_format", "strict_format", "xml_count")}
EXAMPLE = {"prompt.examples", "prompt.also_with", "evaluate.sets"}
CORRECT, COSINE, PENALISED = (
    f"rewards.published_{name}" for name in ("correctness", "length_cosine", "length_cosine_penalty")
)
# As logged (facts of the study's event files): completions to a prompt, prompts a step, rate, steps, and what a right
# answer, the cosine, and a reward of format other than the count of tags pay at most.
LOGGED = {
    "length-standard": (4, 4, 5e-6, 1800, 2.0, 0.0, 0.5),
    "length-penalised": (4, 4, 5e-6, 1800, 0.0, 5.0, 0.5),
    "length-cosine": (4, 4, 5e-6, 1800, 1.0, 5.0, 0.5),
    "length-cosine-g6": (6, 3, 2e-6, 2240, 1.0, 5.0, 0.25),
}
# What an arm changes of another one.
CHANGED = {
    ("length-no-example", "length-standard"): EXAMPLE,
    ("length-penalised", "length-standard"): {CORRECT, PENALISED, "audit.allow"},
    ("length-cosine", "length-standard"): {CORRECT, COSINE},
    ("length-cosine-g6", "length-cosine"): GROUP | WEIGHTS | {f"{GRPO}.learning_rate", f"{GRPO}.max_steps"},
    ("length-cosine-matched", "length-standard"): {COSINE},
    ("length-penalty-matched", "length-standard"): {PENALISED, "audit.allow"},
    ("length-penalty-matched", "length-cosine-matched"): {COSINE, PENALISED, "audit.allow"},
    ("length-standard-g6", "length-standard"): GROUP,
    ("length-standard-slow", "length-standard"): {f"{GRPO}.learning_rate"},
    ("length-standard-light", "length-standard"): WEIGHTS,
    ("tiny-length-no-example", "tiny-length-standard"): {"prompt.examples"},
    ("tiny-length-penalised", "tiny-length-standard"): {"rewards.correctness", PENALISED, "audit.allow"},
    ("tiny-length-cosine", "tiny-length-standard"): {"rewards.correctness", COSINE},
    ("tiny-length-cosine-matched", "tiny-length-standard"): {COSINE},
    ("tiny-length-penalty-matched", "tiny-length-standard"): {PENALISED, "audit.allow"},
    ("tiny-shaping-light", "tiny-length-no-example"): NOT_CORRECTNESS,
    ("tiny-shaping-heavy", "tiny-length-no-example"): NOT_CORRECTNESS,
    ("tiny-shaping-binary", "tiny-length-no-example"): NOT_CORRECTNESS,
    ("tiny-shaping-gated", "tiny-shaping-binary"): {"rewards.correctness", "rewards.correctness_in_schema"},
    ("tiny-grpo-clocked", "tiny-grpo"): {
        "model.threads",
        f"{GRPO}.max_steps",
        "rewards.soft_format",
        "rewards.xml_count",
        "rewards.integer_answer",
    },
    ("tiny-signal", "tiny-all-prompts"): {f"phases.0.pass_rates.{name}" for name in RATES},
    ("tiny-signal-shown", "tiny-all-prompts-shown"): {f"phases.0.pass_rates.{name}" for name in RATES},
    ("tiny-all-prompts-shown", "tiny-all-prompts"): {"prompt.examples", "prompt.max_prompt_length"},
    ("tiny-dynamic-sampling", "tiny-all-prompts"): {"phases.0.dynamic_sampling.rounds"},
    ("tiny-curriculum", "tiny-no-curriculum"): {"phases.0.pass_rates.order", f"{GRPO}.shuffle_dataset"},
    ("tiny-loss-dapo", "tiny-correctness"): {f"{GRPO}.num_iterations", *EVALUATED},
    **{
        (f"tiny-loss-{arm}", "tiny-loss-dapo"): {f"{GRPO}.{name}" for name in names}
        for arm, names in {
            "grpo": ["loss_type"],
            "dr-grpo": ["loss_type", "scale_rewards"],
            "sapo": ["loss_type"],
            "cispo": ["loss_type", "epsilon_high"],
            "vespo": ["loss_type"],
            "unscaled": ["scale_rewards"],
            "batch-scaled": ["scale_rewards"],
            "gspo": ["loss_type", "importance_sampling_level", "epsilon", "epsilon_high"],
            "luspo": ["loss_type", "importance_sampling_level", "epsilon", "epsilon_high"],
        }.items()
    },
}


def settings(value: Any, place: str = "") -> dict[str, Any]:
    """A recipe's settings by their places; a list of values is one of them, phases are places."""
    inner = value if isinstance(value, dict) else dict(enumerate(value)) if place == "phases" else None
    if not inner:
        return {place: value}
    return {
        key: found
        for name, part in inner.items()
        for key, found in settings(part, f"{place}.{name}" if place else str(name)).items()
    }


def different(one: str, other: str) -> set[str]:
    first, second = (settings(read_yaml(ROOT / f"experiments/{name}.yaml")) for name in (one, other))
    return {key for key in first.keys() | second.keys() if first.get(key, "absent") != second.get(key, "absent")}


@pytest.mark.parametrize(("arm", "reference"), CHANGED)
def test_an_arm_differs_from_its_reference_in_these_settings_alone(arm: str, reference: str) -> None:
    assert different(arm, reference) == CHANGED[arm, reference]


@pytest.mark.parametrize("name", LOGGED)
def test_the_logged_runs_have_the_settings_of_their_logs(name: str) -> None:
    recipe = load_recipe(ROOT / f"experiments/{name}.yaml")
    grpo, paid = recipe.phases[0].settings, recipe.rewards
    prompts = grpo["per_device_train_batch_size"] * grpo["gradient_accumulation_steps"] // grpo["num_generations"]
    cosine = paid.get("published_length_cosine", 0) + paid.get("published_length_cosine_penalty", 0)
    assert LOGGED[name] == (
        grpo["num_generations"], prompts, grpo["learning_rate"], grpo["max_steps"],
        2 * paid.get("published_correctness", 0), 5 * cosine, 0.5 * paid["published_soft_format"],
    )  # fmt: skip
    assert paid["published_integer_answer"] == paid["published_strict_format"] == paid["published_soft_format"]
    assert paid["published_xml_count"] == 1 and recipe.phases[0].lora is None
    assert [example.completion.split()[-2:] for example in recipe.prompt.examples] == [["7", "</answer>"]]


def test_the_suite_has_every_arm_at_the_studys_seed_and_a_comparison_for_each_change() -> None:
    params = load_params(ROOT / "suites/length-study.yaml", ROOT)
    recipes = {path.stem for path in ROOT.glob("experiments/length-*.yaml")}
    assert {run.recipe for run in params.runs.values()} == recipes
    assert {run.seed for run in params.runs.values()} == {42}
    compared = {frozenset((pair.a, pair.b)) for pair in params.comparisons.values()}
    wanted = {frozenset((arm, "length-standard")) for arm in recipes - {"length-standard", "length-penalty-matched"}}
    assert compared == wanted | {frozenset(("length-cosine-matched", "length-penalty-matched"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["length-standard", "length-no-example", "small-reasoner-qwen-1.5b"])
def test_no_problem_of_gsm8k_is_left_out_as_too_long(name: str, tokenizers_folder: Path, gsm8k_folder: Path) -> None:
    """So that arms with and without worked examples answer the same problems."""
    section = load_recipe(ROOT / f"experiments/{name}.yaml").prompt
    tokenizer = load_tokenizer(tokenizers_folder / "qwen2.5")
    splits, _ = load(read_any(ROOT / "sources/datasets/gsm8k.yaml")[1], "gsm8k")
    refuse_shown([example.question for example in section.examples], splits)
    assert [map_rows(rows, tokenizer, section)[1] for rows in splits.values()] == [[] for _ in splits]
