"""PPO's trainer on models of a few numbers: it solves what can be solved, and computes what it says it does."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = ["padding", "end", "ask", "win", *(f"word{number}" for number in range(12))]
ASK, WIN = WORDS.index("ask"), WORDS.index("win")
SETTINGS = {
    "batch_size": 32, "ppo_epochs": 4, "per_device_train_batch_size": 16, "max_completion_length": 4,
    "learning_rate": 1e-2, "lr_scheduler_type": "constant", "temperature": 1.0, "init_kl_coef": 0.01,
    "logging_steps": 8, "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
}  # fmt: skip
PROMPTS = [[ASK], [ASK, 5, 6, 7, 8], [9, ASK], [4, 4, 4]]


def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(WordLevel(vocabulary, unk_token="padding"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="padding", eos_token="end")


def llama(seed: int = 1) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=16, max_position_embeddings=32, num_key_value_heads=2, **sizes, **ids)
    )


def gpt2(seed: int = 1) -> Any:
    """A model whose positions are counted, with dropout everywhere."""
    from transformers import GPT2Config, GPT2LMHeadModel, set_seed

    set_seed(seed)
    dropout = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.5)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=16, n_layer=2, n_head=2, n_positions=32, **dropout, **ids))


def share_of_wins(rows: Any, texts: Any, ids: Sequence[Sequence[int]]) -> tuple[list[float], dict[str, float]]:
    return [sum(token == WIN for token in each) / len(each) for each in ids], {}


def trainer(folder: Path, model: Any, judge: Any = share_of_wins, **settings: Any) -> Any:
    from datasets import Dataset

    from grpo_cot.recipes.ppo import PpoConfig
    from grpo_cot.training.ppo.trainer import PpoTrainer

    configuration = PpoConfig(output_dir=str(folder), **{**SETTINGS, "max_steps": 8, "seed": 1, **settings})
    rows = Dataset.from_list([{"prompt_ids": ids} for ids in 8 * PROMPTS])
    return PpoTrainer(model, configuration, rows, tokenizer(), judge, fresh=False)


def measured(made: Any, name: str) -> list[float]:
    return [entry[name] for entry in made.state.log_history if name in entry]


def final_reward(folder: Path, seed: int) -> tuple[float, float]:
    """The mean reward of the first rollout and of the last three, of sixteen."""
    solving = trainer(folder, llama(seed), max_steps=128, learning_rate=2e-2, seed=seed)
    solving.train()
    rewards = measured(solving, "reward")
    return rewards[0], sum(rewards[-3:]) / 3


@pytest.mark.slow
def test_a_bandit_is_solved(tmp_path: Path) -> None:
    """One token of sixteen is paid for, so that chance earns a sixteenth."""
    first, last = final_reward(tmp_path, 1)
    assert first < 0.2
    assert last > 0.9


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(10))
def test_the_bandit_is_solved_whatever_the_seed(tmp_path: Path, seed: int) -> None:
    first, last = final_reward(tmp_path, seed)
    assert first < 0.2
    assert last > 0.9


def scored(made: Any, prompt: list[int], completion: list[int], model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probabilities and values of one completion, from a whole forward pass without padding."""
    ids = torch.tensor([prompt + completion])
    outputs = model(ids, output_hidden_states=True)
    before = slice(len(prompt) - 1, -1)
    chances = outputs.logits[0, before].log_softmax(-1)
    values = made.model.value_head(outputs.hidden_states[-1][0, before]).squeeze(-1)
    return chances.gather(1, torch.tensor(completion).unsqueeze(1)).squeeze(1), values


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [llama, gpt2])
def test_a_rollout_is_what_each_completion_makes_alone(tmp_path: Path, architecture: Any) -> None:
    """Whatever the padding of its batch: prompts differ in length, and some completions end before others."""
    import copy

    made = trainer(tmp_path, architecture(), batch_size=16, per_device_train_batch_size=16, init_kl_coef=0.5)
    reference = copy.deepcopy(made.model).eval()
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    rows = [{"prompt_ids": ids} for ids in 4 * PROMPTS]
    rollout = made._rollout(rows)
    lengths = rollout.completions.mask.sum(dim=1).tolist()
    assert len(set(lengths)) > 1
    ids = [row[:length] for row, length in zip(rollout.completions.completions.tolist(), lengths, strict=True)]
    scores, _ = share_of_wins(rows, [], ids)
    advantages = []
    for index, (row, completion) in enumerate(zip(rows, ids, strict=True)):
        own, values = scored(made, row["prompt_ids"], completion, made.model)
        expected, _ = scored(made, row["prompt_ids"], completion, reference)
        length = len(completion)
        torch.testing.assert_close(rollout.log_probabilities[index, :length], own.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rollout.values[index, :length], values.detach(), rtol=1e-4, atol=1e-5)
        rewards = (-0.5 * (own - expected)).tolist()
        rewards[-1] += scores[index]
        estimates, later, worth = [], 0.0, 0.0
        for reward, value in zip(reversed(rewards), reversed(values.tolist()), strict=True):
            later = reward + worth - value + 0.95 * later
            worth = value
            estimates.insert(0, later)
        returns = torch.tensor(estimates) + values.detach()
        torch.testing.assert_close(rollout.returns[index, :length], returns, rtol=1e-3, atol=1e-4)
        advantages += estimates
    whitened = (torch.tensor(advantages) - torch.tensor(advantages).mean()) / torch.tensor(advantages).std()
    inside = rollout.advantages[rollout.completions.mask.bool()]
    torch.testing.assert_close(inside, whitened, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_ratio_is_1_until_the_policy_moves_also_with_a_model_that_has_dropout(tmp_path: Path) -> None:
    settings = {"batch_size": 16, "ppo_epochs": 2, "max_steps": 2, "logging_steps": 1}
    made = trainer(tmp_path, gpt2(), **settings)
    made.train()
    first, second = measured(made, "ratio")
    assert first == pytest.approx(1, abs=1e-5)
    assert second != pytest.approx(1, abs=1e-5)
    assert measured(made, "clip_fraction")[0] == 0
    assert measured(made, "reward_std") != [0]


@pytest.mark.slow
def test_smaller_batches_with_more_accumulation_are_the_same_training(tmp_path: Path) -> None:
    """Completions differ in length, so that a mean of the batches' means would be another loss."""
    weights = []
    for rows, accumulation in ((16, 1), (4, 4)):
        made = trainer(
            tmp_path, llama(), per_device_train_batch_size=rows, gradient_accumulation_steps=accumulation,
            max_steps=6, optim="sgd", learning_rate=0.5,
        )  # fmt: skip
        made.train()
        assert min(measured(made, "completions/clipped_ratio")) < 1
        weights.append(made.model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_batch_that_is_too_far_from_its_policy_teaches_nothing(tmp_path: Path) -> None:
    made = trainer(tmp_path, llama(), max_steps=4, logging_steps=4)
    before = {name: weight.clone() for name, weight in made.model.state_dict().items()}
    rollout = made._rollout

    def from_afar(rows: Any) -> Any:
        from dataclasses import replace

        found = rollout(rows)
        return replace(found, log_probabilities=found.log_probabilities - 200)  # e^200 is no number of float32

    made._rollout = from_afar
    made.train()
    assert measured(made, "skipped") == [1.0]
    assert all(torch.equal(weight, before[name]) for name, weight in made.model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kl", "abs", "mse"])
def test_the_kl_holds_the_policy_back(tmp_path: Path, kind: str) -> None:
    """A coefficient of 2 against one of 0.001, under which most of the reward is earned."""
    reached = {}
    for coefficient in (0.001, 2.0):
        settings = {"kl_penalty": kind, "adap_kl_ctrl": False, "max_steps": 48}
        made = trainer(tmp_path, llama(), init_kl_coef=coefficient, **settings)
        made.train()
        reached[coefficient] = measured(made, "kl")[-1]
    assert reached[2.0] < reached[0.001] / 3


@pytest.mark.slow
def test_without_a_coefficient_there_is_no_reference_and_no_kl(tmp_path: Path) -> None:
    made = trainer(tmp_path, llama(), init_kl_coef=0.0)
    assert made._reference is None
    made.train()
    assert measured(made, "kl") == [] and measured(made, "kl_coefficient") == []


def test_the_order_of_prompts_is_a_function_of_seed_and_epoch() -> None:
    from grpo_cot.training.ppo.rollouts import RolloutSampler

    sampler = RolloutSampler(rows=10, rollout=4, times=3, seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    first, second, again = epochs
    assert len(first) == len(sampler) == 24
    assert first[:4] == first[4:8] == first[8:12] != first[12:16] == first[16:20] == first[20:]
    assert len({*first}) == 8
    assert first == again != second


def test_batches_hold_every_completion_once_an_epoch_without_needless_padding() -> None:
    from grpo_cot.training.ppo.rollouts import Completions, Rollout

    lengths, prompts = torch.tensor([3, 1, 2, 3, 1, 1]), torch.tensor([1, 4, 2, 2, 3, 1])
    mask = (torch.arange(3) < lengths.unsqueeze(1)).long()
    prompt_mask = (torch.arange(4) >= 4 - prompts.unsqueeze(1)).long()
    names = torch.arange(6).unsqueeze(1).expand(-1, 3)
    figures = [names.float() + part for part in range(4)]
    rollout = Rollout(Completions(prompt_mask, prompt_mask, names, mask), *figures)
    batches = list(rollout.batches(step=4, rows=2, epochs=2))
    rows = [batch["completion_ids"][:, 0].tolist() for batch in batches]
    assert [len(row) for row in rows] == 6 * [2]
    for epoch in (rows[:3], rows[3:]):
        assert sorted(itertools.chain(*epoch)) == list(range(6))
    for step in ((0, 1), (2,), (3, 4), (5,)):
        tokens = sum(lengths[row].sum() for number in step for row in rows[number])
        assert [batches[number]["tokens"] for number in step] == [tokens] * len(step)
    for batch, indices in zip(batches, rows, strict=True):
        assert batch["completion_mask"].shape[1] == lengths[indices].max()
        assert batch["prompt_mask"].shape[1] == prompts[indices].max()
        for part, name in enumerate(("old_log_probabilities", "old_values", "advantages", "returns")):
            assert torch.equal(batch[name], batch["completion_ids"] + part)
