"""A run that reports to W&B needs a key or the offline mode, and is told so before it trains."""

from pathlib import Path

import pytest
from support import ROOT

from grpo_cot.checks.backends.dashboards import check_dashboards
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.recipe import Recipe

KEY = "0123456789abcdef" * 2 + "01234567"


def reporting(report_to: str | list[str]) -> Recipe:
    content = read_yaml(ROOT / "experiments/tiny-grpo.yaml")
    content["phases"][0]["grpo"]["report_to"] = report_to
    return Recipe.model_validate(content)


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.sdk import wandb_setup

    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(wandb_setup, "_singleton", None)  # it keeps the settings of its first use


@pytest.mark.parametrize("report_to", ["wandb", ["tensorboard", "wandb"]])
def test_wandb_without_a_key_is_refused_with_the_way_to_run_offline(report_to: str | list[str]) -> None:
    with pytest.raises(
        InputError, match=r"phases.1.grpo.report_to names wandb, and W&B finds no key: .*WANDB_MODE=offline"
    ):
        check_dashboards(reporting(report_to), Path("recipe.yaml"))


@pytest.mark.parametrize(
    ("name", "value"), [("WANDB_MODE", "offline"), ("WANDB_MODE", "disabled"), ("WANDB_API_KEY", KEY)]
)
def test_a_key_or_the_offline_mode_is_enough(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    check_dashboards(reporting("wandb"), Path("recipe.yaml"))


def test_a_login_in_netrc_is_a_key(tmp_path: Path) -> None:
    from wandb.sdk import wandb_setup

    host = wandb_setup.singleton().settings.base_url.removeprefix("https://")
    (tmp_path / ".netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    check_dashboards(reporting("wandb"), Path("recipe.yaml"))


def test_other_dashboards_need_no_key() -> None:
    check_dashboards(reporting("tensorboard"), Path("recipe.yaml"))


def test_a_key_that_wandb_refuses_in_training_is_one_sentence(tmp_path: Path) -> None:
    from wandb.errors import CommError

    from grpo_cot.training.phases import _refusal

    phase = reporting("wandb").phases[0]
    said = _refusal(CommError("the server said\n401"), phase, 1, tmp_path)
    assert said is not None and "phases.1.grpo.report_to names wandb" in said and "WANDB_MODE=offline" in said
    assert "\n" not in said
    assert _refusal(ValueError("a fault of the code"), phase, 1, tmp_path) is None
