"""Templates that open the reasoning or a thought, and models that think: what is judged, learnt from and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import folder_from
from support import ROOT, training_rows

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml, write_json, write_jsonl
from grpo_cot.grading.lenient import lenient_answer
from grpo_cot.models.opening import Opening, opened, opening
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import PromptSection, Recipe
from grpo_cot.rewards.ours import length_cosine_of
from grpo_cot.rewards.promise import promise_of
from grpo_cot.rewards.registry import REWARDS
from grpo_cot.schema import SYSTEM_PROMPT, sections, strict_answer, worked

TINY = ROOT / "assets/tiny/model"
ASSISTANT = "'<|im_start|>assistant\\n'"
REASONING, THOUGHT, THOUGHT_CLOSED = "<reasoning>\\n", "<think>\\n", "<think>\\n\\n</think>\\n\\n"
WORKED = worked("2 + 3 = 5", "5")
AFTER_REASONING = WORKED.removeprefix("<reasoning>\n")
ROWS = [{"id": "a", "question": "What is 2 + 3?", "gold": "5", "locale": "en", "solution": "2 + 3 = 5"}]


def base_with(folder: Path, ending: str) -> Path:
    """The embedded base with a chat template whose prompts end so."""
    base = folder / "base"
    shutil.copytree(TINY, base)
    template = (base / "chat_template.jinja").read_text()
    assert template.count(ASSISTANT) == 1
    (base / "chat_template.jinja").write_text(template.replace(ASSISTANT, f"{ASSISTANT[:-1]}{ending}'"))
    return base


def prompt_section(**changes: Any) -> PromptSection:
    values = {
        "system": SYSTEM_PROMPT, "examples": [], "also_with": [], "max_prompt_length": 256, "chat_template_kwargs": {},
        "thinking": "refuse",
    }  # fmt: skip
    return PromptSection.model_validate(values | changes)


def recipe(thinking: str = "refuse", **sections: Any) -> Recipe:
    content = read_yaml(ROOT / "tests/pipeline/short.yaml")
    content["prompt"]["thinking"] = thinking
    content["quantization"] = None
    return Recipe.model_validate(content | sections)


def grpo_recipe(rewards: dict[str, float], thinking: str = "refuse") -> Recipe:
    phase = read_yaml(ROOT / "tests/pipeline/short.yaml")["phases"][0]
    phase["grpo"] |= {"max_steps": 1, "save_steps": 100, "max_completion_length": 64}
    return recipe(thinking, rewards=rewards, phases=[phase])


def asked_rows() -> list[dict[str, Any]]:
    """Rows with the schema's system prompt, which the embedded base has learnt to follow."""
    system = {"role": "system", "content": SYSTEM_PROMPT}
    return [row | {"messages": [system, *row["messages"]]} for row in training_rows()]


def paid(name: str, completion: Any, begun: Opening) -> float:
    from grpo_cot.training.methods.grpo import judging

    [amount] = judging(REWARDS[name], begun)(prompts=[""], completions=[completion], gold=["5"], locale=["en"])
    return float(amount or 0.0)


