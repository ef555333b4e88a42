"""What is compared at every sync: weights bit by bit, and log-probabilities of the right tokens."""

from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.slow


def test_any_changed_bit_and_any_other_order_changes_the_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from grpo_cot.training import attestation
    from grpo_cot.training.attestation import checksum

    monkeypatch.setattr(attestation, "BLOCK", 64)  # so that tensors share blocks, and one fills several
    tensors = [
        torch.randn(5, 7), torch.tensor(2.5), torch.arange(13, dtype=torch.uint8), torch.empty(0), torch.arange(9),
        torch.zeros(40, dtype=torch.bfloat16), torch.tensor([True, False, True]),
    ]  # fmt: skip
    before = checksum(tensors)
    assert checksum([tensor.clone() for tensor in tensors]) == before
    for tensor in tensors:
        stored = tensor.flatten().view(torch.uint8)
        for place in range(len(stored)):
            for bit in (1, 128):
                stored[place] ^= bit
                assert checksum(tensors) != before
                stored[place] ^= bit
    assert checksum(tensors) == before
    assert checksum(tensors[::-1]) != before
    assert checksum([tensors[0].T, *tensors[1:]]) != before
    words = torch.arange(64)  # 512 bytes: eight blocks
    for one, other in ((3, 4), (3, 40)):
        swapped = words.clone()
        swapped[[one, other]] = swapped[[other, one]]
        assert checksum([swapped]) != checksum([words])


def test_packed_weights_and_all_of_their_scales_are_frozen_and_the_adapter_is_not() -> None:
    import torch
    from bitsandbytes.nn import Linear4bit
    from peft import LoraConfig, get_peft_model

    from grpo_cot.training.attestation import adapter_tensors, checksum, frozen_tensors

    layers = torch.nn.ModuleDict({"layer": Linear4bit(128, 64, quant_type="nf4", compute_dtype=torch.float32)})
    layers["norm"] = torch.nn.LayerNorm(64)
    model = get_peft_model(layers.to("cpu"), LoraConfig(target_modules=["layer"]))
    before = checksum(frozen_tensors(model))
    packed = model.base_model.model["layer"].base_layer.weight
    state = packed.quant_state
    assert state.nested
    parts = {
        "packed": packed.data, "bias": model.base_model.model["layer"].base_layer.bias.data,
        "norm": model.base_model.model["norm"].weight.data, "scales": state.absmax, "offset": state.offset,
        "code": state.code, "scales of scales": state.state2.absmax, "code of scales": state.state2.code,
    }  # fmt: skip
    for name, part in parts.items():
        stored = part.view(-1).view(torch.uint8)
        stored[-1] ^= 1
        assert checksum(frozen_tensors(model)) != before, name
        stored[-1] ^= 1
    for tensor in adapter_tensors(model).values():
        tensor.data.add_(1)
    assert checksum(frozen_tensors(model)) == before


def test_the_gap_is_the_mean_over_the_sampled_tokens() -> None:
    import torch

    from grpo_cot.training.attestation import SyncAttestation, log_probability_gap

    batch = {
        "prompt_mask": torch.tensor([[0, 1], [1, 1]]),
        "completion_mask": torch.tensor([[1, 1, 1], [1, 0, 0]]),
        "old_per_token_logps": torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -9.0, -9.0]]),
        "sampling_per_token_logps": torch.tensor([[-1.5, -2.0, -2.0], [-4.5, 0.0, 0.0]]),
    }
    assert log_probability_gap(batch).tolist() == [2.0, 4, 0]
    assert SyncAttestation(limit=0.5).gap(2.0, 4, 0) == {"sync/log_probability_gap": 0.5}
    tools = batch | {"tool_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
    assert log_probability_gap(tools).tolist() == [1.0, 3, 0]
    # As Unsloth returns it: the first row has a token of padding at its left, and its completion begins one earlier.
    moved = batch | {"old_per_token_logps": torch.tensor([[-1.0, -2.0, -3.0, -7.0], [-7.0, -4.0, -9.0, -9.0]])}
    assert log_probability_gap(moved).tolist() == [2.0, 4, 0]
    nothing = batch | {"completion_mask": torch.zeros(2, 3, dtype=torch.long)}
    assert SyncAttestation(limit=0.5).gap(*log_probability_gap(nothing).tolist()) == {}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((2.0, 4, 0), "differ by 0.5000 on average, at most 0.4 was expected"),
        ((float("inf"), 4, 0), "differ by inf on average"),
        ((0.0, 4, 1), r"gave 1 of 4 sampled tokens no log-probability \(NaN\)"),
    ],
)
def test_log_probabilities_that_are_apart_or_missing_are_refused(found: tuple[float, float, float], said: str) -> None:
    from grpo_cot.common.errors import InputError
    from grpo_cot.training.attestation import SyncAttestation

    with pytest.raises(InputError, match=said):
        SyncAttestation(limit=0.4).gap(*found)


def test_an_adapter_in_the_request_itself_is_compared_in_the_format_that_it_has_there() -> None:
    """Unsloth's requests hold tensors instead of a folder."""
    import torch
    from peft import LoraConfig, get_peft_model

    from grpo_cot.common.errors import InputError
    from grpo_cot.training.attestation import SyncAttestation, adapter_tensors

    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), LoraConfig(target_modules=["0"]))
    live = adapter_tensors(model)
    first, second = sorted(live)
    held = {"sync/adapter_delivered": 1.0, "sync/base_unchanged": 1.0}

    def attested(tensors: dict[str, torch.Tensor]) -> dict[str, float]:
        attestation = SyncAttestation(0.1, lambda: SimpleNamespace(lora_tensors=tensors))
        attestation.begin(model)
        return attestation.weights(model)

    assert attested(live) == held
    assert attested({name: tensor.bfloat16() for name, tensor in live.items()}) == held
    with pytest.raises(InputError, match=f"1 names differ, {second} first"):
        attested({first: live[first]})
    with pytest.raises(InputError, match="and a shape first"):
        attested({first: live[first], second: live[second][:4]})
    with pytest.raises(InputError, match=f"1 of 2 tensors differ, {second} first"):
        attested({first: live[first], second: live[second] + 1e-9})
