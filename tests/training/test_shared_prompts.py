"""One copy of a prompt for all completions of its group gives what a copy for each gives."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BASE = Path(__file__).parents[2] / "assets/tiny/model"


def batch(counts: tuple[int, ...], length: int = 6) -> tuple[Any, Any]:
    """Completions in TRL's form, mixed as TRL mixes them: `counts` of them to prompts of different lengths."""
    import torch

    torch.manual_seed(0)
    longest = 9
    rows, masks = [], []
    for number, count in enumerate(counts):
        size = longest - 2 * number
        prompt = torch.cat([torch.zeros(longest - size, dtype=torch.long), torch.randint(5, 200, (size,))])
        for _ in range(count):
            tokens = int(torch.randint(1, length + 1, ()))
            completion = torch.cat([torch.randint(5, 200, (tokens,)), torch.zeros(length - tokens, dtype=torch.long)])
            rows.append(torch.cat([prompt, completion]))
            masks.append(torch.cat([(torch.arange(longest) >= longest - size).long(), (completion > 0).long()]))
    order = torch.randperm(len(rows))
    return torch.stack(rows)[order], torch.stack(masks)[order]


def trainer_of(model: Any) -> Any:
    """What is read of a GRPO trainer, whose own scoring is TRL's."""
    import functools

    from trl import GRPOTrainer

    trainer = SimpleNamespace(
        temperature=0.7, _entropy_bonus_enabled=False, aux_loss_enabled=False, use_liger_kernel=False, use_vllm=False,
        num_generations=4, is_fsdp_enabled=False, is_deepspeed_enabled=False,
        args=SimpleNamespace(
            steps_per_generation=1, per_device_train_batch_size=8, gradient_accumulation_steps=1, loss_type="dapo"
        ),
        model=model, accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        model_kwarg_keys={"logits_to_keep"},
    )  # fmt: skip
    trainer._full_logits_logps = functools.partial(GRPOTrainer._full_logits_logps, trainer)
    return trainer


def loaded(**options: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, **options)


@pytest.mark.parametrize("counts", [(4, 4), (4, 1, 2), (1, 1, 1)])
@pytest.mark.parametrize("length", [6, 1])
def test_log_probabilities_entropies_and_gradients_are_those_of_whole_rows(
    counts: tuple[int, ...], length: int
) -> None:
    import torch

    from grpo_cot.training.shared_prompts import read_prompts_once

    model = loaded()
    ids, mask = batch(counts, length)
    found = []
    for share in (False, True):
        trainer = trainer_of(model)
        passes: list[int] = []
        hook = model.register_forward_pre_hook(
            lambda module, given, named, passes=passes: passes.append(named["input_ids"].numel()), with_kwargs=True
        )
        if share:
            read_prompts_once(trainer)
        scores, entropies, _ = trainer._full_logits_logps(model, ids, mask, length, compute_entropy=True)
        hook.remove()
        kept = mask[:, -length:].bool()
        model.zero_grad()
        (scores * kept).sum().backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        found.append((scores[kept], entropies[kept], gradient, passes[-1]))
    (plain, entropies, gradient, tokens), (shared, shared_entropies, shared_gradient, fewer) = found
    torch.testing.assert_close(shared, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shared_entropies, entropies, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shared_gradient, gradient, rtol=1e-3, atol=1e-3)
    assert fewer < tokens


def test_a_batch_in_parts_is_scored_part_by_part() -> None:
    import torch

    from grpo_cot.training.shared_prompts import read_prompts_once

    model = loaded()
    ids, mask = batch((4, 3))
    trainer = trainer_of(model)
    plain = trainer._full_logits_logps(model, ids, mask, 6)
    read_prompts_once(trainer)
    for size in (2, 7, None):
        scores, entropies, _ = trainer._full_logits_logps(model, ids, mask, 6, batch_size=size)
        assert entropies is None
        torch.testing.assert_close(scores * mask[:, -6:], plain[0] * mask[:, -6:], rtol=1e-4, atol=1e-4)


def test_sampling_reads_a_prompt_once_and_writes_the_same() -> None:
    import torch

    from grpo_cot.training.shared_prompts import read_prompts_once

    model = loaded().eval()
    ids, mask = batch((3, 2), 1)
    ids, mask = ids[:, :-1], mask[:, :-1]
    settings = {"max_new_tokens": 5, "do_sample": True, "temperature": 0.5, "pad_token_id": 0}
    torch.manual_seed(1)
    plain = model.generate(input_ids=ids, attention_mask=mask, **settings)
    read: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda module, given, named: read.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    read_prompts_once(trainer_of(model))
    torch.manual_seed(1)
    assert torch.equal(model.generate(input_ids=ids, attention_mask=mask, **settings), plain)
    assert read[:2] == [(2, 8), (5, 1)]


