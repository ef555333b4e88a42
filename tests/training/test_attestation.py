"""What is compared at every sync: weights bit by bit, and log-probabilities of the right tokens."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import ROOT

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
    assert checksum([]) == 0
    assert checksum(tensors[::-1]) != before
    assert checksum([tensors[0].T, *tensors[1:]]) != before
    words = torch.arange(64)  # 512 bytes: eight blocks
    for one, other in ((3, 4), (3, 40), (3, 11)):  # in one block, in two, and at the same place of two
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


class Engine:
    """What is asked of a vllm.LLM."""

    def generate(self, prompts: Any, sampling_params: Any = None, lora_request: Any = None) -> str:
        self.sampling_params = sampling_params
        return f"{prompts} with {lora_request and lora_request.lora_int_id}"


def attesting(model: Any) -> tuple[Any, Callable[..., dict[str, float]]]:
    """An attestation of what an engine is asked with, and how to ask it and attest."""
    import torch

    from grpo_cot.training.attestation import SyncAttestation, requests

    engine = Engine()
    attestation = SyncAttestation(0.1, requests(engine, torch.device("cpu")))
    attestation.begin(model)

    def asked(number: int, **request: Any) -> dict[str, float]:
        said = engine.generate("prompts", lora_request=SimpleNamespace(lora_int_id=number, **request))
        assert said == f"prompts with {number}"
        return attestation.weights(model)

    return attestation, asked


def test_an_adapter_in_the_request_itself_is_compared_in_the_format_that_it_has_there() -> None:
    """Unsloth's requests hold tensors instead of a folder."""
    from grpo_cot.common.errors import InputError
    from grpo_cot.training.attestation import adapter_tensors

    model = small()
    live = adapter_tensors(model)
    first, second = sorted(live)
    held = {"sync/adapter_delivered": 1.0, "sync/base_unchanged": 1.0}
    _, asked = attesting(model)
    assert asked(1, lora_tensors=live) == held
    assert asked(2, lora_tensors={name: tensor.bfloat16() for name, tensor in live.items()}) == held
    with pytest.raises(InputError, match=f"1 names differ, {second} first"):
        asked(3, lora_tensors={first: live[first]})
    with pytest.raises(InputError, match="and a shape first"):
        asked(4, lora_tensors={first: live[first], second: live[second][:4]})
    with pytest.raises(InputError, match=f"1 of 2 tensors differ, {second} first"):
        asked(5, lora_tensors={first: live[first], second: live[second] + 1e-9})


def test_tensors_that_the_trainer_shares_are_compared_with_what_they_were_when_vllm_loaded_them() -> None:
    """Read later, they would be compared with themselves, and any adapter that vLLM holds would pass."""
    from grpo_cot.common.errors import InputError
    from grpo_cot.training.attestation import adapter_tensors

    model = small()
    attestation, asked = attesting(model)
    assert asked(1, lora_tensors=adapter_tensors(model))["sync/adapter_delivered"] == 1
    for tensor in adapter_tensors(model).values():
        tensor.data.add_(1)
    with pytest.raises(InputError, match="the adapter of an earlier step"):
        attestation.weights(model)
    with pytest.raises(InputError, match="the adapter of an earlier step"):
        asked(1, lora_tensors=adapter_tensors(model))  # vLLM has a number's adapter already, and does not load it again
    assert asked(2, lora_tensors=adapter_tensors(model))["sync/adapter_delivered"] == 1


def test_completions_sampled_without_an_adapter_are_refused_and_settings_reach_the_engine() -> None:
    import torch

    from grpo_cot.common.errors import InputError
    from grpo_cot.training.attestation import SyncAttestation, adapter_tensors, requests

    model, engine = small(), Engine()
    given = requests(engine, torch.device("cpu"))
    attestation = SyncAttestation(0.1, given)
    attestation.begin(model)
    request = SimpleNamespace(lora_int_id=1, lora_tensors=adapter_tensors(model))
    assert engine.generate("prompts", sampling_params="greedy", lora_request=request) == "prompts with 1"
    assert engine.sampling_params == "greedy"
    assert engine.generate("prompts") == "prompts with None"
    assert given() is None
    with pytest.raises(InputError, match="asked without the adapter"):
        attestation.weights(model)


def test_a_checksum_neither_reads_nor_moves_the_state_that_training_draws_from() -> None:
    import torch

    from grpo_cot.training.attestation import _weights, checksum

    found = []
    for seed in (1, 2):
        _weights.cache_clear()  # as in another process
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        found.append(checksum([torch.arange(9)]))
        assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1]


