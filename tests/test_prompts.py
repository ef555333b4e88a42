"""Prompts: what the templates do to them, what is dropped, and what leaks."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import folder_from
from support import ROOT

from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.files import read_json, write_jsonl
from grpo_cot.data.kinds import read_any
from grpo_cot.data.overlap import overlaps, refuse_leaks, refuse_shown
from grpo_cot.data.rows import load
from grpo_cot.data.summary import sentence, summarise
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.problems.generators import split_of
from grpo_cot.prompts import map_rows, map_variants, system_messages, variant_sets
from grpo_cot.recipes.recipe import PromptSection
from grpo_cot.schema import SYSTEM_PROMPT, sections

ROWS = [
    {"id": "a", "question": "What is 2 + 3?", "gold": "5", "locale": "vi", "solution": "2 + 3 = 5"},
    {
        "id": "b",
        "question": "What is " + " + ".join(["1"] * 200) + "?",
        "gold": "200",
        "locale": "en",
        "solution": None,
    },
]


def section(**changes: object) -> PromptSection:
    values = {
        "system": "Think.", "examples": [], "also_with": [], "max_prompt_length": 100, "chat_template_kwargs": {},
        "thinking": "refuse",
    }  # fmt: skip
    values |= changes
    return PromptSection.model_validate(values)


def with_template(template: str):  # type: ignore[no-untyped-def]
    tokenizer = load_tokenizer(ROOT / "assets/tiny/model")
    tokenizer.chat_template = template
    return tokenizer


def test_long_prompts_are_dropped_by_id_and_lengths_include_the_template() -> None:
    tokenizer = load_tokenizer(ROOT / "assets/tiny/model")
    prompts, too_long = map_rows(ROWS, tokenizer, section())
    assert too_long == ["b"]
    assert prompts[0]["messages"] == [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "What is 2 + 3?"},
    ]
    assert {field: prompts[0][field] for field in ("id", "gold", "locale", "solution")} == {
        "id": "a", "gold": "5", "locale": "vi", "solution": "2 + 3 = 5",
    }  # fmt: skip
    rendered = tokenizer.apply_chat_template(
        prompts[0]["messages"], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert prompts[0]["tokens"] == len(rendered["input_ids"])


def shown(count: int) -> list[dict[str, str]]:
    return [{"question": f"1 + {number}?", "completion": f"{number + 1}"} for number in range(1, count + 1)]


def test_few_shot_shows_the_examples_in_their_order_before_the_question() -> None:
    tokenizer = load_tokenizer(ROOT / "assets/tiny/model")
    prompts, _ = map_rows(ROWS[:1], tokenizer, section(examples=shown(2)))
    assert [(message["role"], message["content"]) for message in prompts[0]["messages"]] == [
        ("system", "Think."), ("user", "1 + 1?"), ("assistant", "2"), ("user", "1 + 2?"), ("assistant", "3"),
        ("user", "What is 2 + 3?"),
    ]  # fmt: skip


def test_a_set_is_also_asked_with_its_first_examples_alone_and_the_same_questions() -> None:
    tokenizer = load_tokenizer(ROOT / "assets/tiny/model")
    few = section(examples=shown(2), also_with=[0, 1, "nothing"])
    tight = few.model_copy(update={"max_prompt_length": map_rows(ROWS[:1], tokenizer, few)[0][0]["tokens"]})
    longer = {**ROWS[0], "id": "c", "question": "What is 2 + 3 + 4?"}  # too long after both examples, and not after one
    rows = [ROWS[0], longer]
    prompts, too_long = map_rows(rows, tokenizer, tight)
    variants = map_variants("test", rows, prompts, tokenizer, tight)
    assert too_long == ["c"] and {name: [row["id"] for row in asked] for name, asked in variants.items()} == {
        "test-with-0": ["a"], "test-with-1": ["a"], "test-with-nothing": ["a"],
    }  # fmt: skip
    contents = {name: [turn["content"] for turn in asked[0]["messages"]] for name, asked in variants.items()}
    assert contents == {
        "test-with-0": ["Think.", "What is 2 + 3?"], "test-with-1": ["Think.", "1 + 1?", "2", "What is 2 + 3?"],
        "test-with-nothing": ["What is 2 + 3?"],
    }  # fmt: skip
    assert variants["test-with-0"] == map_rows(ROWS[:1], tokenizer, section())[0]
    facts = summarise(prompts, rows, None, variants)
    assert (facts["prompts"], facts["questions"], facts["too_long"]) == (1, 1, ["c"])
    assert facts["also_asked_as"]["test-with-0"]["max"] < facts["also_asked_as"]["test-with-1"]["max"]
    assert facts["also_asked_as"]["test-with-1"]["max"] < facts["tokens"]["max"]
    assert sentence("test", facts, 99).endswith(", also asked as test-with-0, test-with-1, test-with-nothing")


@pytest.mark.parametrize(
    ("also_with", "says"),
    [
        ([0, 0], "also_with: names one twice"),
        ([2], r"also_with: expected 'nothing' and numbers from 0 on, below the number of examples \(2\), found \[2\]"),
        ([-1], r"below the number of examples \(2\)"),
    ],
)
def test_a_set_is_also_asked_with_fewer_examples_only(also_with: list[int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        validated(PromptSection, section().model_dump() | {"examples": shown(2), "also_with": also_with}, "recipe.yaml")


@pytest.mark.parametrize(("examples", "also_with"), [([], ["nothing"]), (shown(1), [0, "nothing"])])
def test_the_question_alone_is_not_asked_twice(examples: list[Any], also_with: list[Any]) -> None:
    asked = section().model_dump() | {"system": None, "examples": examples, "also_with": also_with}
    with pytest.raises(InputError, match="names the question alone twice"):
        validated(PromptSection, asked, "recipe.yaml")


def test_a_set_of_the_data_set_is_not_written_over_by_one_with_fewer_examples() -> None:
    few = section(examples=shown(2), also_with=[1])
    assert variant_sets(few, ["test", "svamp"]) == {"test-with-1": "test", "svamp-with-1": "svamp"}
    asked = {name: few.questions_of(name) for name in ("test-with-1", "test-with-0", "test")}
    assert asked == {"test-with-1": "test", "test-with-0": "test-with-0", "test": "test"}
    with pytest.raises(InputError, match="a set 'test-with-1' of 'test', but the data set has a set of that name"):
        variant_sets(few, ["test", "test-with-1"])


def test_an_example_that_is_evaluated_on_is_refused_and_one_that_is_trained_on_is_not() -> None:
    splits = questions(train=["Ann has 3 hats."], test=["Bob has 5."])
    refuse_shown(["Ann has 3 hats.", "Bob has 6."], splits)
    with pytest.raises(InputError, match=r"example 2 of prompt.examples is a question of .* 'test' \(test-0\)"):
        refuse_shown(["Ann has 3 hats.", "bob has 5"], splits)


def test_the_default_system_message_of_qwen2_5_is_kept_out(tokenizers_folder: Path) -> None:
    tokenizer = with_template((tokenizers_folder / "chat_templates/qwen2_5.jinja").read_text())
    prompts, _ = map_rows(ROWS[:1], tokenizer, section(system=None))
    assert prompts[0]["messages"][0] == {"role": "system", "content": ""}
    assert "You are Qwen" not in tokenizer.apply_chat_template(prompts[0]["messages"], tokenize=False)


def test_a_template_without_default_gets_no_system_message() -> None:
    assert system_messages(load_tokenizer(ROOT / "assets/tiny/model"), section(system=None)) == []


def test_todays_date_in_the_template_must_be_fixed(tokenizers_folder: Path) -> None:
    tokenizer = with_template((tokenizers_folder / "chat_templates/llama3_2.jinja").read_text())
    with pytest.raises(InputError, match=r"today's date.*date_string"):
        system_messages(tokenizer, section())
    fixed = section(max_prompt_length=1000, chat_template_kwargs={"date_string": "26 Jul 2024"})
    prompts, _ = map_rows(ROWS[:1], tokenizer, fixed)
    text = tokenizer.apply_chat_template(prompts[0]["messages"], tokenize=False, **fixed.chat_template_kwargs)
    assert "Today Date: 26 Jul 2024" in text


def questions(**splits: list[str]) -> dict[str, list[dict[str, str]]]:
    return {
        name: [{"id": f"{name}-{position}", "question": text} for position, text in enumerate(texts)]
        for name, texts in splits.items()
    }


def test_overlap_ignores_case_spacing_and_punctuation() -> None:
    found = overlaps(questions(train=["How many  R's, in total?"], test=["how many rs in total", "how many?"]))
    assert found["test"].also_in_train == ["test-0"] and found["test"].near_train == []


def test_questions_that_differ_only_in_numbers_are_counted_apart() -> None:
    train = ["Ann has 1,200 hats and buys 3. How many?", "Bob has 5."]
    test = ["ann has 7 hats and buys 2.50: how many", "Bob has 5.", "Bob has five."]
    found = overlaps(questions(train=train, test=test))
    assert found["test"].near_train == ["test-0"] and found["test"].also_in_train == ["test-1"]


def test_what_evaluation_sets_share_is_counted_in_both_directions() -> None:
    found = overlaps(questions(train=["0?"], test=["1?", "2?", "3?"], mgsm=["2?", "1?"], other=["9?"]))
    assert found["mgsm"].also_in == {"test": 2} and found["test"].also_in == {"mgsm": 2}
    assert found["other"].also_in == {} and "train" not in found


def prepare(folder: Path, splits: dict[str, list[dict[str, str]]]) -> "subprocess.CompletedProcess[str]":
    """The step itself, on rows given as questions."""
    for name, split in splits.items():
        (folder / "data").mkdir(exist_ok=True)
        write_jsonl(
            folder / f"data/{name}.jsonl", [row | {"gold": "1", "locale": "en", "solution": None} for row in split]
        )
    command = [
        sys.executable, "scripts/prepare.py", "--recipe", "experiments/tiny-grpo.yaml", "--data", str(folder / "data"),
        "--base", "assets/tiny/model", "--output", str(folder / "prompts"),
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_a_training_row_planted_in_an_evaluation_set_stops_the_step(tmp_path: Path) -> None:
    splits = questions(
        train=["Ann has 3 hats.", "Bob has 5."], test=["Cleo has 7."], svamp=["Dan has 9.", "ANN has 3 hats"]
    )
    done = prepare(tmp_path, splits)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "1 questions of the evaluation set 'svamp' are also in the training split (svamp-1 first)" in done.stderr
    assert not (tmp_path / "prompts").exists()


def test_a_validation_row_in_an_evaluation_set_is_refused() -> None:
    found = overlaps(questions(train=["Ann has 3 hats."], validation=["Bob has 5."], test=["Bob has 5!"]))
    with pytest.raises(InputError, match="1 questions of the evaluation set 'test' are also in the validation split"):
        refuse_leaks(found, Path("data/toy"))


@pytest.mark.slow
def test_the_summary_says_of_every_set_what_it_shares_with_the_others(tmp_path: Path) -> None:
    splits = questions(
        train=["Ann has 3 hats.", "Bea has 8.", "ann has 3 hats"],
        validation=["Eve has 2."],
        test=["Bob has 5.", "Ann has 4 hats."],
        mgsm=["Bob has 5."],
    )
    done = prepare(tmp_path, splits)
    assert done.returncode == 0, done.stderr
    summary = read_json(tmp_path / "prompts/summary.json")
    assert {name: facts["also_in"] for name, facts in summary.items()} == {
        "train": {}, "validation": {}, "test": {"mgsm": 1}, "mgsm": {"test": 1},
    }  # fmt: skip
    assert {name: facts["near_train"] for name, facts in summary.items()}["test"] == 1
    assert all(facts["also_in_train"] == 0 and facts["locale"] == "en" for facts in summary.values())
    assert {name: facts["questions"] for name, facts in summary.items()} == {
        "train": 2, "validation": 1, "test": 2, "mgsm": 1,
    }  # fmt: skip
    assert "train: 3 prompts of 2 different questions," in done.stdout
    assert "test: 2 prompts, 0 dropped" in done.stdout and "1 also in mgsm" in done.stdout
    assert (tmp_path / "prompts/eval-validation.jsonl").is_file()


def test_a_training_question_with_two_golds_is_said() -> None:
    rows = [{"id": f"train-{at}", "question": "2 + 2?", "gold": gold, "locale": "en"} for at, gold in enumerate("45")]
    facts = summarise([row | {"tokens": 9} for row in rows], rows, None, {})
    assert (facts["prompts"], facts["questions"], facts["more_than_one_gold"]) == (2, 1, 1)
    assert "2 prompts of 1 different questions" in sentence("train", facts, 99)
    assert "1 questions have more than one gold" in sentence("train", facts, 99)


def test_mgsm_in_english_is_found_wholly_inside_gsm8ks_test(
    gsm8k_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALUATION_DIR", str(folder_from("SHARED_DATA_DIR")))
    splits, record = load(read_any(ROOT / "sources/datasets/gsm8k-suite.yaml")[1], "gsm8k-suite")
    found = overlaps(splits)
    assert found["mgsm-en"].also_in["test"] == record["rows"]["mgsm-en"] == 250
    assert found["polymath-en"].also_in["test"] == 125
    assert found["svamp"].also_in == {}
    assert all(not overlap.also_in_train and "validation" not in overlap.also_in for overlap in found.values())


def test_the_recipes_show_the_prompt_that_the_embedded_base_was_pretrained_with() -> None:
    from grpo_cot.recipes.recipe import load_recipe

    assert load_recipe(ROOT / "experiments/tiny-grpo.yaml").prompt.system == SYSTEM_PROMPT


def test_the_examples_of_the_tiny_recipe_are_right_and_of_the_training_stream_and_leave_every_prompt_whole() -> None:
    from grpo_cot.recipes.recipe import load_recipe

    few = load_recipe(ROOT / "experiments/tiny-shots.yaml").prompt
    splits, _ = load(read_any(ROOT / "sources/datasets/generated.yaml")[1], "generated")
    refuse_shown([example.question for example in few.examples], splits | {"trained": splits["train"]})
    for example in few.examples:
        texts = sections(example.completion)
        assert texts is not None
        steps = [re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", line) for line in texts[0].splitlines()]
        values = [int(step[1]) for step in steps if step] + [int(texts[1])]
        for step, (before, after) in zip(steps, pairwise(values), strict=True):
            assert step and int(step[4]) == after
            operand = int(step[3])
            computed = {"+": before + operand, "-": before - operand, "*": before * operand, "/": before // operand}
            assert computed[step[2]] == after
        structure = str(values[0]) + "".join(step[2] + step[3] for step in steps if step)
        assert split_of(structure) == "train"
    tokenizer = load_tokenizer(ROOT / "assets/tiny/model")
    assert [map_rows(rows, tokenizer, few)[1] for rows in splits.values()] == [[] for _ in splits]