@pytest.mark.parametrize(("dtype", "calls"), [("bfloat16", False), ("float32", True)])
@pytest.mark.parametrize("shared", [True, False])
def test_sampling_in_bfloat16_leaves_out_pefts_casts_and_training_does_not(
    monkeypatch: pytest.MonkeyPatch, dtype: str, calls: bool, shared: bool
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import Linear

    from grpo_cot.training.shared_prompts import read_prompts_once

    model = get_peft_model(loaded().to(getattr(torch, dtype)), LoraConfig(task_type="CAUSAL_LM", r=2))
    read_prompts_once(trainer_of(model))
    if dtype == "bfloat16" and shared:
        monkeypatch.delattr(torch, "multinomial")  # a number for each token of the vocabulary
    own, called = Linear.forward, []
    monkeypatch.setattr(Linear, "forward", lambda layer, *given, **named: (called.append(1), own(layer, *given))[1])
    ids, mask = (part[:, :-1] for part in batch((3, 2), 1))
    settings = {"max_new_tokens": 3, "do_sample": True, "pad_token_id": 0, "use_cache": shared}
    model.generate(input_ids=ids, attention_mask=mask, **settings)
    assert bool(called) is calls
    called.clear()
    assert model(input_ids=ids).logits.requires_grad and called


@pytest.mark.parametrize(("dtype", "shares"), [("bfloat16", True), ("float32", False)])
def test_the_rounding_of_16_bits_is_no_reason_to_read_each_prompt_again(dtype: str, shares: bool) -> None:
    import torch

    from grpo_cot.training.shared_prompts import read_prompts_once

    torch.manual_seed(0)
    model = loaded().to(getattr(torch, dtype))
    ids, mask = batch((4, 4))
    trainer = trainer_of(model)
    read_prompts_once(trainer)
    forward = model.forward

    def rounded(**given: Any) -> Any:
        found = forward(**given)
        found.logits = found.logits + 0.025 * torch.randn(found.logits.shape)
        return found

    model.forward = rounded
    trainer._full_logits_logps(model, ids, mask, 6)
    assert trainer.shares_rows is shares


def test_a_model_that_comes_out_otherwise_is_scored_in_trls_way(capsys: pytest.CaptureFixture[str]) -> None:
    """As one would whose positions are not what they are given as."""
    import torch

    from grpo_cot.training.shared_prompts import read_prompts_once

    model = loaded()
    forward = model.forward

    def deaf(input_ids: Any, position_ids: Any = None, logits_to_keep: Any = 0, **given: Any) -> Any:
        return forward(input_ids=input_ids, logits_to_keep=logits_to_keep, **given)

    model.forward = deaf
    ids, mask = batch((4, 4))
    trainer = trainer_of(model)
    plain = trainer._full_logits_logps(model, ids, mask, 6)
    read_prompts_once(trainer)
    assert torch.equal(trainer._full_logits_logps(model, ids, mask, 6)[0], plain[0])
    assert "nats apart on average" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings",
    [
        {"use_cache": False}, {"prefill_chunk_size": 2}, {"num_beams": 2, "do_sample": False},
        {"num_return_sequences": 2}, {"cache_implementation": "dynamic"},
    ],
)  # fmt: skip
def test_a_generation_that_does_not_go_on_from_given_keys_is_transformers_own(settings: dict[str, Any]) -> None:
    import torch

    from grpo_cot.training.shared_prompts import read_prompts_once

    model = loaded().eval()
    ids, mask = (part[:, :-1] for part in batch((3, 2), 1))
    settings = {"max_new_tokens": 5, "do_sample": True, "pad_token_id": 0} | settings
    torch.manual_seed(1)
    plain = model.generate(input_ids=ids, attention_mask=mask, **settings)
    read_prompts_once(trainer_of(model))
    torch.manual_seed(1)
    assert torch.equal(model.generate(input_ids=ids, attention_mask=mask, **settings), plain)


def test_prompts_of_one_token_and_copies_of_the_model_are_sampled_as_ever() -> None:
    import copy

    import torch

    from grpo_cot.training.shared_prompts import read_prompts_once

    model = loaded().eval()
    read_prompts_once(trainer_of(model))
    settings = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    one = torch.full((2, 1), 7)
    assert model.generate(input_ids=one, attention_mask=torch.ones_like(one), **settings).shape == (2, 4)
    assert model.generate(one, **settings).shape == (2, 4)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data += torch.randn_like(parameter)
    ids, mask = (part[:, :-1] for part in batch((3, 2), 1))
    own = type(other).generate(other, input_ids=ids, attention_mask=mask, **settings)
    assert torch.equal(other.generate(input_ids=ids, attention_mask=mask, **settings), own)