def test_a_right_completion_after_an_opened_reasoning_is_right_for_readers_and_rewards(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(base_with(tmp_path, REASONING))
    begun = opening(tokenizer, [{"role": "user", "content": "What is 2 + 3?"}], prompt_section())
    assert strict_answer(AFTER_REASONING) is None
    assert strict_answer(begun.judged(AFTER_REASONING)) == "5"
    for name, amount in {
        "strict_format": 0.5,
        "soft_format": 0.5,
        "xml_count": 0.5,
        "correctness_in_schema": 2,
    }.items():
        for completion in (AFTER_REASONING, [{"role": "assistant", "content": AFTER_REASONING}]):
            assert paid(name, completion, begun) == amount, name
    # A model that writes the tag again, as the system prompt asks, opens its reasoning once.
    assert paid("soft_format", WORKED, begun) == 0.5


def test_a_reward_keeps_its_name_and_promise_and_is_itself_where_nothing_is_opened() -> None:
    from grpo_cot.training.methods.grpo import judging

    for name, reward in REWARDS.items():
        wrapped = judging(reward, Opening("<reasoning>\n", strips=False))
        assert wrapped is not reward
        assert (wrapped.__name__, promise_of(wrapped)) == (name, promise_of(reward))
        assert judging(reward, Opening("", strips=False)) is reward


@pytest.mark.parametrize(
    ("ending", "written"),
    [
        (THOUGHT, f"Adding.\n</think>\n\n{WORKED}"),
        (THOUGHT, f"<think>Adding.</think>{WORKED}"),  # opened twice
        ("", f"\n<think>\nAdding.\n</think>\n\n{WORKED}"),
        (THOUGHT_CLOSED, WORKED),
        (THOUGHT_CLOSED, f"<think>Adding.</think>{WORKED}"),
        (REASONING, f"<think>\nAdding.\n</think>\n\n{AFTER_REASONING}"),
    ],
)
def test_a_thought_is_stripped_whoever_opened_it(tmp_path: Path, ending: str, written: str) -> None:
    tokenizer = load_tokenizer(base_with(tmp_path, ending))
    begun = opening(tokenizer, [{"role": "user", "content": "What is 2 + 3?"}], prompt_section(thinking="strip"))
    assert begun.parts(written) == ("Adding." if "Adding" in written else None, WORKED)
    assert paid("strict_format", [{"role": "assistant", "content": written}], begun) == 0.5
    assert paid("correctness_in_schema", written, begun) == 2


@pytest.mark.parametrize(("text", "written"), [("<think>\n", WORKED), ("", f"<think>{WORKED}")])
def test_an_answer_in_a_thought_that_never_ends_is_none(text: str, written: str) -> None:
    begun = Opening(text, strips=True)
    thought, judged = begun.parts(written)
    assert thought == WORKED
    assert strict_answer(judged) is None and lenient_answer(judged) is None
    assert paid("correctness", written, begun) == 0


def test_prepare_refuses_a_template_that_opens_a_thought_unless_the_recipe_strips_them(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(base_with(tmp_path, THOUGHT))
    with pytest.raises(InputError, match=r"opens <think>.*prompt.thinking: strip.*enable_thinking: false"):
        map_rows(ROWS, tokenizer, prompt_section())
    assert len(map_rows(ROWS, tokenizer, prompt_section(thinking="strip"))[0]) == 1
    tokenizer.chat_template = tokenizer.chat_template.replace(THOUGHT, THOUGHT_CLOSED)
    assert len(map_rows(ROWS, tokenizer, prompt_section())[0]) == 1


def test_thoughts_whose_end_is_not_in_the_text_cannot_be_stripped(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(base_with(tmp_path, THOUGHT))
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    with pytest.raises(InputError, match=r"</think> is a special token of this tokenizer"):
        map_rows(ROWS, tokenizer, prompt_section(thinking="strip"))


def test_qwen3_opens_nothing_with_thinking_on_or_off() -> None:
    tokenizer = load_tokenizer(TINY)
    tokenizer.chat_template = (folder_from("TOKENIZERS_DIR") / "chat_templates/qwen3.jinja").read_text()
    for given in ({}, {"enable_thinking": False}):
        prompts, _ = map_rows(ROWS, tokenizer, prompt_section(chat_template_kwargs=given, max_prompt_length=1000))
        assert opening(tokenizer, prompts[0]["messages"], prompt_section(chat_template_kwargs=given)).text == ""


@pytest.mark.parametrize("ending", ["", REASONING, "<reasoning>", "<reasoning>\\n\\n"])
def test_a_target_goes_on_where_the_prompt_ends(tmp_path: Path, ending: str) -> None:
    from grpo_cot.training.examples import completion_dataset, encoder_decoder_dataset, worked_solutions

    tokenizer = load_tokenizer(base_with(tmp_path, ending))
    prompts, _ = map_rows(ROWS, tokenizer, prompt_section(system="Think."))
    rows = worked_solutions(prompts, opening(tokenizer, prompts[0]["messages"], prompt_section()))
    [row] = completion_dataset(rows, tokenizer, {}, 512)
    whole = tokenizer.decode(row["input_ids"])
    assert whole.count("<reasoning>") == 1
    assert sections(whole.rpartition("assistant\n")[2].removesuffix(tokenizer.eos_token)) == ("2 + 3 = 5", "5")
    [pair] = encoder_decoder_dataset(rows, tokenizer, {})
    assert tokenizer.decode(pair["input_ids"] + pair["labels"]) == whole


def test_a_target_ends_the_thought_that_the_prompt_opens(tmp_path: Path) -> None:
    from grpo_cot.training.examples import completion_dataset, worked_solutions

    section = prompt_section(thinking="strip")
    tokenizer = load_tokenizer(base_with(tmp_path, THOUGHT))
    prompts, _ = map_rows(ROWS, tokenizer, section)
    rows = worked_solutions(prompts, opening(tokenizer, prompts[0]["messages"], section))
    [row] = completion_dataset(rows, tokenizer, {}, 512)
    assert tokenizer.decode(row["input_ids"]).endswith(f"<think>\n</think>\n\n{WORKED}{tokenizer.eos_token}")


def test_an_example_stands_whole_in_the_prompt_with_one_tag(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(base_with(tmp_path, REASONING))
    section = prompt_section(system=None, examples=[{"question": "1 + 4?", "completion": WORKED}])
    prompts, _ = map_rows(ROWS, tokenizer, section)
    text = tokenizer.apply_chat_template(prompts[0]["messages"], tokenize=False, add_generation_prompt=True)
    assert text.count("<reasoning>") == 2 and f"assistant\n{WORKED}<|im_end|>" in text
    assert opened(text) == "<reasoning>\n"


@pytest.mark.slow
def test_own_samples_are_judged_with_the_opening_and_learnt_from_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpo_cot.models.generation import Completion
    from grpo_cot.recipes.phases import OwnSamplesSection
    from grpo_cot.training import examples

    tokenizer = load_tokenizer(base_with(tmp_path, REASONING))
    prompts, _ = map_rows(ROWS, tokenizer, prompt_section())
    wrong = AFTER_REASONING.replace("\n5\n", "\n6\n")
    drawn = [Completion(text, 9, truncated=False) for text in (AFTER_REASONING, wrong)]
    monkeypatch.setattr(examples, "generate", lambda *arguments, **settings: drawn)
    section = OwnSamplesSection.model_validate({"problems": 1, "count": 2, "batch_size": 2, "sampling": {}})
    [row] = examples.own_completions(None, tokenizer, prompts, section, prompt_section(), 0)  # type: ignore[arg-type]
    assert (row["right"], row["wrong"]) == ([AFTER_REASONING], [wrong])


@pytest.mark.slow
def test_the_audit_hears_a_base_whose_template_opens_the_reasoning(tmp_path: Path) -> None:
    from grpo_cot.checks.audit import base_samples

    wanted = grpo_recipe({"soft_format": 1.0, "correctness_in_schema": 1.0})
    found = base_samples(wanted, wanted.phases[0], asked_rows()[:4], base_with(tmp_path, REASONING), 1)  # type: ignore[arg-type]
    assert found["soft_format"]["mean"] > 0.1
    assert found["weighted_sum"]["varies"] > 0


@pytest.mark.slow
def test_the_audit_refuses_a_base_that_thinks_unless_the_recipe_strips_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.checks.audit import base_samples
    from grpo_cot.models.generation import Completion
    from grpo_cot.rewards import sampling

    texts = [f"<think>Adding.</think>{WORKED}", *[WORKED] * 7]
    drawn = [Completion(text, 9, truncated=False) for text in texts]
    monkeypatch.setattr(sampling, "generate", lambda *arguments, **settings: drawn)
    rows = [row | {"gold": "5"} for row in asked_rows()[:1]]
    rewards = {"correctness_in_schema": 1.0, "published_length_cosine": 0.0}
    stripping, refusing = (grpo_recipe(rewards, thinking) for thinking in ("strip", "refuse"))
    with pytest.raises(InputError, match=r"1 of the model's 8 samples begin with <think>.*prompt.thinking: strip"):
        base_samples(refusing, refusing.phases[0], rows, TINY, 1)  # type: ignore[arg-type]
    found = base_samples(stripping, stripping.phases[0], rows, TINY, 1)  # type: ignore[arg-type]
    assert found["weighted_sum"]["mean"] == 2
    assert found["published_length_cosine"]["mean"] == pytest.approx(cosine_of_worked(), rel=1e-9)


def cosine_of_worked() -> float:
    """What the length study's reward pays for WORKED where it is right."""
    tokens = load_tokenizer(TINY)(WORKED.partition("<answer>")[0], add_special_tokens=False)["input_ids"]
    return length_cosine_of(len(tokens), most=64)  # grpo_recipe's max_completion_length


def rewards_logged(wanted: Recipe, base: Path, scratch: Path, **fields: Any) -> dict[str, float]:
    from grpo_cot.training.phases import train_phases

    result = train_phases(wanted, [row | fields for row in asked_rows()], [], base, 1, scratch, {})
    [entry] = [step for step in json.loads((result / "01-grpo/log.json").read_text()) if "reward" in step]
    return {name: entry[f"rewards/{name}/mean"] for name in wanted.rewards}


@pytest.mark.slow
def test_grpo_pays_what_was_opened_and_written(tmp_path: Path) -> None:
    wanted = grpo_recipe({"soft_format": 1.0, "strict_format": 0.0, "correctness_in_schema": 1.0})
    logged = rewards_logged(wanted, base_with(tmp_path, REASONING), tmp_path / "scratch")
    assert all(amount > 0 for amount in logged.values()), logged


@pytest.mark.slow
@pytest.mark.parametrize("parsed", [False, True], ids=["plain", "parsed"])
def test_grpo_pays_a_thinking_model_for_what_follows_its_thought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed: bool
) -> None:
    """Also where the base's tokenizer brings a parser of responses, which would take the thought out before us."""
    from trl import GRPOTrainer
    from trl.chat_template_utils import qwen3_template

    base = base_with(tmp_path, THOUGHT)
    if parsed:
        configuration = json.loads((base / "tokenizer_config.json").read_text())
        write_json(base / "tokenizer_config.json", configuration | {"response_template": qwen3_template})
    texts = [f"Adding.\n</think>\n\n{WORKED}<|im_end|>", "Adding.<|im_end|>"]
    completions = load_tokenizer(base)(texts)["input_ids"]

    def drawn(trainer: Any, prompt_ids: Any, *arguments: Any) -> Any:
        return [completions[number % 2] for number in range(len(prompt_ids))], None

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", drawn)
    rewards = {"soft_format": 1.0, "published_length_cosine": 0.0}
    logged = rewards_logged(grpo_recipe(rewards, "strip"), base, tmp_path / "scratch", gold="5")
    assert logged == {"soft_format": 0.25, "published_length_cosine": pytest.approx(cosine_of_worked() / 2, rel=1e-5)}


def evaluation(tmp_path: Path, base: Path, thinking: str = "refuse") -> tuple[list[dict[str, Any]], Recipe, Path]:
    """Rows of completions.jsonl of a base that is its own trained model, on four problems."""
    from grpo_cot.evaluation.asking import answer_sets

    sampling = {"do_sample": False, "max_new_tokens": 64, "stop_strings": ["</answer>"]}
    wanted = recipe(
        thinking,
        evaluate={
            "sets": ["test"], "before": None, "sample": None, "seed": 0, "engine": "transformers", "batch_size": 8,
            "sampling": sampling,
            "samples": {"problems": 1, "count": 2, "sampling": sampling | {"do_sample": True, "temperature": 0.5}},
        },
    )  # fmt: skip
    description = {
        "kind": "full", "architecture": "causal", "path": ".", "base": str(base), "quantization": None,
        "model": wanted.model.model_dump(),
    }  # fmt: skip
    model_json = base / "model.json"
    write_json(model_json, description)
    (tmp_path / "prompts").mkdir()
    write_jsonl(tmp_path / "prompts/eval-test.jsonl", asked_rows()[:4])
    with answer_sets(wanted, "recipe", tmp_path / "prompts", model_json, tmp_path / "evaluation") as rows:
        return rows, wanted, model_json


@pytest.mark.slow
def test_evaluation_keeps_the_whole_text_and_measures_the_rest_of_the_solution(tmp_path: Path) -> None:
    from grpo_cot.recipes.recipe import CheckSection
    from grpo_cot.transcripts import transcribe

    base = base_with(tmp_path, REASONING)
    rows, wanted, model_json = evaluation(tmp_path, base)
    tokenizer = load_tokenizer(base)
    for row, problem in zip(rows, asked_rows(), strict=False):
        for model in ("base", "trained"):
            completion = row[model]["completion"]
            assert completion.startswith("<reasoning>\n") and completion.endswith("</answer>")
            assert strict_answer(completion) is not None
            assert row[model]["reasoning_tokens"] is not None and row[model]["thought"] is None
            target = worked(problem["solution"], problem["gold"]).removeprefix("<reasoning>\n")
            assert row[model]["gold_tokens"] == len(tokenizer(target)["input_ids"]) + 1
    assert all(sections(text) for text in rows[0]["trained"]["samples"])
    section = CheckSection(questions=["Ben has 12 apples. Ben gives away 5. How many?"], sampling={"max_new_tokens": 4})
    [transcript] = transcribe(model_json, wanted.prompt, section, 0)
    assert transcript["greedy"]["trained"].startswith("<reasoning>\n")


@pytest.mark.slow
def test_evaluation_keeps_thoughts_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo_cot.evaluation import asking
    from grpo_cot.models.generation import Completion

    def drawn(model: Any, tokenizer: Any, prompts: list[Any], *arguments: Any, **settings: Any) -> list[Completion]:
        ended = Completion(f"Adding.\n</think>\n\n{WORKED}", 40, truncated=False)
        return [ended, *[Completion(WORKED, 30, truncated=True)] * (len(prompts) - 1)]

    monkeypatch.setattr(asking, "generate", drawn)
    base = base_with(tmp_path, THOUGHT)
    rows, _, _ = evaluation(tmp_path, base, "strip")
    facts = [tuple(row["base"][field] for field in ("thought", "completion", "tokens", "samples")) for row in rows[:2]]
    assert facts == [("Adding.", WORKED, 40, [WORKED, ""]), (WORKED, "", 30, None)]
    tokenizer, problem = load_tokenizer(base), asked_rows()[0]
    target = f"</think>\n\n{worked(problem['solution'], problem['gold'])}"
    assert rows[0]["base"]["gold_tokens"] == len(tokenizer(target)["input_ids"]) + 1
