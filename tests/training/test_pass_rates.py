"""The prompts that carry signal: what is drawn, kept and ordered, and that a second use draws nothing."""

from pathlib import Path
from typing import Any

import pytest
from support import ROOT, training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Row, read_json, read_yaml
from grpo_cot.recipes.phases import PassRatesSection
from grpo_cot.recipes.recipe import Recipe

TINY = ROOT / "assets/tiny/model"
RATES = {"a": 0.0, "b": 0.25, "c": 1.0, "d": 0.75, "e": 0.25}


def section(**changes: Any) -> PassRatesSection:
    values = {
        "problems": None, "count": 4, "batch_size": 32, "low": 0.1, "high": 0.9, "order": None,
        "sampling": {"do_sample": True, "temperature": 1.0, "max_new_tokens": 40},
    }  # fmt: skip
    return PassRatesSection.model_validate(values | changes)


def kept(section: PassRatesSection, groups: int = 2) -> tuple[list[str], str]:
    from grpo_cot.training.signal.pass_rates import kept_prompts

    rows, sentence = kept_prompts([{"id": name} for name in "abcdefg"], RATES, section, groups, 8)
    return [row["id"] for row in rows], sentence


def test_the_band_is_kept_in_the_order_of_the_rows_or_of_the_pass_rates() -> None:
    names, sentence = kept(section())
    assert names == ["b", "d", "e"]  # f and g were not drawn
    assert sentence == (
        "Of 4 completions to each of 5 prompts, all are right in 20% and none in 20%. 3 prompts with a pass rate from "
        "0.1 to 0.9 are kept: of groups of 8 completions 90% should carry signal, and of those to all drawn prompts "
        "54%."
    )
    assert kept(section(order="easiest_first"))[0] == ["d", "b", "e"]
    assert kept(section(low=0.5, high=1.0))[0] == ["c", "d"]


def test_too_few_prompts_are_one_sentence_with_what_to_do() -> None:
    with pytest.raises(InputError) as error:
        kept(section(low=0.5), groups=2)
    assert "1 prompts have a pass rate from 0.5 to 0.9, fewer than the 2 that are asked at once" in str(error.value)
    assert "put a phase sft before this one, show an example" in str(error.value)


def recipe(**changes: Any) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    phase = content["phases"][0]
    phase["grpo"] |= {"max_steps": 1, "max_completion_length": 40}
    phase["pass_rates"] = section(problems=12, **changes).model_dump()
    return Recipe.model_validate(content | {"rewards": {"random": 1.0}})


def asked() -> list[Row]:
    system = {"role": "system", "content": read_yaml(ROOT / "tests/pipeline/short.yaml")["prompt"]["system"]}
    return [row | {"messages": [system, *row["messages"]]} for row in training_rows()]


@pytest.mark.slow
def test_training_keeps_the_band_and_another_seed_draws_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from grpo_cot.training.phases import train_phases
    from grpo_cot.training.signal import pass_rates

    monkeypatch.chdir(tmp_path)
    wanted = recipe(low=0.0, high=0.9)  # the tiny base answers few of these problems

    def train(name: str, seed: int, wanted: Recipe = wanted) -> Path:
        return train_phases(wanted, asked(), [], TINY, seed, tmp_path / name, {}) / "01-grpo"

    first = train("first", 1)
    rates = read_json(first / "pass-rates.json")
    assert len(rates) == 12 and set(rates.values()) <= {0, 0.25, 0.5, 0.75, 1} and len(set(rates.values())) > 1
    assert read_json(first / "configuration.json")["rows"] == sum(rate <= 0.9 for rate in rates.values())
    assert "Of 4 completions to each of 12 prompts" in capsys.readouterr().out

    def forbidden(*arguments: Any) -> Any:
        raise AssertionError("drawn again")

    monkeypatch.setattr(pass_rates, "judged_draws", forbidden)
    assert read_json(train("seed", 2) / "pass-rates.json") == rates
    assert read_json(train("band", 1, recipe(low=0.1, high=1.0)) / "pass-rates.json") == rates
    with pytest.raises(AssertionError, match="drawn again"):
        train("count", 1, recipe(low=0.0, high=0.9, count=5))


def test_fewer_drawn_prompts_than_are_asked_at_once_are_refused_before_anything_is_drawn() -> None:
    from grpo_cot.checks.amounts import check_rows

    few = recipe()
    few.phases[0].settings["gradient_accumulation_steps"] = 8  # 8 x 16 completions, groups of 8
    with pytest.raises(
        InputError, match=r"pass_rates.problems is 12, fewer than the 16 prompts that are asked at once"
    ):
        check_rows(few, 1000, "generated")


def test_what_does_not_fit_is_one_sentence() -> None:
    from grpo_cot.checks.rules import check_training_sections

    for changes, says in (
        ({"low": 0.9, "high": 0.1}, "phases.1.pass_rates: low is 0.9, above the 0.1 of high; swap them"),
        ({"order": "easiest_first"}, "order is 'easiest_first', but the trainer shuffles; set grpo.shuffle_dataset"),
    ):
        with pytest.raises(InputError) as error:
            check_training_sections(recipe(**changes), "recipe.yaml")
        assert says in str(error.value)
