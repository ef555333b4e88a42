"""What `make check` says of a base from elsewhere, of its image and places, and of the modules that recipes name."""

from pathlib import Path

import pytest
from checks.small_project import bases, contents, write, write_project

from grpo_cot.checks.project import problems
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import file_hash
from grpo_cot.library.lora import check_names, single_alternatives

pytestmark = pytest.mark.slow


def said(root: Path, part: str) -> list[str]:
    return [sentence for sentence in problems(root)[1] if part in sentence]


def test_a_folder_that_is_here_has_the_files_and_the_agreement_that_its_source_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path)
    folder = tmp_path / "assets/tiny/model"
    monkeypatch.setenv("HERE", str(folder))
    names = ("config.json", "model.safetensors", "tokenizer.json")
    source = bases()["elsewhere"] | {"sha256": {name: file_hash(folder / name) for name in names}}
    place = tmp_path / "sources/bases/elsewhere.yaml"
    write(place, source)
    assert said(tmp_path, "elsewhere") == []
    write(place, source | {"licence": {"id": "mit", "agreement": "LICENSE"}})
    assert ["licence.agreement is 'LICENSE'" in sentence for sentence in said(tmp_path, "elsewhere")] == [True]
    write(place, source | {"sha256": {"adapter.safetensors": "b" * 64}})
    assert ["adapter.safetensors is pinned" in sentence for sentence in said(tmp_path, "elsewhere")] == [True]


def test_a_pretraining_that_needs_a_gpu_is_not_made_in_the_image_without_one(tmp_path: Path) -> None:
    write_project(tmp_path)
    trained = bases()["trained"]
    write(tmp_path / "sources/bases/trained.yaml", trained | {"pretraining": trained["pretraining"] | {"steps": 10**8}})
    params = contents()["params.yaml"]
    for image in ("cpu", "cuda"):
        write(tmp_path / "params.yaml", params | {"bases": params["bases"] | {"trained": image}})
        sentences = said(tmp_path, "bases.trained")
        assert len(sentences) == (image == "cpu")
        assert all("needs a GPU" in sentence and "set it to cuda" in sentence for sentence in sentences)


def test_places_that_a_source_leaves_to_the_architecture_count_as_well(tmp_path: Path) -> None:
    write_project(tmp_path)
    drawn = bases()["drawn"]
    config = {name: value for name, value in drawn["config"].items() if name != "n_positions"}  # GPT-2's are 1024
    write(tmp_path / "sources/bases/drawn.yaml", drawn | {"config": config})
    recipe = contents()["experiments/plain.yaml"]
    recipe["check"]["sampling"]["max_new_tokens"] = 1000
    write(tmp_path / "experiments/plain.yaml", recipe)
    assert ["1256 tokens, but the base 'drawn' has 1024" in sentence for sentence in said(tmp_path, "plain")] == [True]


MODULES = [f"model.layers.{layer}.self_attn.{name}" for layer in (0, 1) for name in ("q_proj", "k_proj")]


@pytest.mark.parametrize(
    "expression",
    [
        r".*\.(q_proj|k_proj)", r".*\.(q|(k|q))_proj", r"model\.layers\.[01]\.self_attn\.(?:q_proj|k_proj)",
        r"(model\.|layers\.|\d\.|self_attn\.)*q_proj", r".*[|(]?q_proj", r".*q_proj|.*k_proj", r".*(?#a|b)q_proj",
        "all-linear", r"(?i).*Q_PROJ|.*K_PROJ", r".*\.(?:(q)|k)_proj(?(1)|)",
    ],
)  # fmt: skip
def test_a_regular_expression_of_which_every_part_fits_is_taken(expression: str) -> None:
    check_names({"target_modules": expression}, MODULES, 9, "lora")


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        (r".*\.(q_proj|k_porj)", "k_porj"), (r".*q_proj|.*k_porj", ".*k_porj"), (r".*\.(q|(k|z))_proj", "z"),
        (r"model\.layers\.(0|2)\..*q_proj", "2"),
    ],
)  # fmt: skip
def test_an_alternative_that_fits_nothing_is_named(expression: str, part: str) -> None:
    assert part in dict(single_alternatives(expression))
    with pytest.raises(InputError, match="fits no module") as refusal:
        check_names({"target_modules": expression}, MODULES, 9, "lora")
    assert f"the alternative {part!r} of" in str(refusal.value)
