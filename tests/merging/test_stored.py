"""Weights asked of layers, and compared with stored ones: by their definitions, on layers that are written out here."""

from typing import Any

import pytest

pytestmark = pytest.mark.slow


def network() -> Any:
    """A model with every kind of layer that an adapter may lie on; its weights are small whole numbers."""
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(100, 6)
            self.inner = nn.ModuleDict({"up": nn.Linear(6, 8), "across": Conv1D(5, 8)})
            self.norm = nn.LayerNorm(5)
            self.head = nn.Linear(5, 100, bias=False)

        def forward(self, ids: Any) -> Any:
            return self.head(self.norm(self.inner["across"](self.inner["up"](self.embed(ids)))))

    torch.manual_seed(0)
    model = Network()
    for parameter in model.parameters():
        parameter.data = torch.randint(-9, 9, parameter.shape).float()
    return model


def adapt(model: Any, **options: Any) -> Any:
    """An adapter of rank 1 on it, whose factors are known: the first is 1 everywhere, the second is `size`."""
    from peft import LoraConfig, get_peft_model

    settings: dict[str, Any] = {"r": 1, "lora_alpha": 1, "target_modules": ["up", "across", "embed"]} | options
    adapted = get_peft_model(model, LoraConfig(**settings)).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.fill_(1.0 if "A" in name.split("lora_")[1][:12] else 0.5)
    return adapted


def test_half_a_step_is_half_the_way_to_the_next_number() -> None:
    import torch

    from grpo_cot.merging.stored import half_step

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        values = torch.tensor([1.0, 1.5, -3.0, 0.02, 0.0078125, 100.0, 4e-5 if dtype is not torch.float16 else 7e-5])
        values = values.to(dtype).float()
        away = torch.nextafter(values.abs().to(dtype), torch.tensor(torch.inf, dtype=dtype)).double()
        expected = (away - values.abs().double()) / 2
        assert half_step(values, dtype).double().tolist() == expected.tolist(), dtype
    information = torch.finfo(torch.bfloat16)
    assert half_step(torch.zeros(1), torch.bfloat16).item() == information.tiny * information.eps / 2


def test_columns_are_the_effective_weights_of_the_layers_that_an_adapter_touches() -> None:
    import torch

    from grpo_cot.merging import stored

    model = network()
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = stored.columns(stored.plain(adapt(model)))
    assert found.keys() == {"embed", "inner.up", "inner.across"}
    up, across, embed = found["inner.up"], found["inner.across"], found["embed"]
    assert up.places.tolist() == list(range(6)) and across.places.tolist() == list(range(8))
    assert torch.allclose(up.base, plain["inner.up.weight"].T) and torch.allclose(
        across.base, plain["inner.across.weight"]
    )
    assert torch.allclose(up.trained, up.base + 0.5) and torch.allclose(across.trained, across.base + 0.5)
    assert len(embed.places) == stored.COLUMNS == len(set(embed.places.tolist())) and max(embed.places) > 80
    assert torch.equal(embed.base, plain["embed.weight"][embed.places]) and torch.equal(embed.trained, embed.base + 0.5)
    assert embed.biases is None and up.biases is not None
    for bias in up.biases:
        assert torch.equal(bias, plain["inner.up.bias"])


def test_columns_include_the_tokens_that_are_trained_alone() -> None:
    from grpo_cot.merging import stored

    for rows in ([98, 99], [3]):
        found = stored.columns(
            stored.plain(adapt(network(), trainable_token_indices={"embed": rows}, target_modules=["up"]))
        )
        assert set(rows) <= set(found["embed"].places.tolist())


def test_columns_leave_out_trained_copies_and_take_layers_without_a_bias() -> None:
    import torch

    from grpo_cot.merging import stored

    model = adapt(network(), target_modules=["up", "head"], modules_to_save=["norm"])
    core = stored.plain(model)
    assert stored.plain(core) is core
    found = stored.columns(core)
    assert found.keys() == {"inner.up", "head"} and stored.has_copies(core)
    assert torch.equal(found["head"].trained, network().head.weight.T + 0.5)
    assert not stored.has_copies(stored.plain(adapt(network())))
    assert not stored.has_copies(
        stored.plain(adapt(network(), trainable_token_indices={"embed": [1]}, target_modules=["up"]))
    )
    assert stored.compare(found, merged(model), torch.bfloat16) == stored.Stored(0.0, None, None, pytest.approx(1))


def test_tied_weights_have_a_digest_under_each_name() -> None:
    import torch

    from grpo_cot.merging import stored

    model = network()
    model.other = torch.nn.Linear(5, 100, bias=False)
    model.other.weight = model.head.weight
    found = stored.digests(model, torch.bfloat16)
    assert found["other.weight"] == found["head.weight"]


