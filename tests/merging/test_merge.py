"""Merging: shard by shard gives what PEFT gives on the whole model, and loads as the base does."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml
from grpo_cot.merging.parity import difference
from grpo_cot.models.description import ModelDescription
from grpo_cot.recipes.recipe import MergeSection, ModelSection

pytestmark = pytest.mark.slow
TINY = ROOT / "assets/tiny/model"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QUANTIZATION = read_yaml(ROOT / "tests/pipeline/short.yaml")["quantization"]
CONVERSATIONS = [[{"role": "user", "content": text}] for text in ("How many?", "Ada has 3 cups. How many cups?")]
SECTION = MergeSection(base="dequantized", dtype="bfloat16", prompts=2, new_tokens=8)


def qwen2(folder: Path, tied: bool, dtype: str = "bfloat16") -> Path:
    """A random Qwen2 in files of 200 kB at most, its biases not zero."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    settings = json.loads((TINY / "config.json").read_text())
    settings |= {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2, "tie_word_embeddings": tied}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**settings)).to(getattr(torch, dtype))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return save(model, folder, max_shard_size="200KB")


def save(model: Any, folder: Path, **options: Any) -> Path:
    """A model with the embedded one's tokenizer and generation defaults."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("model.safetensors", "config.json"))
    model.save_pretrained(folder, **options)
    shutil.copyfile(TINY / "generation_config.json", folder / "generation_config.json")
    return folder


def trained(base: Path, quantization: Any, dtype: str = "float32", **lora: Any) -> Path:
    """A random adapter beside its base, of which nothing is zero; its model.json."""
    import torch
    from peft import LoraConfig, get_peft_model

    from grpo_cot.models.loading import load_base

    settings = ModelSection(dtype=dtype, attn_implementation="sdpa", threads=1)
    configuration = LoraConfig(task_type="CAUSAL_LM", **({"r": 4, "target_modules": PROJECTIONS} | lora))
    torch.manual_seed(1)
    model = get_peft_model(load_base(base, settings, quantization), configuration)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data += (0.05 if "lora_" in name else 0.5) * torch.randn_like(parameter)
    model.save_pretrained(base.parent / "adapter")
    description = ModelDescription(
        kind="adapter", architecture="causal", path="adapter", base=str(base), model=settings, quantization=quantization
    )
    (base.parent / "model.json").write_text(description.model_dump_json())
    return base.parent / "model.json"


def merged(model_json: Path, section: MergeSection = SECTION) -> tuple[Path, str | None]:
    """Merge into a new folder beside; why it was not done shard by shard."""
    from grpo_cot.merging.merge import merge
    from grpo_cot.models.description import read_description
    from grpo_cot.models.tokenizers import load_tokenizer

    description = read_description(model_json)
    folder = model_json.parent / "merged"
    folder.mkdir()
    weights = model_json.parent / description.path
    return folder, merge(description, weights, section, load_tokenizer(Path(description.base)), folder)


def loaded(folder: Path) -> dict[str, Any]:
    """A folder's weights as plain Transformers loads them."""
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict())


def by_peft(model_json: Path, section: MergeSection = SECTION) -> dict[str, Any]:
    """The weights that PEFT's merge_and_unload gives on the whole model."""
    from grpo_cot.merging.merge import merge_whole
    from grpo_cot.models.description import read_description

    description = read_description(model_json)
    return dict(merge_whole(description, model_json.parent / description.path, section).state_dict())


def assert_equal(left: dict[str, Any], right: dict[str, Any]) -> None:
    import torch

    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


