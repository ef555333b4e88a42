"""Logits of the same answers: each token's own, and the shares of the training's effect by their definition."""

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.slow


class Model:
    """Gives each position logits that depend on its token and on how many stand before it."""

    device = "cpu"

    def __init__(self, vocabulary: int, encoder_decoder: bool = False) -> None:
        self.vocabulary = vocabulary
        self.config = SimpleNamespace(is_encoder_decoder=encoder_decoder)

    def logits(self, ids: Any, offset: int) -> Any:
        import torch

        place = torch.arange(ids.shape[1])[None, :, None]
        return 1000 * ids[..., None] + 10 * place + (torch.arange(self.vocabulary) + offset) % self.vocabulary

    def __call__(self, input_ids: Any, labels: Any = None) -> Any:
        if labels is not None:
            assert input_ids.tolist() == [[7, 8]]
            return SimpleNamespace(logits=self.logits(labels, offset=2))
        return SimpleNamespace(logits=self.logits(input_ids, offset=0))


def test_each_answers_tokens_logits_are_those_before_it() -> None:
    from grpo_cot.merging.logits import read

    found = read(Model(4), [([7, 8], [1, 2, 3]), ([5], [6])], "a model")
    # 8 at place 1, 1 at place 2, 2 at place 3; then 5 at place 0
    assert sorted(found.logits[:, 0].long().tolist()) == sorted(
        [value + found.logits[0, 0].long().item() % 10 for value in (8010, 1020, 2030, 5000)]
    )
    assert [sorted(row.long().tolist()) for row in found.logits] == [
        [start + place for place in range(4)] for start in (8010, 1020, 2030, 5000)
    ]
    assert found.choices.tolist() == [3, 3, 3, 3]


def test_an_encoder_decoder_is_given_the_answer_as_labels() -> None:
    from grpo_cot.merging.logits import read

    found = read(Model(4, encoder_decoder=True), [([7, 8], [1, 2])], "a model")
    assert [sorted(row.long().tolist()) for row in found.logits] == [[1000, 1001, 1002, 1003], [2010, 2011, 2012, 2013]]
    assert found.choices.tolist() == [1, 1]


def test_of_a_large_vocabulary_the_same_tokens_are_drawn_in_every_model() -> None:
    from grpo_cot.merging.logits import VOCABULARY, read

    first, second = (read(Model(VOCABULARY + 1000), [([7], [1, 2])], "a model") for _ in range(2))
    assert first.logits.shape == (2, VOCABULARY) == (2, 4096) and first.choices.tolist() == [5095, 5095]
    assert first.logits.equal(second.logits)
    drawn = set((first.logits[0] - 7000).long().tolist())
    assert len(drawn) == VOCABULARY and max(drawn) > VOCABULARY + 900  # not the first ones


def test_the_shares_are_those_of_the_effect() -> None:
    import torch

    from grpo_cot.merging.logits import Reading, shares

    base = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    along, beside = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    readings = [
        Reading(torch.zeros(2), logits)
        for logits in (
            base, base + 2 * along, base + 1.5 * along + 0.4 * beside, base + 1.5 * along + 0.2 * beside,
            base + 2 * along + 0.1 * beside,
        )
    ]  # fmt: skip
    found = shares(*readings)
    assert found == {
        "effect": pytest.approx(2 / 5), "kept": pytest.approx(0.75), "left_over": pytest.approx(0.2),
        "beyond_rounding": pytest.approx(0.1), "arithmetic": pytest.approx(0.05),
    }  # fmt: skip


def test_where_training_changed_no_logit_there_is_no_share_of_it() -> None:
    import torch

    from grpo_cot.merging.logits import Reading, shares

    same = Reading(torch.zeros(1), torch.ones(1, 2))
    other = Reading(torch.zeros(1), torch.zeros(1, 2))
    assert shares(same, same, other, other, other) == {
        "effect": 0.0, "kept": None, "left_over": None, "beyond_rounding": None, "arithmetic": None
    }  # fmt: skip