def test_digests_are_of_what_the_adapter_leaves_alone_and_of_trained_copies() -> None:
    import torch

    from grpo_cot.merging import stored

    model = adapt(network(), modules_to_save=["norm"])
    core = stored.plain(model)
    found = stored.digests(core, torch.bfloat16)
    assert found.keys() == {"norm.weight", "norm.bias", "head.weight"}
    assert found == stored.digests(stored.plain(adapt(network(), modules_to_save=["norm"])), torch.bfloat16)
    core.norm.original_module.weight.data += 1  # not the trained copy
    assert found == stored.digests(core, torch.bfloat16)
    core.head.weight.data[0, 0] += 1e-6  # rounded away
    assert found == stored.digests(core, torch.bfloat16) != stored.digests(core, torch.float32)
    core.norm.modules_to_save["default"].weight.data[0] += 1e-6
    assert found == stored.digests(core, torch.bfloat16)
    core.norm.modules_to_save["default"].bias.data[0] += 1
    changed = stored.digests(core, torch.bfloat16)
    assert {name for name in found if changed[name] != found[name]} == {"norm.bias"}
    core.head.weight.data[0, 0] += 1
    assert stored.digests(core, torch.bfloat16)["head.weight"] != found["head.weight"]
    copies = adapt(network(), modules_to_save=["norm", "head"])
    assert stored.digests(stored.plain(copies), torch.bfloat16) == found
    whole = stored.digests(network(), torch.bfloat16)
    assert whole.keys() == dict(network().named_parameters()).keys() and whole["head.weight"] == found["head.weight"]


def merged(model: Any) -> Any:
    return model.merge_and_unload()


def test_a_merge_that_holds_the_trained_weights_misplaces_none() -> None:
    import torch

    from grpo_cot.merging import stored

    model = adapt(network())
    expected = stored.columns(stored.plain(model))
    found = stored.compare(expected, merged(model), torch.bfloat16)
    assert found == stored.Stored(0.0, None, None, pytest.approx(1))


@pytest.mark.parametrize(
    ("layer", "change", "share", "kept"),
    [
        ("inner.up", lambda weight: weight - 0.5, 48 / 56, 0.0),  # 48 weights, and 8 biases beside them
        ("inner.up", lambda weight: weight - 0.25, 48 / 56, 0.5),
        ("inner.across", lambda weight: weight + 0.5, 40 / 45, 2.0),
        ("embed", lambda weight: weight - 1.0, 1.0, -1.0),
    ],
)
def test_the_worst_layer_is_named_with_the_share_of_the_adapter_that_it_keeps(
    layer: str, change: Any, share: float, kept: float
) -> None:
    import torch

    from grpo_cot.merging import stored

    model = adapt(network())
    expected = stored.columns(stored.plain(model))
    other = merged(model)
    weight = other.get_submodule(layer).weight
    weight.data = change(weight.data)
    found = stored.compare(expected, other, torch.bfloat16)
    assert found.layer == layer and found.misplaced == pytest.approx(share) and found.layer_kept == pytest.approx(kept)
    sizes = {"inner.up": 48, "inner.across": 40, "embed": stored.COLUMNS * 6}
    right = sum(size for name, size in sizes.items() if name != layer)
    assert found.weights_kept == pytest.approx((right + kept * sizes[layer]) / sum(sizes.values()))


def test_a_bias_that_was_lost_is_seen() -> None:
    import torch

    from grpo_cot.merging import stored

    model = adapt(network())
    expected = stored.columns(stored.plain(model))
    other = merged(model)
    other.inner["up"].bias.data += 1
    found = stored.compare(expected, other, torch.bfloat16)
    assert (
        found.layer == "inner.up" and found.misplaced == pytest.approx(8 / 56) and found.layer_kept == pytest.approx(1)
    )


def test_rounding_misplaces_nothing_and_one_step_more_does() -> None:
    import torch

    from grpo_cot.merging import stored

    torch.manual_seed(0)
    trained = 0.02 * torch.randn(64, 300)
    base = trained - 1e-4 * torch.randn(64, 300)
    layer = torch.nn.ModuleDict({"layer": torch.nn.Linear(64, 300, bias=False)})
    places = torch.arange(64)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        nearest = trained.to(dtype).float()
        layer["layer"].weight.data = nearest.T.contiguous()
        expected = {"layer": stored.Columns(places, trained, base, None)}
        assert stored.compare(expected, layer, dtype).misplaced == 0
        step = 1e-4 if dtype is torch.float32 else 2.1 * torch.finfo(dtype).eps  # sums in float32 are not exact
        layer["layer"].weight.data = (nearest * (1 + step)).T.contiguous()
        assert stored.compare(expected, layer, dtype).misplaced > 0.9
        if dtype is not torch.float32:  # each weight the nearest number but one
            beside = torch.nextafter(trained.to(dtype), torch.full((), torch.inf, dtype=dtype)).float()
            layer["layer"].weight.data = beside.T.contiguous()
            assert stored.compare(expected, layer, dtype).misplaced > 0.9


