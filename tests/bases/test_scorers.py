"""The model that a reward model starts from: made beside its base, in any of its kinds, or refused in one sentence."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from bases.made import pinned, write_source
from bases.test_arrival import arrive, refusal
from stand_in_hub import COMMIT, Hub
from text_recipes import source

from grpo_cot.common.files import file_hashes, read_json, write_json

pytestmark = pytest.mark.slow


def with_scorer(into: Path, **changes: Any) -> Path:
    """A base's source file whose scorer has other values, and none of a value that is None."""
    content = source()
    content["scorer"] = {key: value for key, value in (content["scorer"] | changes).items() if value is not None}
    return write_source(into / "mine.yaml", **content)


def made(into: Path) -> Path:
    """A scorer's folder, in the Hub's layout."""
    arrive(with_scorer(into), into)
    return into / "models/mine/scorer"


def elsewhere(folder: Path, **changes: Any) -> dict[str, Any]:
    """The values of a scorer that lies in a folder of this machine."""
    place = {"kind": "folder", "folder": str(folder), "sha256": pinned(folder)}
    return {**place, "tokenizer": None, "config": None, "seed": None, **changes}


def test_a_scorer_from_scratch_is_the_same_each_time_and_recorded_with_its_licence(tmp_path: Path) -> None:
    record = arrive(with_scorer(tmp_path), tmp_path / "one")
    arrive(with_scorer(tmp_path), tmp_path / "two")
    hashes = file_hashes(tmp_path / "one/models/mine")
    assert hashes == file_hashes(tmp_path / "two/models/mine")
    assert {f"scorer/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")} <= hashes.keys()
    assert hashes["scorer/tokenizer.json"] == source()["scorer"]["sha256"]["tokenizer.json"]
    assert record["scorer"]["licence"] == {"id": "apache-2.0"} and record["scorer"]["seed"] == 20
    assert "path" not in record["scorer"]
    assert read_json(tmp_path / "one/models/mine/base.json")["scorer"] == {"id": None, "revision": None}


def test_a_folder_of_this_machine_is_copied_and_its_classifier_layer_does_not_count(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = made(tmp_path / "first")
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5).save_pretrained(folder)
    arrive(with_scorer(tmp_path, **elsewhere(folder)), tmp_path / "second")
    assert pinned(tmp_path / "second/models/mine/scorer") == pinned(folder)


def test_the_files_of_a_model_of_the_hub_come_with_its_own_kind_of_tokenizer(
    hub: Hub, the_client_asks_it: None, tmp_path: Path
) -> None:
    """As vinai/phobert-base has them: torch's own file of weights, and a vocabulary beside codes of byte pairs."""
    import torch
    from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    configuration = RobertaConfig(vocab_size=12, max_position_embeddings=18, **sizes)
    torch.save(RobertaForMaskedLM(configuration).state_dict(), tmp_path / "pytorch_model.bin")
    settings = configuration.to_dict() | {"model_type": "roberta", "tokenizer_class": "PhobertTokenizer"}
    write_json(tmp_path / "config.json", settings)
    (tmp_path / "vocab.txt").write_text("h@@ 5\ni 4\nhi 3\n")
    (tmp_path / "bpe.codes").write_text("h i</w> 9\n")
    names = ("config.json", "pytorch_model.bin", "vocab.txt", "bpe.codes")
    hub.served[f"vinai/phobert-base@{COMMIT}"] = {name: (tmp_path / name).read_bytes() for name in names}
    place = {"kind": "hub", "id": "vinai/phobert-base", "revision": COMMIT, "licence": "mit"}
    without = dict.fromkeys(("tokenizer", "config", "seed", "sha256"))
    record = arrive(with_scorer(tmp_path, **place, **without), tmp_path)
    assert record["scorer"]["id"] == "vinai/phobert-base"
    folder = tmp_path / "models/mine/scorer"
    assert {path.name for path in folder.iterdir()} == set(names)
    assert type(AutoTokenizer.from_pretrained(folder)).__name__ == "PhobertTokenizer"


def test_what_could_not_be_trained_to_classify_is_one_sentence(tmp_path: Path) -> None:
    sound = made(tmp_path / "sound")
    other = tmp_path / "other"

    def refused(change: Any) -> str:
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(sound, other)
        change()
        return refusal(with_scorer(tmp_path, **elsewhere(other)), tmp_path / "into")

    def set_in(name: str, **values: Any) -> None:
        write_json(other / name, read_json(other / name) | values)

    assert "scorer: it has no tokenizer" in refused(lambda: (other / "tokenizer.json").unlink())
    assert "its tokenizer has no padding token" in refused(lambda: set_in("tokenizer_config.json", pad_token=None))
    assert "the model has embeddings for the numbers 0 to 99 alone" in refused(
        lambda: set_in("config.json", vocab_size=100)
    )
    assert "its files lack 16 of the weights" in refused(lambda: set_in("config.json", num_hidden_layers=2))
    assert "Transformers has no classifier of texts" in refused(lambda: set_in("config.json", model_type="blip"))
    assert "Transformers cannot load it" in refused(lambda: (other / "model.safetensors").write_bytes(b"cut"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"config": {"model_type": "blip"}}, "mine.yaml: scorer: Transformers has no classifier of texts"),
        ({"config": {"model_type": "bert", "hidden_sze": 8}}, "scorer: config: unknown key 'hidden_sze'; did you mean"),
        ({"config": {"model_type": "bert", "hidden_size": 15}}, "scorer: config: Transformers refuses it"),
        ({"kind": "gguf"}, "mine.yaml: scorer.kind: input should be 'embedded', 'folder', 'hub' or 'scratch'"),
        ({"chat_template": "x"}, "unknown key 'scorer.chat_template'; it does not belong in this place"),
        ({"seed": None}, "mine.yaml: scorer: a base of kind 'scratch' needs 'seed'"),
        ({"licence": None}, "mine.yaml: the key 'scorer.licence' is missing"),
        ({"sha256": {"tokenizer.json": "0" * 64}}, "scorer: tokenizer.json has sha256"),
    ],
)
def test_a_wrong_source_is_named_by_its_field(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert says in refusal(with_scorer(tmp_path, **changes), tmp_path)
