"""Whether a run can report to the dashboards that its recipe names, asked before it trains for hours."""

from pathlib import Path

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.recipe import Recipe


def check_dashboards(recipe: Recipe, where: Path) -> None:
    """Refuse a recipe that reports to W&B where nobody is logged in, and W&B was not told to stay offline.

    Raises:
        InputError: W&B finds no key, or one that it cannot use.
    """
    for number, phase in enumerate(recipe.phases, start=1):
        if "wandb" in str(phase.settings.get("report_to")) and (reason := _not_logged_in()):
            raise InputError(
                f"{where}: phases.{number}.{phase.section}.report_to names wandb, and {reason}: set WANDB_API_KEY, "
                "or WANDB_MODE=offline to keep the run's log in .cache/wandb, from where `wandb sync` sends it later"
            )


def _not_logged_in() -> str | None:
    """Why W&B would stop a run that it logs online, or None: by the mode and the key that W&B itself finds."""
    from wandb.errors import AuthenticationError  # here, because importing W&B takes a second or two
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib.wbauth import authenticate_session

    settings = wandb_setup.singleton().settings
    if settings.mode not in ("online", "shared"):
        return None
    try:
        found = authenticate_session(host=settings.base_url, source="make check", prompt=False, update_session=False)
    except AuthenticationError as error:
        return f"its key cannot be used ({' '.join(str(error).split())})"
    return None if found else "W&B finds no key"
