"""Completions without an advantage: passed over by the training, with the gradient and the curves that are right."""

from pathlib import Path
from typing import Any

import pytest
from group_recipes import recipe, trainer_of

pytestmark = pytest.mark.slow


def batch(advantages: list[float], **more: Any) -> dict[str, Any]:
    """Two prompts with two completions each, padded as TRL pads them; the longest has no advantage."""
    import torch

    torch.manual_seed(0)
    prompts = torch.randint(10, 400, (2, 5)).repeat_interleave(2, dim=0)
    mask = torch.ones(4, 7, dtype=torch.long)
    for row, length in enumerate((3, 4, 7, 5)):
        mask[row, length:] = 0
    return {
        "prompt_ids": prompts, "prompt_mask": torch.ones_like(prompts), "completion_mask": mask,
        "completion_ids": torch.randint(10, 400, (4, 7)) * mask, "advantages": torch.tensor(advantages),
        "num_items_in_batch": mask.sum(),
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("grpo", "later"),
    [
        ({"loss_type": "dapo"}, False),
        ({"loss_type": "grpo"}, True),
        ({"loss_type": "cispo", "epsilon_high": 5.0}, True),
        ({"importance_sampling_level": "sequence"}, True),
    ],
    ids=str,
)
def test_completions_without_an_advantage_are_passed_over_and_the_gradient_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grpo: dict[str, Any], later: bool
) -> None:
    """`later`: the batch was scored before, as in a second step on it."""
    import torch

    from grpo_cot.training.methods import grpo as method

    advantages = [1.0, -1.0, 0.0, 0.0]
    inputs = batch(advantages) | ({"old_per_token_logps": torch.full((4, 7), -6.0)} if later else {})
    found = []
    for leaves_out in (False, True):
        torch.manual_seed(1)
        with monkeypatch.context() as patched:
            if not leaves_out:
                patched.setattr(method, "leave_out_silent", lambda trainer: None)
            trainer = trainer_of(recipe({"correctness": 1.0}, first="grpo", **grpo), tmp_path)
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.data = torch.randn_like(parameter) / 10
        seen: list[tuple[int, ...]] = []
        trainer.shares_rows = True  # as a first batch has found
        trainer.model.register_forward_pre_hook(
            lambda module, positional, named, seen=seen: seen.append(tuple(named["input_ids"].shape)), with_kwargs=True
        )
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        metrics = trainer._metrics["train"]
        gradients = {name: part.grad for name, part in trainer.model.named_parameters() if part.grad is not None}
        found.append((loss.item(), gradients, metrics, seen))
    (loss, gradients, metrics, everything), (own, ours, logged, rows) = found
    assert own == pytest.approx(loss, abs=1e-6) and ours.keys() == gradients.keys() and ours
    for name, gradient in gradients.items():
        assert torch.allclose(ours[name], gradient, atol=1e-6), name
    assert logged.keys() == metrics.keys() and metrics["entropy"] != logged["entropy"] and 1 < logged["entropy"][0] < 9
    # Of four completions to two prompts, two to one are read, and nothing behind the longest of them.
    assert max(rows)[0] < max(everything)[0] and rows[-1][1] < everything[-1][1]


def test_a_first_batch_is_compared_whole_though_one_of_its_completions_teaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone in its row, a completion says nothing of completions that see each other."""
    import torch

    from grpo_cot.training import shared_prompts

    pack = shared_prompts.pack

    def leaking(*arguments: Any) -> Any:
        packed = pack(*arguments)
        return packed._replace(mask=torch.ones_like(packed.mask).tril())

    monkeypatch.setattr(shared_prompts, "pack", leaking)
    trainer = trainer_of(recipe({"correctness": 1.0}, first="grpo"), tmp_path)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer.compute_loss(trainer.model, batch([1.0, 0.0, 0.0, 0.0]))
    assert trainer.shares_rows is False


@pytest.mark.parametrize(
    ("advantages", "mask", "rows"),
    [
        ([0.5, 0.0, -0.5], [[1], [1], [1]], [0, 2]),
        ([0.5, 0.0, -0.5], [[0], [1], [1]], [2]),  # cut off, and so masked
        ([0.0, 0.0], [[0], [1]], [1]),  # a loss needs a gradient
        ([0.5, 0.0], [[0], [0]], None),
    ],
)
def test_the_completions_that_teach_have_an_advantage_and_tokens(
    advantages: list[float], mask: list[list[int]], rows: list[int] | None
) -> None:
    import torch

    from grpo_cot.training.groups import teaching

    found = teaching(torch.tensor(advantages), torch.tensor(mask))
    assert rows == (None if found is None else found.tolist())


@pytest.mark.parametrize("grpo", [{"beta": 0.1}, {"entropy_coef": 0.01}, {"top_entropy_quantile": 0.5}], ids=str)
def test_where_every_completion_has_a_gradient_all_are_scored(tmp_path: Path, grpo: dict[str, Any]) -> None:
    trainer = trainer_of(recipe({"correctness": 1.0}, first="grpo", **grpo), tmp_path)
    assert "_compute_loss" not in vars(trainer)
