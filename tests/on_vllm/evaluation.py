"""The evaluation by vLLM itself, beside the one by Transformers: the same recipe, models, questions and answers."""

import itertools
import multiprocessing
import subprocess
import sys
from contextlib import closing
from operator import eq
from pathlib import Path
from typing import Any

import pytest
from rollout_recipes import BASE, NF4

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_json, write_json
from grpo_cot.evaluation.pairs import Ask, both
from grpo_cot.models.generation import Completion
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.models.turns import state_turn_end
from grpo_cot.problems.generators import problems
from grpo_cot.publishing.programs import vllm_program
from grpo_cot.vllm.arguments import sampling_parameters

pytestmark = pytest.mark.slow
CONVERSATIONS = [
    [{"role": "user", "content": problem.question}] for problem in itertools.islice(problems("test", 5), 48)
]
GREEDY = Ask("greedy", CONVERSATIONS, {"do_sample": False, "max_new_tokens": 24, "stop_strings": ["</answer>"]})
FEW = GREEDY._replace(conversations=CONVERSATIONS[:12])
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SETTINGS: dict[str, Any] = {"batch_size": 16, "chat_template_kwargs": {}, "seed": 3}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; it takes most of the memory otherwise


def described(folder: Path, model: Any, kind: str, quantization: dict[str, Any] | None) -> Path:
    """model.json of a trained model."""
    dtype = str(model.dtype).removeprefix("torch.")
    model.save_pretrained(folder / "01-grpo")
    write_json(
        folder / "model.json",
        {
            "kind": kind, "architecture": "causal", "path": "01-grpo", "base": str(BASE), "quantization": quantization,
            "model": {"dtype": dtype, "attn_implementation": "sdpa", "threads": 2},
        },
    )  # fmt: skip
    return folder / "model.json"


def fully_trained(folder: Path) -> Path:
    """The embedded model with a little noise, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data += 0.01 * parameter.data.std() * torch.randn_like(parameter)
    return described(folder, model, "full", None)


def adapted(folder: Path, quantization: dict[str, Any] | None, **options: Any) -> Path:
    """A random adapter on the embedded model, in bfloat16 on 4 bits or in float32."""
    import torch
    from peft import LoraConfig, get_peft_model

    from grpo_cot.models.loading import load_base
    from grpo_cot.recipes.recipe import ModelSection

    torch.manual_seed(0)
    dtype = "bfloat16" if quantization else "float32"
    model = load_base(BASE, ModelSection(dtype=dtype, attn_implementation="sdpa", threads=2), quantization)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{"init_lora_weights": False, **options}))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.3 * parameter.data if parameter.any() else 0.06 * torch.randn_like(parameter)
        elif parameter.requires_grad and "lora_" not in name:  # modules and tokens that are trained whole
            parameter.data += 0.3 * torch.randn_like(parameter) * parameter.std()
    return described(folder, model, "adapter", quantization)


def by_transformers(model_json: Path, ask: Ask = GREEDY) -> dict[str, Any]:
    from grpo_cot.models.description import read_description
    from grpo_cot.models.generation import encode, generate
    from grpo_cot.models.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(Path(read_description(model_json).base))
    settings = dict(SETTINGS)
    prompts = encode(tokenizer, ask.conversations, settings.pop("chat_template_kwargs"))
    return {
        name: generate(asked, tokenizer, prompts, ask.sampling, progress=name, **settings)
        for name, asked in both(model_json, before=None)
    }


@pytest.mark.prove
def test_full_weights_are_a_second_engine_and_answer_alike(tmp_path: Path) -> None:
    from grpo_cot.evaluation.vllm import answer_both

    model_json = fully_trained(tmp_path)
    answers = answer_both(model_json, [GREEDY], finished={}, **SETTINGS)
    assert not multiprocessing.active_children(), "an engine is still there, and so is its memory"
    expected = by_transformers(model_json)
    assert expected["base"] != expected["trained"]
    assert {name: found["greedy"] for name, found in answers.items()} == expected
    assert {found.truncated for found in expected["trained"]} == {False, True}


def test_an_adapter_on_4_bits_answers_as_in_transformers_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vllm

    from grpo_cot.evaluation.vllm import answer_both

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # seconds less
    model_json = adapted(tmp_path, NF4, r=20, lora_alpha=20, target_modules="all-linear")
    finished: dict[str, Any] = {}
    monkeypatch.setattr("grpo_cot.evaluation.vllm.CHUNK", 20)
    answers = answer_both(model_json, [GREEDY], finished=finished, **SETTINGS)
    expected = by_transformers(model_json)
    assert expected["base"] != expected["trained"]
    same = {
        (name, other): sum(map(eq, answers[name]["greedy"], expected[other])) for name in expected for other in expected
    }
    # The rest are near ties, which bfloat16 decides by the order in which a kernel adds.
    assert min(same["base", "base"], same["trained", "trained"]) >= 40
    assert max(same["base", "trained"], same["trained", "base"]) <= 36
    del finished["trained greedy 2"]
    asked = []
    generate = vllm.LLM.generate

    def seeds(self: Any, prompts: list[Any], parameters: list[Any], **settings: Any) -> Any:
        asked.extend(given.seed for given in parameters)
        return generate(self, prompts, parameters, **settings)

    monkeypatch.setattr(vllm.LLM, "generate", seeds)
    assert answer_both(model_json, [GREEDY], finished=finished, **SETTINGS) == answers
    assert asked == [43, 44, 45, 46, 47, 48, 49, 50]


def answered(folder: Path, adapter: Path | None) -> list[Completion]:
    """Greedy answers by vLLM in float32, in which recipes are held to 16 bits, for a GPU's sake."""
    from grpo_cot.evaluation.vllm import _Engine

    arguments = {"dtype": "float32"} | ({"enable_lora": True, "max_lora_rank": 8} if adapter else {})
    with closing(_Engine(folder, arguments, 16, 3)) as engine:
        parameters = sampling_parameters(FEW.sampling, "sampling")
        return engine.complete("trained", FEW, parameters, load_tokenizer(BASE), {}, adapter, {})


