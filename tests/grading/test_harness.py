"""Our exact match against lm-evaluation-harness's own task file, filters and metric on the same completions."""

import doctest
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_cot.common.files import read_yaml
from grpo_cot.grading import harness
from grpo_cot.grading.harness import exact_match, flexible_extract, strict_match

OURS = {"strict-match": strict_match, "flexible-extract": flexible_extract}
COMPLETIONS = [
    "", "#### 18", "so 5 #### 18.\n#### 19", "####18", "#### -$1,234.50", "#### ...", "The answer is $1,234.",
    "<reasoning>\n9 * 2 = 18\n</reasoning>\n<answer>\n18\n</answer>", "It costs $18.00 a day.", "18...", "..", "-",
    "--5", "5-3", "$$", "1,2,3", "\uff11\uff18", "-18 or 18.", "Question: 18\n#### 18\nQuestion: 19", "70.000 đồng",
    "1 2 3 18", "a - 5",
]  # fmt: skip
GOLDS = ["18", "-5", "1234", "1234.50", "3", "$", ".", "70.000"]


@pytest.fixture(scope="module")
def task(beside_lm_eval: None) -> dict[str, Any]:
    """The harness's gsm8k task, as it is installed."""
    package = find_spec("lm_eval")
    assert package and package.origin
    return dict(read_yaml(Path(package.origin).parent / "tasks/gsm8k/gsm8k.yaml"))


def theirs(task: dict[str, Any], name: str, completion: str, gold: str) -> bool:
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    (described,) = (entry for entry in task["filter_list"] if entry["name"] == name)
    settings = {key: value for key, value in described["filter"][0].items() if key != "function"}
    ((extracted,),) = RegexFilter(**settings).apply([[completion]], [{}])
    metric = task["metric_list"][0]
    judged = exact_match_hf_evaluate(
        [extracted], [gold], regexes_to_ignore=metric["regexes_to_ignore"], ignore_case=metric["ignore_case"],
        ignore_punctuation=metric["ignore_punctuation"],
    )  # fmt: skip
    return bool(judged["exact_match"])


def test_doctests() -> None:
    assert doctest.testmod(harness).failed == 0


@pytest.mark.parametrize("name", OURS)
def test_awkward_completions_are_judged_as_the_harness_does(task: dict[str, Any], name: str) -> None:
    for completion in COMPLETIONS:
        for gold in GOLDS:
            expected = theirs(task, name, completion, gold)
            assert exact_match(OURS[name](completion), gold) == expected, (completion, gold)


@pytest.mark.parametrize("name", OURS)
@given(completion=st.text(alphabet="0123 -$.,#\nx\u00a0", max_size=40), gold=st.sampled_from(["0", "1", "12", "-3"]))
def test_any_text_is_judged_as_the_harness_does(task: dict[str, Any], name: str, completion: str, gold: str) -> None:
    assert exact_match(OURS[name](completion), gold) == theirs(task, name, completion, gold)


@pytest.mark.parametrize("name", OURS)
def test_gsm8k_is_judged_as_the_harness_does(task: dict[str, Any], name: str, gsm8k_folder: Path) -> None:
    """Each published solution against its own gold and the next problem's, whole as the harness gives it and bare."""
    lines = (gsm8k_folder / "test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    right = 0
    for answer, other in zip(answers, answers[1:] + answers[:1], strict=True):
        for target in (answer, other):
            bare = target.split("#### ")[1].replace(",", "")
            expected = theirs(task, name, answer, target)
            assert exact_match(OURS[name](answer), target) == exact_match(OURS[name](answer), bare) == expected
            right += expected
    assert right >= len(answers)


@pytest.mark.parametrize("unit", ["1", "1 ", ".", "#### ", "#### 1", "-", "a", "$,"])
def test_a_megabyte_takes_no_time(unit: str) -> None:
    started = time.perf_counter()
    for extract in OURS.values():
        exact_match(extract(unit * (1_000_000 // len(unit))), "18")
    assert time.perf_counter() - started < 2