def test_nothing_is_misplaced_where_no_adapter_is() -> None:
    import torch

    from grpo_cot.merging import stored

    assert stored.compare({}, network(), torch.bfloat16) == stored.Stored(0.0, None, None, None)
    model = adapt(network())
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "embedding_B" in name:
            parameter.data.zero_()
    expected = stored.columns(stored.plain(model))
    assert stored.compare(expected, merged(model), torch.bfloat16) == stored.Stored(0.0, None, None, None)


def test_a_large_bias_costs_no_weight_its_last_bits() -> None:
    """Qwen2.5's are some thousand times as large as its weights."""
    import torch

    from grpo_cot.merging import stored

    model = network()
    for parameter in model.parameters():
        parameter.data = 0.02 * torch.randn_like(parameter)
    model.inner["up"].bias.data = 150 * torch.randn(8)
    adapted = adapt(model)
    expected = stored.columns(stored.plain(adapted))
    found = stored.compare(expected, merged(adapted), torch.float32)
    assert found.misplaced == 0 and found.weights_kept == pytest.approx(1, abs=1e-4)


def test_an_embedding_that_scales_what_it_gives_is_compared_as_it_gives_it() -> None:
    import torch

    from grpo_cot.merging import stored

    class Scaled(torch.nn.Embedding):
        def forward(self, ids: Any) -> Any:
            return 8 * super().forward(ids)

    model = torch.nn.ModuleDict({"embed": Scaled(100, 6)})
    places = torch.arange(64)
    rows = 8 * model["embed"].weight.detach()[places]
    expected = {"embed": stored.Columns(places, rows, rows - 1, None)}
    assert stored.compare(expected, model, torch.float32).misplaced == 0


def test_a_base_that_is_not_the_one_of_the_training_is_named() -> None:
    import torch

    from grpo_cot.merging import stored

    model = adapt(network())
    expected = stored.columns(stored.plain(model))
    held = stored.base_columns(stored.plain(model))
    assert held.keys() == expected.keys() and stored.otherwise(held, expected) is None
    assert stored.plain(model).inner["up"].base_layer.bias.tolist() == network().inner["up"].bias.tolist()
    within = {name: rows * (1 + 2**-9) for name, rows in held.items()}
    assert stored.otherwise(within, expected) is None  # kernels round
    within["inner.across"] = held["inner.across"] + 1e-5  # the sums' own error beside the layer's largest weight
    assert bool((held["inner.across"] == 0).any()) and stored.otherwise(within, expected) is None
    further = {name: rows + 2.5 * stored.half_step(rows, torch.bfloat16) for name, rows in held.items()}
    assert stored.otherwise(further, expected) == "embed"
    held["inner.across"] = held["inner.across"].clone()
    held["inner.across"][2, 3] += 1
    assert stored.otherwise(held, expected) == "inner.across"
    assert stored.otherwise({}, expected) is None


@pytest.mark.parametrize("adapter", [True, False])
def test_rounded_weights_are_the_nearest_to_the_trained_ones(adapter: bool) -> None:
    import torch

    from grpo_cot.merging import stored

    model = network()
    for parameter in model.parameters():
        parameter.data = parameter.data / 7 + 0.001
    trained = adapt(model) if adapter else model
    core = stored.plain(trained)
    expected, before = stored.columns(core), stored.digests(core, torch.bfloat16)
    rounded = stored.round_merged(trained, torch.bfloat16)
    assert len(expected) == (3 if adapter else 0) and not list(stored.adapted(rounded))
    assert stored.compare(expected, rounded, torch.bfloat16).misplaced == 0
    after = stored.digests(rounded, torch.bfloat16)
    assert {name: after[name] for name in before} == before
    assert all(torch.equal(tensor, tensor.bfloat16().float()) for tensor in rounded.parameters())


def test_what_is_stored_and_is_no_parameter_is_rounded_as_well() -> None:
    """The merge writes it in the type, too: BART's bias of the logits, which with float32 made a right merge wrong."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    from grpo_cot.merging import stored

    sizes = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 8)
    heads = {f"{part}_{what}": 1 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    model = BartForConditionalGeneration(BartConfig(vocab_size=20, **sizes, **heads))
    bias = torch.randn(1, 20)
    model.final_logits_bias = bias.clone()
    rounded = stored.round_merged(model, torch.bfloat16)
    assert torch.equal(rounded.final_logits_bias, bias.bfloat16().float())
