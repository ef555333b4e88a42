"""Sampled completions in the dashboards that a GRPO phase reports to, where the trainer's own curves stand."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

ROWS = 16  # of a table


class CompletionTables(TrainerCallback):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Sends a table of completions of the newest batch, with their rewards and advantages, to each dashboard.

    TRL's `log_completions` prints it in the terminal as well, at every entry of the log, and leaves TensorBoard out.
    """

    def __init__(self, trainer: Any, every: int) -> None:
        """A table at the entries of the log whose step is a multiple of `every`."""
        self._trainer, self._every = trainer, every

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Send it, at an entry of the training and not of the validation."""
        if not state.is_world_process_zero or state.global_step % self._every or "reward" not in (logs or {}):
            return
        columns = self._columns(state.global_step)
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        if "wandb" in args.report_to:
            import wandb

            if wandb.run is not None:
                wandb.log({"completions": wandb.Table(columns=list(columns), data=rows)})
        if "trackio" in args.report_to:
            import trackio

            trackio.log({"completions": trackio.Table(columns=list(columns), data=rows)})
        for callback in self._trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_text("completions", as_markdown(columns), state.global_step)

    def _columns(self, step: int) -> dict[str, list[Any]]:
        logged = self._trainer._logs
        columns = {
            "prompt": logged["prompt"], "completion": logged["completion"], **logged["rewards"],
            "advantage": logged["advantages"],
        }  # fmt: skip
        rows = {name: list(values)[:ROWS] for name, values in columns.items()}
        return {"step": [step] * len(rows["prompt"]), **rows}


def as_markdown(columns: Mapping[str, Sequence[Any]]) -> str:
    """A table's columns as Markdown, which TensorBoard shows: a model's text is indented, and so stays as it is."""
    parts = []
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        figures = ", ".join(f"{name} {value:.3g}" for name, value in row.items() if isinstance(value, float))
        texts = "".join(
            f"\n\n{name}\n\n" + "\n".join(f"    {line}" for line in str(row[name]).splitlines())
            for name in ("prompt", "completion")
        )
        parts.append(f"**{figures}**{texts}")
    return "\n\n---\n\n".join(parts)