@pytest.mark.parametrize(
    ("lora", "tied", "quantized", "base", "dtype"),
    [
        ({}, True, True, "dequantized", "float32"),
        ({}, False, True, "dequantized", "bfloat16"),
        ({}, True, True, "original", "bfloat16"),
        ({"use_rslora": True, "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"v_proj": 3}}, False,
         False, "original", "bfloat16"),
        ({"use_dora": True, "target_modules": ["q_proj", "down_proj"]}, True, True, "dequantized", "float32"),
        ({"modules_to_save": ["lm_head", "norm"], "target_modules": ["k_proj"]}, False, True,
         "dequantized", "float32"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, False, False, "original", "float32"),
    ],
)  # fmt: skip
def test_shard_by_shard_the_weights_are_those_of_peft_on_the_whole_model(
    tmp_path: Path, lora: dict[str, Any], tied: bool, quantized: bool, base: Any, dtype: str
) -> None:
    folder = qwen2(tmp_path / "base", tied)
    model_json = trained(folder, QUANTIZATION if quantized else None, dtype, **lora)
    section = SECTION.model_copy(update={"base": base})
    output, reason = merged(model_json, section)
    assert reason is None
    assert_equal(loaded(output), by_peft(model_json, section))
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in output.iterdir()} == names and len(list(output.glob("*.safetensors"))) > 3
    index, expected = (json.loads((path / "model.safetensors.index.json").read_text()) for path in (output, folder))
    assert index["weight_map"].keys() == expected["weight_map"].keys()
    assert index["metadata"]["total_size"] == expected["metadata"]["total_size"]
    assert json.loads((output / "generation_config.json").read_text()) == {"eos_token_id": 2, "pad_token_id": 0}
    configuration = json.loads((output / "config.json").read_text())
    assert configuration == json.loads((folder / "config.json").read_text()) and configuration["dtype"] == "bfloat16"


def test_only_one_file_of_the_model_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.multiprocessing.reductions import StorageWeakRef

    from grpo_cot.merging import shards

    written: list[StorageWeakRef] = []
    save_file = shards.save_file

    def watched(tensors: dict[str, Any], path: Path, **options: Any) -> None:
        assert all(reference.expired() for reference in written)
        written.extend(StorageWeakRef(tensor.untyped_storage()) for tensor in tensors.values())
        save_file(tensors, path, **options)

    monkeypatch.setattr(shards, "save_file", watched)
    merged(trained(qwen2(tmp_path / "base", tied=True), QUANTIZATION))
    assert len(written) > 20


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["lm_head", "q_proj"]},
        {"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]},
        {"trainable_token_indices": [5, 6, 7], "target_modules": ["q_proj"]},
    ],
)
def test_tied_embeddings_that_the_adapter_separates_are_written_apart(tmp_path: Path, lora: dict[str, Any]) -> None:
    """Merged in one piece, a change of the output matrix would change the embeddings with it."""
    from grpo_cot.merging.comparison import parity

    model_json = trained(qwen2(tmp_path / "base", tied=True), None, **lora)
    section = SECTION.model_copy(update={"dtype": "float16"})
    output, _ = merged(model_json, section)
    assert not json.loads((output / "config.json").read_text())["tie_word_embeddings"]
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= loaded(output).keys()
    assert difference(parity(model_json, output, CONVERSATIONS, {}, section), section.dtype) is None


