"""bfloat16 is refused on a GPU that only emulates it, and a CPU that does is said to be slow."""

import pytest
from unsloth_recipes import recipe

from grpo_cot.common.errors import InputError

FLOAT16 = {
    "model.dtype": "float16", "quantization.bnb_4bit_compute_dtype": "float16",
    "phases.0.grpo.fp16": True, "phases.0.grpo.bf16": False,
}  # fmt: skip


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.training import phases

    monkeypatch.setattr(phases, "DEVICE", "cuda")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Tesla T4")


def test_bfloat16_on_a_gpu_that_emulates_it_is_refused_and_float16_offered(old_gpu: None) -> None:
    from grpo_cot.training.phases import _check_device

    wanted = recipe()
    with pytest.raises(
        InputError, match=r"^model.dtype asks for bfloat16, which Tesla T4 can only emulate; .*fp16: true"
    ):
        _check_device(wanted, wanted.phases[0])
    offered = recipe(**FLOAT16)
    _check_device(offered, offered.phases[0])


@pytest.mark.parametrize(
    ("left", "name"),
    [
        ("model.dtype", "model.dtype"),
        ("quantization.bnb_4bit_compute_dtype", "quantization.bnb_4bit_compute_dtype"),
        ("phases.0.grpo.bf16", "grpo.bf16"),
    ],
)
def test_every_setting_that_asks_for_bfloat16_is_named(left: str, name: str) -> None:
    from grpo_cot.training.workload import asks_for_bfloat16

    changed = recipe(**FLOAT16 | {left: True if left.endswith("bf16") else "bfloat16"})
    assert asks_for_bfloat16(changed, changed.phases[0]) == [name]


@pytest.mark.parametrize("emulated", [True, False])
def test_a_cpu_that_emulates_bfloat16_is_said_to_be_slow(
    emulated: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from grpo_cot.training import phases

    monkeypatch.setattr(phases, "DEVICE", "cpu")
    monkeypatch.setattr(phases, "emulates_bfloat16", lambda: emulated)
    for wanted, slow in ((recipe(**FLOAT16 | {"model.dtype": "bfloat16"}), emulated), (recipe(**FLOAT16), False)):
        phases._check_device(wanted, wanted.phases[0])
        assert ("model.dtype asks for bfloat16" in capsys.readouterr().out) == slow
