"""A licence is one that the Hub knows, with what its agreement asks for."""

from typing import Any

import pytest
from stand_in_hub import LICENCES, metadata_errors
from support import ROOT

from grpo_cot.bases.sources import Base
from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.files import read_yaml
from grpo_cot.data.sources import Benchmark
from grpo_cot.hub.licences import BaseLicence, Licence, full_name
from grpo_cot.hub.names import refused_repository

NOTICE = (
    "Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright © Meta Platforms, Inc. All Rights Reserved."
)
LLAMA = {
    "id": "llama3.2", "agreement": "LICENSE.txt", "notice": NOTICE, "display": "Built with Llama",
    "name_prefix": "Llama-",
}  # fmt: skip
HOUSE = {"id": "other", "name": "house-1.0", "link": "https://example.org/terms"}


@pytest.mark.parametrize("name", sorted(set(LICENCES) - {"other"}))
def test_every_licence_of_the_hub_is_known(name: str) -> None:
    found = validated(Licence, name, "x.yaml")
    assert found.id == name and full_name(found.model_dump())


def test_every_bases_licence_makes_a_card_that_the_hub_takes() -> None:
    for path in (ROOT / "sources/bases").glob("*.yaml"):
        licence = validated(Base, read_yaml(path), path).licence
        card = f"---\nlicense: {licence.id}\nlicense_name: {licence.name}\nlicense_link: {licence.link}\n---\n"
        assert metadata_errors(card) == [], path


@pytest.mark.parametrize("written", ["Apache-2.0", "apache-2.0", {"id": "Apache-2.0"}])
def test_an_spdx_id_in_capitals_is_the_hubs(written: Any) -> None:
    assert validated(BaseLicence, written, "x.yaml").id == "apache-2.0"


def test_a_licence_outside_of_the_list_has_a_name_and_a_link() -> None:
    assert validated(BaseLicence, HOUSE, "x.yaml").name == "house-1.0"
    assert validated(Licence, HOUSE | {"name": "House rules", "link": None}, "x.yaml").name == "House rules"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("Llama 3.2 Community Licence", "did you mean 'llama3.2'?"),
        ("Qwen Research licence (non-commercial)", "id: other, name and link"),
        ("", "not a licence of the Hub's list"),
        (3, "expected an id of the Hub's list"),
        (None, "expected an id of the Hub's list"),
        ({"name": "x"}, "the key 'id' is missing"),
        ({"id": "mit", "nmae": "x"}, "unknown key 'nmae'; did you mean 'name'?"),
        ({"id": "mit", "name": "x"}, "the Hub has its own name for 'mit'"),
        (HOUSE | {"name": None}, "needs its 'name'"),
        (HOUSE | {"name": "House rules"}, "small letters, digits, points and hyphens"),
        (HOUSE | {"link": None}, "needs the 'link'"),
        (HOUSE | {"link": "LICENSE"}, "link: string should match pattern"),
        (HOUSE | {"agreement": "../LICENSE"}, "agreement: string should match pattern"),
        (HOUSE | {"agreement": "README.md"}, "expected the file that holds the agreement alone"),
        (HOUSE | {"name_prefix": "-x"}, "name_prefix: string should match pattern"),
        (LLAMA | {"agreement": None}, "llama3.2 asks for a copy of its text"),
        (LLAMA | {"notice": "Llama."}, f"llama3.2 asks for notice: {NOTICE}"),
        (LLAMA | {"display": "Made with Llama"}, "llama3.2 asks for display: Built with Llama"),
        (LLAMA | {"name_prefix": None}, "llama3.2 asks for name_prefix: Llama-"),
        (HOUSE | {"name": "qwen-research", "agreement": "LICENSE"}, "qwen-research asks for notice: Qwen is"),
    ],
)
def test_a_wrong_licence_is_one_sentence(wrong: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        validated(BaseLicence, wrong, "x.yaml")
    assert says in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("x.yaml: ")


def test_a_base_made_here_has_no_agreement_to_copy() -> None:
    source = read_yaml(ROOT / "sources/bases/tiny-gpt2.yaml")
    assert validated(Base, source | {"licence": LLAMA}, "x.yaml").licence.agreement == "LICENSE.txt"
    source = read_yaml(ROOT / "sources/bases/decoder-only.yaml")
    with pytest.raises(InputError, match=r"a base of kind 'scratch' has no file 'licence\.agreement'"):
        validated(Base, source | {"licence": LLAMA}, "x.yaml")


@pytest.mark.parametrize("name", ["openai/gsm8k", "gpt2", "a-b_c.d/e"])
def test_ids_that_the_hub_takes(name: str) -> None:
    assert validated(Benchmark, {"id": name, "task_id": "x"}, "x.yaml").id == name


@pytest.mark.parametrize("name", ["/data/model", "./model", "a/b/c", "a--b/c", "a/b.git", "a b/c", "", "é/b", "-a/b"])
def test_ids_that_the_hub_refuses(name: str) -> None:
    with pytest.raises(InputError, match=r"x.yaml: id: (not the id of a repository|names a folder; expected a repo)"):
        validated(Benchmark, {"id": name, "task_id": "x"}, "x.yaml")


@pytest.mark.parametrize("name", ["me/model", f"a-team/{'x' * 88}", "me/Llama-1.2_b"])
def test_names_that_a_model_can_be_published_under(name: str) -> None:
    assert refused_repository(name, None) is None


@pytest.mark.parametrize("name", ["me/x--y", "me/x..y", "me/.x", "me/-x", f"me/{'x' * 89}", "me/x-", "-me/x", "mé/x"])
def test_names_that_it_cannot(name: str) -> None:
    assert "but a name on the Hub has" in str(refused_repository(name, None))