@pytest.mark.parametrize("quantized", [True, False])
def test_gpt2_under_the_names_that_the_hub_has_for_it(tmp_path: Path, quantized: bool) -> None:
    """No prefix, mask buffers among the weights, and matrices that lie the other way round."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import GPT2Config, GPT2LMHeadModel

    from grpo_cot.merging.comparison import parity

    torch.manual_seed(0)
    tokens = {"vocab_size": 593, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    base = save(GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=2, **tokens)), tmp_path / "base")
    tensors = {
        name.removeprefix("transformer."): tensor for name, tensor in load_file(base / "model.safetensors").items()
    }
    save_file(tensors | {"h.0.attn.bias": torch.ones(1, 1, 8, 8)}, base / "model.safetensors")
    model_json = trained(base, QUANTIZATION if quantized else None, target_modules=["c_attn", "c_proj", "c_fc"])
    output, reason = merged(model_json)
    assert reason is None and load_file(output / "model.safetensors").keys() == tensors.keys()
    assert difference(parity(model_json, output, CONVERSATIONS, {}, SECTION), "bfloat16") is None
    if not quantized:  # Transformers leaves GPT-2's matrices the wrong way round when it dequantizes a whole model
        assert_equal(loaded(output), by_peft(model_json))


def test_an_encoder_decoder_shares_its_embeddings_as_in_the_base(tmp_path: Path) -> None:
    from grpo_cot.merging.comparison import parity

    base = shutil.copytree(ROOT / "assets/tiny-mt5/model", tmp_path / "base")
    model_json = trained(base, None, target_modules=["q", "v", "wo"])
    output, reason = merged(model_json)
    assert reason is None
    assert (output / "config.json").read_text() == (base / "config.json").read_text()
    assert difference(parity(model_json, output, CONVERSATIONS, {}, SECTION), "bfloat16") is None


@pytest.mark.parametrize("quantized", [True, False])
def test_what_needs_the_whole_model_is_merged_in_one_piece_and_says_why(tmp_path: Path, quantized: bool) -> None:
    import torch
    from safetensors.torch import load_file

    from grpo_cot.merging.comparison import parity

    base = shutil.copytree(TINY, tmp_path / "base")
    model_json = trained(base, QUANTIZATION if quantized else None)
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")  # as in older repositories
    (base / "model.safetensors").unlink()
    output, reason = merged(model_json)
    assert reason == "the base has no safetensors files"
    assert_equal(loaded(output), by_peft(model_json))
    assert difference(parity(model_json, output, CONVERSATIONS, {}, SECTION), "bfloat16") is None


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_tied_embeddings_are_separated_in_one_piece_as_well(tmp_path: Path, name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from grpo_cot.merging.comparison import parity

    base = qwen2(tmp_path / "base", tied=True)
    model_json = trained(base, None, target_modules=[name, "q_proj"])
    torch.save(AutoModelForCausalLM.from_pretrained(base).state_dict(), base / "pytorch_model.bin")
    for path in base.glob("*.safetensors*"):
        path.unlink()
    output, reason = merged(model_json)
    assert reason == "the base has no safetensors files"
    assert difference(parity(model_json, output, CONVERSATIONS, {}, SECTION), "bfloat16") is None


def test_full_weights_are_cast_shard_by_shard(tmp_path: Path) -> None:
    import torch

    weights = qwen2(tmp_path / "weights", tied=True, dtype="float32")
    settings = ModelSection(dtype="float32", attn_implementation="sdpa", threads=1)
    description = ModelDescription(
        kind="full", architecture="causal", path="weights", base=str(TINY), model=settings, quantization=None
    )
    (tmp_path / "model.json").write_text(description.model_dump_json())
    output, reason = merged(tmp_path / "model.json")
    assert reason is None and len(list(output.glob("*.safetensors"))) > 3
    assert_equal(loaded(output), {name: tensor.to(torch.bfloat16) for name, tensor in loaded(weights).items()})


def test_a_cut_file_and_an_adapter_of_another_base_are_one_sentence(tmp_path: Path) -> None:
    base = qwen2(tmp_path / "base", tied=True)
    model_json = trained(base, None)
    last = sorted(base.glob("*.safetensors"))[-1]
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"base: the model cannot be loaded, its files are corrupt or incomplete"):
        merged(model_json)
    shutil.rmtree(base)
    shutil.rmtree(tmp_path / "merged")
    shutil.copytree(ROOT / "assets/tiny-gpt2/model", base)
    with pytest.raises(InputError, match=r"adapter: the model cannot be loaded"):
        merged(model_json)


class Killed:
    """What ends the process that unpickles it, as a system short of memory does."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (137,)


def test_parity_runs_in_its_own_process(tmp_path: Path) -> None:
    from grpo_cot.merging.comparison import parity
    from grpo_cot.merging.parity import parity_process

    model_json = trained(shutil.copytree(TINY, tmp_path / "base"), QUANTIZATION)
    output, _ = merged(model_json)
    arguments = (model_json, output, CONVERSATIONS, {}, SECTION)
    with parity_process() as measured:
        figures, peak = measured(*arguments)
    assert figures == parity(*arguments) and difference(figures, "bfloat16") is None
    assert peak > 2**20
    with pytest.raises(InputError, match="was ended from outside"), parity_process() as measured:
        measured(Killed())
