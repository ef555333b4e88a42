"""Our loop that samples draws from the same distributions as Transformers', and gives the rows that it gives."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BASE = Path(__file__).parents[2] / "assets/tiny/model"


def loaded(dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(BASE, dtype=getattr(torch, dtype)).eval()


def test_tokens_come_as_often_as_their_probability_says_and_never_without_one() -> None:
    import torch

    from grpo_cot.models.drawing import draw

    torch.manual_seed(0)
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.25, 0.049, 0.001, 0.0])
    draws = 200_000
    counts = torch.bincount(draw((probabilities.log() + 3).expand(draws, -1)), minlength=8)
    deviation = (draws * probabilities * (1 - probabilities)).sqrt()
    assert ((counts - draws * probabilities).abs() <= 4 * deviation).all()
    rows = torch.full((3, 8), -torch.inf).scatter(1, torch.tensor([[7], [0], [4]]), 0.0)
    assert draw(rows).tolist() == [7, 0, 4]


def test_rare_tokens_of_a_large_vocabulary_have_their_share() -> None:
    """Half of the probability is that of a million tokens, each less than float32 can add to one."""
    import torch

    from grpo_cot.models.drawing import draw

    torch.manual_seed(0)
    scores = torch.zeros(1, 2**24)
    scores[0, 0] = 24 * torch.log(torch.tensor(2.0))
    drawn = torch.cat([draw(scores) for _ in range(40)])
    assert 8 <= (drawn > 0).sum() <= 32
    assert len(drawn[drawn > 0].unique()) == (drawn > 0).sum()


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("way", ["draw", "likeliest"])
def test_scores_that_are_no_numbers_are_refused_in_a_sentence(broken: float | None, way: str) -> None:
    """Of them came a token behind the vocabulary's last, and with it an IndexError in the embedding."""
    import torch

    from grpo_cot.common.errors import InputError
    from grpo_cot.models import drawing

    scores = torch.zeros(3, 8)
    if broken is None:
        scores[1] = -torch.inf
    else:
        scores[1, 4] = broken
    with pytest.raises(InputError, match=r"no next token for 1 of 3 texts: .* lower learning_rate"):
        getattr(drawing, way)(scores)


def test_completions_are_those_of_transformers_loop_though_rows_leave_when_they_end() -> None:
    """At a temperature near 0 both loops draw the likeliest token."""
    import torch

    from grpo_cot.models.drawing import roomy_cache, sample

    model = loaded("float32")
    torch.manual_seed(0)
    ids = torch.randint(5, 500, (8, 12))
    mask = (torch.arange(12) >= torch.arange(8)[:, None]).long()
    settings: dict[str, Any] = {"do_sample": True, "temperature": 1e-4, "top_k": 0, "pad_token_id": 0}
    settings |= {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 70}
    longest = model.generate(**settings, eos_token_id=None)
    ends = longest[:, [15, 20, 25, 40, 75]].diagonal().tolist()
    plain = model.generate(**settings, eos_token_id=ends)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, given, named: sizes.append(len(named["input_ids"])), with_kwargs=True)
    own = {"custom_generate": sample, "past_key_values": roomy_cache(model)}
    found = model.generate(**settings, eos_token_id=ends, **own)
    assert torch.equal(found, plain)
    assert len(set(sizes)) > 2 and sizes[-1] < 8 and sizes[0] == 8
    own["past_key_values"] = roomy_cache(model)
    assert torch.equal(model.generate(**settings, eos_token_id=None, **own), longest)


def test_keys_and_values_are_those_of_transformers_cache() -> None:
    import torch
    from transformers.cache_utils import DynamicLayer

    from grpo_cot.models.drawing import RoomyLayer

    torch.manual_seed(0)
    layers = [DynamicLayer(), RoomyLayer()]
    for step in range(150):
        states = torch.randn(2, len(layers[0].keys) if step else 5, 3, 7 if step == 0 else 1, 4)
        kept = [layer.update(*states) for layer in layers]
        assert torch.equal(kept[0][0], kept[1][0]) and torch.equal(kept[0][1], kept[1][1])
        for layer in layers:
            if step in (3, 80):
                layer.batch_select_indices(torch.tensor([0, 2, 1]))
            if step in (10, 11):
                layer.crop(-2)
        assert layers[0].get_seq_length() == layers[1].get_seq_length()


@pytest.mark.parametrize(
    ("dtype", "settings", "expected"),
    [
        ("bfloat16", {}, True), ("float32", {}, False), ("bfloat16", {"num_beams": 2}, False),
        ("bfloat16", {"do_sample": False, "temperature": None}, True), ("float32", {"do_sample": False}, False),
        ("bfloat16", {"repetition_penalty": 1.2, "top_k": 5, "min_p": None}, True),
        ("bfloat16", {"guidance_scale": 2.0}, False), ("bfloat16", {"output_scores": True}, False),
        ("bfloat16", {"stop_strings": "a"}, False), ("bfloat16", {"pad_token_id": None}, False),
    ],
)  # fmt: skip
def test_it_takes_the_place_of_transformers_loop_with_known_settings_alone(
    dtype: str, settings: dict[str, Any], expected: bool
) -> None:
    from transformers import GenerationConfig

    from grpo_cot.models.drawing import draws

    model = loaded(dtype)
    model.generation_config.pad_token_id = None
    given = {"do_sample": True, "max_new_tokens": 5, "pad_token_id": 0, "temperature": 0.7, "disable_compile": True}
    inputs = {"input_ids": None, "attention_mask": None}
    assert draws(model, {**inputs, "generation_config": GenerationConfig(**given | settings)}) is expected
    assert draws(model, {**inputs, **given, **settings}) is expected


def test_a_model_that_does_not_take_what_the_loop_gives_keeps_transformers_loop() -> None:
    from transformers import BartConfig, BartForConditionalGeneration, BloomConfig, BloomForCausalLM

    from grpo_cot.models.drawing import draws

    bart = BartForConditionalGeneration(
        BartConfig(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, decoder_attention_heads=1,
                   encoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8)
    )  # fmt: skip
    bloom = BloomForCausalLM(BloomConfig(vocab_size=20, hidden_size=8, n_layer=1, n_head=1))  # it has no positions
    for model in (bart, bloom):
        assert not draws(model.bfloat16(), {"do_sample": True, "pad_token_id": 0})