def test_the_live_adapter_is_read_without_packing_the_base_and_without_its_embeddings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To pack every 4-bit scale at every step, as a state dict does, would take longer than the step."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from grpo_cot.training.attestation import adapter_tensors

    base = AutoModelForCausalLM.from_pretrained(ROOT / "assets/tiny/model")
    model = get_peft_model(base, LoraConfig(target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM"))

    def packed(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the model's state dict was made")

    monkeypatch.setattr(torch.nn.Module, "state_dict", packed)
    live = adapter_tensors(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(tensor.data_ptr() for tensor in live.values()) == sorted(part.data_ptr() for part in trained)


def small() -> Any:
    """A frozen layer with an adapter that is trained."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    return get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), LoraConfig(target_modules=["0"]))


def base_of(model: Any) -> Any:
    return model.base_model.model[0].base_layer.weight


def test_an_adapter_is_compared_as_its_file_has_it_and_an_earlier_ones_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from grpo_cot.common.errors import InputError
    from grpo_cot.training.attestation import SyncAttestation, adapter_tensors

    model = small()
    attestation, asked = attesting(model)

    def write() -> None:
        save_file(
            {name: part.detach().clone() for name, part in adapter_tensors(model).items()},
            tmp_path / "adapter_model.safetensors",
        )

    write()
    assert asked(1, lora_path=str(tmp_path))["sync/adapter_delivered"] == 1
    for tensor in adapter_tensors(model).values():
        tensor.data.add_(1)
    with pytest.raises(InputError, match="the adapter of an earlier step"):
        attestation.weights(model)
    with pytest.raises(InputError, match="the adapter of an earlier step"):
        asked(2, lora_path=str(tmp_path))
    write()
    assert asked(3, lora_path=str(tmp_path))["sync/adapter_delivered"] == 1
    with pytest.raises(InputError, match="vLLM was asked without the adapter"):
        SyncAttestation(0.1, lambda: None).weights(model)


def test_a_base_that_was_written_into_is_found_at_whatever_step() -> None:
    from grpo_cot.common.errors import InputError
    from grpo_cot.training.attestation import SyncAttestation

    model = small()
    attestation = SyncAttestation(0.1)
    attestation.begin(model)
    assert attestation.weights(model) == {"sync/base_unchanged": 1}
    base_of(model).data[0, 0] += 1e-6
    attestation.begin(model)  # at the next step: what the training began with still counts
    with pytest.raises(InputError, match="not those that the training began with"):
        attestation.weights(model)


@pytest.fixture
def trainer() -> Any:
    """What `attest` takes of a trainer, in one of two processes: the other has a gap of 1 nat over two tokens."""
    import torch

    batch = {
        "prompt_mask": torch.ones(1, 2), "completion_mask": torch.ones(1, 2),
        "old_per_token_logps": torch.tensor([[-1.0, -1.0]]), "sampling_per_token_logps": torch.tensor([[-1.0, -2.0]]),
    }  # fmt: skip

    def reduce(found: torch.Tensor, how: str) -> torch.Tensor:
        assert how == "sum"
        return found + torch.tensor([1.0, 2.0, 0.0])

    def generate_and_score(inputs: Any) -> Any:
        made.asked = inputs
        made.meddle(made.model)
        return batch

    made = SimpleNamespace(
        model=small(), accelerator=SimpleNamespace(reduce=reduce), state=SimpleNamespace(global_step=2),
        _metrics={mode: defaultdict(list) for mode in ("train", "eval")}, meddle=lambda model: None,
        _generate_and_score_completions=generate_and_score, batch=batch, asked=None,
    )  # fmt: skip
    return made


def test_every_generation_is_judged_over_all_processes_and_logged(trainer: Any) -> None:
    from grpo_cot.training.attestation import SyncAttestation, attest

    attest(trainer, SyncAttestation(0.5))
    assert trainer._generate_and_score_completions("prompts") is trainer.batch and trainer.asked == "prompts"
    logged = {"sync/base_unchanged": [1], "sync/log_probability_gap": [0.5]}
    assert trainer._metrics == {"train": logged, "eval": {}}
    trainer.model.eval()
    trainer._generate_and_score_completions("prompts")
    assert trainer._metrics == {"train": logged, "eval": logged}


def write_into_the_base(model: Any) -> None:
    base_of(model).data.add_(1)


@pytest.mark.parametrize(
    ("limit", "meddle", "says"),
    [
        (0.4, lambda model: None, "step 3: vLLM's and the trainer's log-probabilities .* differ by 0.5000"),
        # Already while the first completions were made.
        (0.5, write_into_the_base, "step 3: the base's weights are not those"),
    ],
)
def test_a_sync_that_does_not_hold_stops_the_training_with_its_step(
    trainer: Any, limit: float, meddle: Callable[[Any], None], says: str
) -> None:
    from grpo_cot.common.errors import InputError
    from grpo_cot.training.attestation import SyncAttestation, attest

    trainer.meddle = meddle
    attest(trainer, SyncAttestation(limit))
    with pytest.raises(InputError, match=f"^{says}"):
        trainer._generate_and_score_completions("prompts")
    assert trainer._metrics == {"train": {}, "eval": {}}


@pytest.mark.parametrize("limit", [0.4, 0.5])
def test_processes_stop_together_whichever_found_something(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    from grpo_cot.common.errors import InputError
    from grpo_cot.training import attestation

    told = []

    def gather(sentences: list[str | None]) -> list[str | None]:
        told.extend(sentences)
        return [None, "another process found something"]

    monkeypatch.setattr(attestation, "gather_object", gather)
    attestation.attest(trainer, attestation.SyncAttestation(limit))
    with pytest.raises(InputError, match=r"^step 3: another process found something$"):
        trainer._generate_and_score_completions("prompts")
    assert [bool(sentence) for sentence in told] == [limit == 0.4]


def test_both_sides_are_compared_on_the_device_where_the_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of two devices do not compare, and weights that crossed to the CPU at every step would take the time."""
    import torch

    from grpo_cot.training import attestation

    asked: list[Any] = []
    weights = attestation._weights

    def watched(count: int, device: torch.device) -> torch.Tensor:
        asked.append(device)
        return weights(count, device)

    monkeypatch.setattr(attestation, "_weights", watched)
    attestation.checksum([torch.arange(9)])
    monkeypatch.setattr(attestation, "load_file", lambda path, device: asked.append(device) or {})
    attestation.delivered_tensors(SimpleNamespace(lora_path="folder"), torch.device("cuda:1"))
    assert asked == [torch.device("cpu"), "cuda:1"]
