"""Training beyond the short experiment: the KL to the reference, full weights, and the verdict."""

import json
from pathlib import Path

import pytest
from support import ROOT, training_rows

from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.phases import Phase
from grpo_cot.recipes.recipe import Recipe


def recipe(phases: list[dict[str, object]], quantization: object = None) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    grpo = content["phases"][0]["grpo"] | {"max_steps": 2, "save_steps": 100, "max_completion_length": 16}
    lora = content["phases"][0]["lora"]
    content["phases"] = [
        {
            "method": "grpo",
            "lora": lora if phase["lora"] else None,
            "rollouts": None,
            "grpo": grpo | {"beta": phase["beta"]},
        }
        for phase in phases
    ]
    content["quantization"] = quantization
    content["rewards"] = {"random": 1.0}  # always varies, so that every step moves the policy
    return Recipe.model_validate(content)


def curves(result: Path) -> dict[str, list[dict[str, float]]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(result.glob("*/log.json"))}


@pytest.mark.slow
def test_kl_to_the_reference_is_a_curve_from_a_fresh_and_from_a_continued_adapter(tmp_path: Path) -> None:
    """The continued adapter's reference is the adapter as the first phase left it, so its KL starts at 0 again."""
    from grpo_cot.training.phases import train_phases

    quantization = read_yaml(ROOT / "tests/pipeline/short.yaml")["quantization"]
    two = recipe([{"lora": True, "beta": 0.1}, {"lora": False, "beta": 0.1}], quantization)
    result = train_phases(two, training_rows(), [], ROOT / "assets/tiny/model", 1, tmp_path, {})
    logs = curves(result)
    assert list(logs) == ["01-grpo", "02-grpo"]
    for log in logs.values():
        kl = [entry["kl"] for entry in log if "kl" in entry]
        assert len(kl) == 2
        assert kl[0] == pytest.approx(0, abs=1e-6)
        assert kl[1] > 0
    first, second = ((result / name / "adapter_model.safetensors").read_bytes() for name in logs)
    assert first != second
    assert json.loads((result / "model.json").read_text())["path"] == "02-grpo"
    assert sorted(path.name for path in (result / "02-grpo").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "audit.json", "configuration.json", "log.json",
    ]  # fmt: skip


@pytest.mark.slow
def test_full_weights_are_trained_without_an_adapter_and_load_again(tmp_path: Path) -> None:
    from grpo_cot.models.loading import load
    from grpo_cot.training.phases import train_phases

    result = train_phases(
        recipe([{"lora": False, "beta": 0.0}]), training_rows(), [], ROOT / "assets/tiny/model", 1, tmp_path, {}
    )
    model, _, description = load(result / "model.json")
    assert description.kind == "full"
    assert not hasattr(model, "peft_config")
    assert "kl" not in curves(result)["01-grpo"][0]


def phase() -> Phase:
    return recipe([{"lora": True, "beta": 0.0}]).phases[0]


def entry(reward: float, **more: float) -> dict[str, float]:
    return {"reward": reward, "completions/clipped_ratio": 0.0, "frac_reward_zero_std": 0.0, "entropy": 0.5, **more}


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ([entry(0.2)] * 10 + [entry(1.8)] * 10, "from 0.20 to 1.80 in 20 logged steps"),
        ([entry(0.5)] * 20, "did not rise"),
        (
            [entry(0.1)] + [entry(0.9, **{"completions/clipped_ratio": 0.97})] * 9,
            "97% of completions hit the length cap",
        ),
        ([entry(0.1, frac_reward_zero_std=0.8)] + [entry(1, frac_reward_zero_std=0.8)] * 9, "never varied in 80%"),
        ([entry(0.1, **{"rewards/correctness/mean": 0.0}), entry(0.5)], "correctness never paid"),
        ([entry(0.1), entry(0.5, entropy=0.001)], "no longer explores"),
        (
            [
                entry(0.1, step=1, **{"policy/largest_change": 0.0001}),
                entry(0.5, step=2, **{"policy/largest_change": 0.0042}),
                entry(0.5, step=3, **{"policy/largest_change": 0.0031}),
            ],
            "In 3 steps the log-probabilities of the first completions' tokens changed by at most 0.004 nats",
        ),
        (
            [entry(0.1), entry(0.5, frac_reward_zero_std=0.5, phantom_advantage=0.3)],
            "In 30% of the groups of the second half rewards differed though no completion was right",
        ),
    ],
)
def test_the_verdict_says_what_happened(log: list[dict[str, float]], says: str) -> None:
    from grpo_cot.training.methods.grpo import verdict

    assert says in " ".join(verdict(log, phase()))


def test_a_healthy_run_gets_no_warning() -> None:
    from grpo_cot.training.methods.grpo import verdict

    assert len(verdict([entry(0.2), entry(1.5)], phase())) == 1
    changes = (0.0, 0.02, 0.005)  # a warm-up, and a policy that comes back
    moved = [entry(0.2 + step, step=step, **{"policy/largest_change": change}) for step, change in enumerate(changes)]
    assert len(verdict(moved, phase())) == 1
    still = {"policy/largest_change": 0.0, "frac_reward_zero_std": 0.9}
    silent = " ".join(verdict([entry(0.2, step=1, **still), entry(1.5, step=2, **still)], phase()))
    assert "never varied" in silent and "hardly moves" not in silent
    # At first the format may well come before the answer; and a few phantoms among many groups are none too many.
    assert len(verdict([entry(0.2, phantom_advantage=1.0), entry(1.5, phantom_advantage=0.4)], phase())) == 1
    silent = entry(1.5, phantom_advantage=0.0, frac_reward_zero_std=0.5)
    assert len(verdict([entry(0.2), silent], phase())) == 1