@pytest.mark.prove
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": r".*\.(q_proj|v_proj|up_proj|down_proj)", "use_rslora": True, "lora_dropout": 0.1},
        {"target_modules": PROJECTIONS, "layers_to_transform": [1, 2], "layers_pattern": "layers", "use_rslora": True},
        {"target_modules": "all-linear", "exclude_modules": ["q_proj"], "init_lora_weights": "gaussian"},
    ],
)
def test_every_option_of_an_adapter_that_vllm_is_given_answers_as_in_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    from grpo_cot.library.lora import check_served

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    model_json = adapted(tmp_path, None, r=4, lora_alpha=8, **options)
    weights = model_json.parent / "01-grpo"
    check_served(read_json(weights / "adapter_config.json"), "lora", "")
    expected = by_transformers(model_json, FEW)
    assert expected["base"] != expected["trained"]
    assert answered(BASE, weights) == expected["trained"]


@pytest.mark.prove
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": [*PROJECTIONS, "embed_tokens"], "use_dora": True, "use_rslora": True},
        {"target_modules": PROJECTIONS, "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"v_proj": 3}},
        {"target_modules": ["v_proj"], "modules_to_save": ["norm"], "trainable_token_indices": list(range(5, 60))},
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        {"target_modules": ["lm_head", "v_proj"]},
    ],
)
def test_what_vllm_cannot_be_given_apart_it_answers_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    from grpo_cot.evaluation.vllm import answer_both
    from grpo_cot.merging.merge import merge
    from grpo_cot.models.description import read_description
    from grpo_cot.recipes.recipe import MergeSection

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    model_json = adapted(tmp_path, None, r=4, lora_alpha=8, **options)
    if "lm_head" not in options["target_modules"]:  # which only `make check` sees, by the base's layers
        with pytest.raises(InputError, match=r"adapter_config.json\.\w+ is .*, which vLLM cannot apply"):
            answer_both(model_json, [FEW], finished={}, **SETTINGS)
    expected = by_transformers(model_json, FEW)
    assert expected["base"] != expected["trained"]
    (tmp_path / "merged").mkdir()
    section = MergeSection(base="original", dtype="float32", prompts=1, new_tokens=1)
    merge(read_description(model_json), tmp_path / "01-grpo", section, load_tokenizer(BASE), tmp_path / "merged")
    assert answered(tmp_path / "merged", None) == expected["trained"]


@pytest.mark.prove
def test_the_kinds_of_models_without_adapters_are_those_of_the_installed_vllm() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from vllm.model_executor.models import ModelRegistry, supports_lora

    from grpo_cot.checks.backends.adapters import WITHOUT_ADAPTERS

    def without(name: str) -> bool:
        try:
            return not supports_lora(ModelRegistry.models[name].load_model_cls())
        except (ImportError, KeyError):  # a model with pictures needs more packages; one that is not vLLM's own
            return False

    names = {kind: [name] if isinstance(name, str) else name for kind, name in CAUSAL.items()}
    assert {kind for kind, classes in names.items() if any(map(without, classes))} == WITHOUT_ADAPTERS


@pytest.mark.prove
def test_the_cards_program_answers_as_transformers_does(tmp_path: Path) -> None:
    model_json = fully_trained(tmp_path)
    folder = model_json.parent / "01-grpo"
    load_tokenizer(BASE).save_pretrained(folder)
    state_turn_end(folder, load_tokenizer(BASE))
    ask = Ask("greedy", CONVERSATIONS, {"max_new_tokens": 24, "stop_strings": [" ="]})
    expected = by_transformers(model_json, ask)["trained"]
    number = next(place for place, answer in enumerate(expected) if answer.text.endswith(" ="))
    program = vllm_program(".", "causal", CONVERSATIONS[number], ask.sampling, {})
    assert program
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, tmp_path / "program.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"{expected[number].text}\n"), done.stdout