@pytest.mark.parametrize(
    ("batches", "accumulated", "loss", "whole"),
    [(1, 1, "bnpo", True), (2, 2, "dapo", True), (2, 4, "grpo", True), (2, 2, "bnpo", False), (4, 1, "dapo", False)],
)
def test_groups_stay_whole_where_a_step_learns_from_the_same_completions(
    batches: int, accumulated: int, loss: str, whole: bool
) -> None:
    from grpo_cot.training.shared_prompts import keeps_groups

    settings = {
        "steps_per_generation": batches, "gradient_accumulation_steps": accumulated, "loss_type": loss,
        "per_device_train_batch_size": 8,
    }  # fmt: skip
    assert keeps_groups(settings, 4) is whole
    assert not keeps_groups(settings, 3)


def test_positions_that_count_from_each_prompts_own_start_are_right_where_trls_are_not() -> None:
    """GPT-2 has a position for each place, and TRL gives none, so that padding on the left moves all of them."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from grpo_cot.training.shared_prompts import read_prompts_once

    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 200, "n_positions": 64, "initializer_range": 0.5}
    model = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    ids, mask = batch((3, 2))
    ids = ids.clamp(max=199)
    trainer = trainer_of(model)
    read_prompts_once(trainer)
    scores, _, _ = trainer._full_logits_logps(model, ids, mask, 6)
    assert trainer.shares_rows
    for row, held, found in zip(ids, mask.bool(), scores, strict=True):
        text, answer = row[held][None], int(held[-6:].sum())
        logits = model(text).logits[0, -answer - 1 : -1] / trainer.temperature
        expected = logits.log_softmax(-1).gather(1, text[0, -answer:, None]).squeeze(1)
        torch.testing.assert_close(found[:answer], expected, rtol=1e-3, atol=1e-3)


def test_a_first_batch_without_a_completion_decides_nothing() -> None:
    import torch

    from grpo_cot.training.shared_prompts import read_prompts_once

    model = loaded()
    model.get_input_embeddings().eval()
    trainer = trainer_of(model.train())
    model.lm_head.eval()
    ids, mask = batch((4, 4))
    read_prompts_once(trainer)
    nothing = mask.clone()
    nothing[:, -6:] = 0
    trainer._full_logits_logps(model, ids, nothing, 6)
    assert trainer.shares_rows is None
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, given, named: sizes.append(len(named["input_ids"])), with_kwargs=True
    )
    trainer._full_logits_logps(model, ids, mask, 6, batch_size=4)
    hook.remove()
    assert trainer.shares_rows and max(sizes) == 4
    assert model.training and not model.lm_head.training
    assert not torch.is_inference_mode_enabled()


def test_alibi_is_left_to_trl() -> None:
    from transformers import FalconConfig, FalconForCausalLM

    from grpo_cot.training.shared_prompts import can_share

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    assert not can_share(FalconForCausalLM(FalconConfig(**sizes, alibi=True)))
    assert can_share(FalconForCausalLM(FalconConfig(**sizes, alibi=False)))


def test_batches_of_one_sampling_hold_whole_groups_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from trl.trainer import grpo_trainer

    from grpo_cot.training.shared_prompts import read_prompts_once

    trainer = trainer_of(loaded())
    trainer.args.steps_per_generation = trainer.args.gradient_accumulation_steps = 3
    own = grpo_trainer.shuffle_sequence_dict
    trainer._prepare_inputs = lambda batch: grpo_trainer.shuffle_sequence_dict(batch)
    read_prompts_once(trainer)
    prompts = torch.arange(6).repeat_interleave(4)[:, None]
    sampled = {
        "prompt_ids": prompts, "completion_ids": torch.arange(24)[:, None], "texts": [str(row) for row in range(24)],
        "num_items_in_batch": torch.tensor(7), "absent": None,
    }  # fmt: skip
    torch.manual_seed(0)
    mixed = trainer._prepare_inputs(sampled)
    groups = mixed["prompt_ids"].reshape(6, 4)
    assert bool((groups == groups[:, :1]).all()) and sorted(groups[:, 0].tolist()) == list(range(6))
    assert groups[:, 0].tolist() != list(range(6))
    assert [int(text) for text in mixed["texts"]] == mixed["completion_ids"].flatten().tolist()
    assert bool((mixed["completion_ids"] // 4 == mixed["prompt_ids"]).all())
    assert mixed["num_items_in_batch"] == 7 and mixed["absent"] is None
    assert grpo_trainer.shuffle_sequence_dict is own


@pytest.mark.parametrize("attention", ["eager"])
def test_other_attention_than_torchs_own_is_left_to_trl(attention: str) -> None:
    from grpo_cot.training.shared_prompts import read_prompts_once

    model = loaded(attn_implementation=attention)
    trainer = trainer_of(model)
    own, generate = trainer._full_logits_logps, model.generate
    read_prompts_once(trainer)
    assert trainer._full_logits_logps is own and model.generate == generate
