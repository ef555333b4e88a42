"""A run's report, made from a run folder written by hand: no model is needed."""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import report
from graded import metrics, preference_metrics, text_metrics
from judged import answer, predictions
from support import ROOT

from grpo_cot.common.files import read_json, read_text, write_json, write_jsonl, write_text
from grpo_cot.reporting.figures import accuracy_picture, changed_problems, curves_picture, figure_rows, reward_picture

HOSTILE = "</pre><script>alert(1)</script>"
GRPO_LOG = [
    {
        "step": step, "reward": 0.3 + 0.01 * step, "rewards/correctness/mean": 0.1 + 0.01 * step,
        "rewards/strict_format/mean": 0.2, "completions/mean_length": 40.0 - 0.2 * step,
        "completions/clipped_ratio": 0.05, "frac_reward_zero_std": 0.1, "entropy": 1.0, "grad_norm": 0.4,
    }
    for step in range(1, 41)
]  # fmt: skip
SFT_LOG = [
    *({"step": step, "loss": 3 / step, "mean_token_accuracy": 1 - 1 / step} for step in range(1, 41)),
    *({"step": step, "eval_loss": 3.2 / step} for step in (10, 20, 40)),
]


def prediction(
    identifier: str, before: bool, after: bool, completion: str = "<answer>\n4\n</answer>"
) -> dict[str, Any]:
    row: dict[str, Any] = {"id": identifier, "set": "test", "gold": "4"}
    for model, right in (("base", before), ("trained", after)):
        row[model] = {"completion": completion, "strict_correct": right}
    return row


def write_source(path: Path) -> None:
    """The record of a data set with an evaluation set of others."""
    origin = {
        "kind": "files",
        "id": None,
        "revision": None,
        "licence": {"id": "mit", "name": None},
        "locale": "en",
        "note": None,
        "contains": None,
    }
    write_json(
        path,
        {
            "name": "gsm8k", **origin, "rows": {"train": 2000, "test": 500, "mgsm_en": 250},
            "sets": {
                "test": origin,
                "mgsm_en": {
                    **origin, "licence": {"id": "other", "name": "House terms"}, "contains": "test",
                    "note": "Translated from GSM8K's test split.",
                },
            },
        },
    )  # fmt: skip


def write_later_steps(run: Path) -> None:
    """The files of the steps after training."""
    texts = {"base": HOSTILE, "trained": "<reasoning>\n2 + 2 = 4\n</reasoning>\n<answer>\n4\n</answer>"}
    write_json(
        run / "check.json",
        {
            "sampling": {"temperature": 0.8}, "seed": 3407, "greedy_answers_changed": True,
            "transcripts": [{"question": "What is 2 + 2?", "greedy": texts, "sampled": texts}],
        },
    )  # fmt: skip
    audit = {"broken": {}, "trained_later": [], "groups": 0, "group_size": 0, "base_samples": {}, "warnings": []}
    write_json(run / "audit.json", audit)
    write_json(
        run / "merge.json",
        {
            "base": "dequantized", "dtype": "bfloat16", "parity_holds": True, "prompts": 100, "tokens": 4000,
            "token_agreement": 0.998, "effect": 0.4, "kept": 0.83, "left_over": 0.05, "beyond_rounding": 0.001,
            "loss": "Much",
        },
    )  # fmt: skip
    write_json(run / "published.json", {"folder": "published/sft-grpo", "files": {"a": 1}, "pushed": {}})
    write_json(
        run / "record/train.json",
        {
            "step": "train", "started": "2026-11-21T12:00:00+00:00", "seconds": 61.2, "peak_memory_mib": 900,
            "device": "x86_64", "processor": "AMD EPYC (AVX2)", "host": "desk", "engine": "host", "image": None,
        },
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A graded run of two phases, SFT and then GRPO, on two evaluation sets."""
    run = tmp_path / "runs/sft-grpo"
    figures = metrics(0.2, 0.6)
    elsewhere = metrics(0.1, 0.12, n=250, perplexity=None, sacrebleu=None, pass_at=None, majority_at=None)
    figures["sets"]["mgsm_en"] = elsewhere["sets"]["test"]
    write_json(run / "grade/metrics.json", figures)
    write_jsonl(
        run / "grade/predictions.jsonl",
        [
            prediction("test-0", False, True),
            prediction("test-1", True, False, HOSTILE),
            prediction("test-2", False, False),
        ],
    )
    asked = [{"id": f"test-{at}", "messages": [{"role": "user", "content": f"Q{at} {HOSTILE}"}]} for at in range(3)]
    write_jsonl(run / "prompts/eval-test.jsonl", asked)
    write_jsonl(run / "prompts/eval-mgsm_en.jsonl", asked)
    facts = {
        "tokens": {"mean": 60.5, "max": 99},
        "too_long": [],
        "locale": "en",
        "also_in_train": 0,
        "near_train": 0,
        "also_in": {},
        "also_asked_as": {},
        "more_than_one_gold": 0,
    }
    write_json(
        run / "prompts/summary.json",
        {
            "train": {"prompts": 2000, **facts, "questions": 1990, "more_than_one_gold": 3},
            "test": {"prompts": 500, "questions": 500, **facts, "near_train": 7},
            "mgsm_en": {"prompts": 250, "questions": 250, **facts, "also_in": {"test": 250}},
        },
    )
    write_json(
        run / "train/summary.json", {"verdict": {"01-sft": ["The loss went down."], "02-grpo": ["The reward rose."]}}
    )
    for phase, log in (("01-sft", SFT_LOG), ("02-grpo", GRPO_LOG)):
        write_json(run / f"train/{phase}/log.json", log)
        configuration = {"method": phase[3:], "seed": 3407, "packages": {"torch": "2.13.0"}}
        write_json(run / f"train/{phase}/configuration.json", configuration)
    write_later_steps(run)
    write_source(tmp_path / "source.json")
    return run


def page_of(run: Path, recipe: Path = ROOT / "experiments/tiny-grpo.yaml") -> str:
    output = run / "report.html"
    source = run.parent.parent / "source.json"
    assert report.main(
        Namespace(run=run, name="sft-grpo", recipe=recipe, source=source, output=output)
    ) == f"file://{output.resolve()}"  # fmt: skip
    return output.read_text(encoding="utf-8")


def test_the_page_shows_every_figure_with_its_interval(folder: Path) -> None:
    page = page_of(folder)
    assert "strict accuracy went from\n<b>20.0 %</b> to <b>60.0 %</b>" in page
    assert '3.250 <span class="note">[3.000, 3.500]</span>' in page
    assert '41.50 <span class="note">[40.25, 42.75]</span>' in page
    assert "nrefs:1|tok:13a|version:2.5.1" in page
    for label in ("pass@4", "majority@4", "ROUGE-L F1", "lm-evaluation-harness, flexible extract", "reasoning, tokens"):
        assert label in page
    assert "a true difference of 6.1 points in strict accuracy" in page
    assert "All problems of a set are asked." in page
    assert "<td>x86_64</td><td>AMD EPYC (AVX2)</td><td>desk</td>" in page


def test_every_evaluation_set_has_its_figures_licence_and_warnings(folder: Path) -> None:
    page = page_of(folder)
    other = page[page.index("<h3>mgsm_en: 250 problems</h3>") : page.index("<h2>Training</h2>")]
    assert "not measured" in other and "pass@4" in other  # the base's samples were counted
    data = page[page.index("<h2>Data</h2>") :]
    assert "<td>mit</td>" in data and "House terms" in data and "Translated from GSM8K&#39;s test split." in data
    assert "250 in test" in data and "(7 but for the numbers)" in data
    assert '2000 <span class="note">(1990 different)</span>' in data and "(500 different)" not in data
    assert '<p class="warning">train: 3 questions have more than one gold answer.</p>' in data
    assert "Every problem of mgsm_en is one of test: the two are not independent evidence." in data


def test_a_set_with_fewer_examples_is_shown_as_the_same_problems_and_not_as_data(folder: Path) -> None:
    figures = read_json(folder / "grade/metrics.json")
    figures["sets"]["test-with-0"] = metrics(0.1, 0.4)["sets"]["test"]
    write_json(folder / "grade/metrics.json", figures)
    summary = read_json(folder / "prompts/summary.json")
    summary["test"]["also_asked_as"] = {"test-with-0": {"mean": 40.25, "max": 71}}
    write_json(folder / "prompts/summary.json", summary)
    text = read_text(ROOT / "experiments/tiny-grpo.yaml")
    shown = "examples: [{question: 1 + 1?, completion: '2'}]\n  also_with: [0]"
    recipe = folder / "few.yaml"
    write_text(recipe, re.sub(r"examples: \[\].*\n  also_with: \[\]", shown, text))
    page = page_of(folder, recipe)
    fewer = page[page.index("<h3>test-with-0: 500 problems</h3>") :].split("<h2>")[0]
    assert "The problems of test with fewer worked examples in the prompt: the two are not independent" in fewer
    assert page.count("not independent evidence") == 2  # that set, and the one that is a part of another
    data = page[page.index("<h2>Data</h2>") :]
    assert "<td>test-with-0</td>" not in data and "test-with-0: 40.2 tokens a prompt in the mean, 71 in the" in data


def test_each_phase_shows_what_it_optimises(folder: Path) -> None:
    page = page_of(folder)
    sft, grpo = page[page.index("<h3>01-sft</h3>") : page.index("<h2>Before and after</h2>")].split("<h3>02-grpo</h3>")
    assert "validation split" in sft and "weighted sum" not in sft
    assert "weighted sum" in grpo and "validation split" not in grpo
    assert "sft, then grpo" in page
    assert "learns from no reward" in page


def test_phantom_groups_are_shown_of_the_base_and_of_what_a_later_phase_started_from(folder: Path) -> None:
    def samples(phantom: float) -> dict[str, dict[str, Any]]:
        facts = {"mean": 0.25, "largest": 2.5, "varies": 0.5}
        nothing = {"mean": None, "largest": None, "varies": 0.0}
        return {"correctness": facts, "mine": nothing, "weighted_sum": facts | {"phantom": phantom}}

    base = {"broken": {}, "groups": 16, "group_size": 8, "base_samples": samples(0.4375), "warnings": ["Of the base."]}
    later = {"groups": 24, "group_size": 4, "samples": samples(0.125), "warnings": ["Of the start."]}
    write_json(folder / "audit.json", base)
    write_json(folder / "train/02-grpo/audit.json", later)
    page = page_of(folder)
    rewards = page[page.index("<h2>Rewards before training</h2>") : page.index("<h2>Data</h2>")]
    assert "On the base&#39;s own completions, in 16 groups of 8" in rewards.replace("'", "&#39;")
    assert "In 44 % of groups the weighted sum varies though no completion has the right value" in rewards
    assert "<td>mine</td><td>judges none</td><td>judges none</td><td>0 % of groups</td>" in rewards
    assert "the model that 02-grpo started from, in 24 groups of 4" in rewards
    assert "In 12 % of groups the weighted sum varies" in rewards
    assert "Audit: Of the base." in page and "Audit before 02-grpo: Of the start." in page


def test_what_models_wrote_is_escaped(folder: Path) -> None:
    page = page_of(folder)
    assert "<script>" not in page
    assert page.count("&lt;/pre&gt;&lt;script&gt;alert(1)") >= 4


def test_a_reward_of_ones_own_has_its_curve() -> None:
    log = [{"step": step, "reward": 0.5, "rewards/brevity/mean": 0.1 * step} for step in range(1, 4)]
    with_curve, without = (reward_picture(log, {name: 1.0}) for name in ("my_rewards.brevity", "my_rewards.other"))
    assert with_curve.count("<path") > without.count("<path")


def test_a_reward_that_was_not_logged_is_not_in_the_pictures_legend() -> None:
    log = [{"step": step, "reward": 0.5, "rewards/brevity/mean": 0.5} for step in (1, 2)]
    picture = reward_picture(log, {"brevity": 1.0, "never_logged": 1.0})
    assert "brevity" in picture and "never_logged" not in picture


def test_figures_that_were_not_measured_are_none() -> None:
    rows = {row["label"]: row for row in figure_rows(metrics(0.2, 0.6, perplexity=None, pass_at=None))}
    assert rows["perplexity of the given answers"]["trained"] is None
    assert rows["perplexity of the given answers"]["base"]["value"] == 3.25
    assert rows["pass@4"]["trained"] is None
    assert rows["cut off by the limit"]["trained"] == {"value": 0.02}
    assert rows["strict accuracy"]["difference"]["detectable"] == 0.061


def test_pairs_without_final_answers_have_their_own_figures_and_no_empty_ones() -> None:
    figures = preference_metrics(0.4, 0.9)
    labels = [row["label"] for row in figure_rows(figures)]
    assert "pairs ranked right" in labels and "chosen minus rejected answer (nats)" in labels
    assert not {"strict accuracy", "unread by the lenient reader", "pass@4"} & set(labels)
    assert "pairs ranked right" in accuracy_picture(figures) and "strict" not in accuracy_picture(figures)
    assert "pairs ranked right" not in [row["label"] for row in figure_rows(metrics(0.2, 0.6))]
    without = prediction("a", False, True) | {"gold": None}
    assert changed_problems([without], limit=1) == {"won": [], "lost": [], "still wrong": []}


def test_phantom_groups_have_a_curve() -> None:
    log = [{"step": step, "phantom_advantage": 0.1 * step} for step in (1, 2)]
    assert "share that varies, none right" in curves_picture(log)


def test_a_log_without_known_curves_has_no_picture() -> None:
    assert curves_picture([{"step": 1, "loss": 2.0}]) == ""


def test_changed_problems_are_grouped_by_what_training_did() -> None:
    rows = [
        prediction("a", False, True),
        prediction("b", True, False),
        prediction("c", False, False),
        prediction("d", True, True),
    ]
    groups = changed_problems([*rows, prediction("e", False, True)], limit=1)
    assert {name: [row["id"] for row in found] for name, found in groups.items()} == {
        "won": ["a"], "lost": ["b"], "still wrong": ["c"],
    }  # fmt: skip


def text_run(run: Path, **more: Any) -> Path:
    """The same run, of texts, compared with its first phase, with a reward model that was trained before both."""
    write_json(run / "grade/metrics.json", text_metrics(0.2, 0.6, "01-sft", **more))
    answers = [
        [answer(judged, taken, f" is {judged} {HOSTILE}") for judged, taken in verdicts]
        for verdicts in (
            (("positive", "negative"), ("negative", "negative"), ("positive", "positive"), ("negative", "negative")),
            (("negative", "negative"), ("positive", "negative"), ("positive", "negative"), ("negative", "negative")),
        )
    ]
    write_jsonl(run / "grade/predictions.jsonl", predictions(*answers, "01-sft", **more))
    write_jsonl(
        run / "prompts/eval-test.jsonl",
        [{"id": f"test-{at}", "messages": [{"role": "user", "content": f"The course {HOSTILE}"}]} for at in range(4)],
    )
    write_json(run / "train/reward_model/log.json", SFT_LOG)
    write_json(run / "train/reward_model/configuration.json", {"method": "reward_model", "seed": 1, "packages": {}})
    summary = read_json(run / "train/summary.json")
    write_json(run / "train/summary.json", {"verdict": {"reward_model": ["It learnt."], **summary["verdict"]}})
    return run


def test_a_run_of_texts_shows_the_judges_and_the_reward_models_figures(folder: Path) -> None:
    page = page_of(text_run(folder))
    assert "<title>sft-grpo: 20 % → 60 %</title>" in page
    assert "the share judged negative by the independent judge went from\n<b>20.0 %</b> after 01-sft to <b>60.0 %<" in (
        page
    )
    assert "On 500 held-out texts" in page and "<tr><th></th><th>after 01-sft</th><th>trained</th>" in page
    for label in ("taken for negative by the reward model", "weighted reward of a completion", "distinct-2"):
        assert label in page
    assert '8.25 <span class="note">[8.00, 8.50]</span>' in page  # perplexity under the model on the left
    assert not {"ROUGE", "SacreBLEU", "pass@4", "strict", "unread", "lenient", "reasoning, tokens"} & set(page.split())
    assert "a true difference of 6.1 points in judged negative by the independent judge" in page
    assert "The model after 01-sft is what that phase of the training left" in page
    assert "self-BLEU compares 100 completions with each other" in page
    expected = "log-likelihood minus that of the model after 01-sft is 12.25 nats"
    assert f'{expected} <span class="note">[11.50, 13.00]</span> in the mean' in page
    assert "loaded alike. All texts" in page and "have 100. On its own" in page
    assert "<td>negative</td><td>0.875</td><td>0.812</td><td>0.843</td><td>180</td>" in page
    assert '<td>positive</td><td><span class="missing">none</span></td><td>0.000</td>' in page
    assert "<tr><td>negative</td><td>171</td><td>9</td></tr>" in page
    assert "Its expected calibration error is 0.052" in page
    assert "Of their beginnings alone it takes 12.5 %" in page
    assert 'role="img" aria-label="Reliability: of 30 texts with confidence 0.6 to 0.7 (mean 0.65), 70% are' in page
    assert 'right; of 470 texts with confidence 0.9 to 1.0 (mean 0.95), 100% are right"' in page


def test_texts_stand_side_by_side_with_their_verdicts_and_are_escaped(folder: Path) -> None:
    page = page_of(text_run(folder))
    held_out = page[page.index("<h2>Held-out texts</h2>") : page.index("<h2>Rewards before training</h2>")]
    became, rest = held_out.split("<h3>stopped being negative</h3>")
    stopped, still = rest.split("<h3>still not negative</h3>")
    assert "<h3>became negative</h3>" in became and "(test, test-0, its own text is positive)" in became
    assert '<h4>after 01-sft</h4><pre class="wrong"> is positive' in became and 'class="right"> is negative' in became
    assert "judge: positive; reward model: negative (negative 90 %)" in became
    assert "test-1" in stopped and "test-2" in still and "test-3" not in held_out
    assert "judge: positive; reward model: positive (negative 10 %)" in still
    assert "<script>" not in page and page.count("&lt;script&gt;alert(1)") >= 9


def test_the_reward_models_training_stands_before_the_phases(folder: Path) -> None:
    page = page_of(text_run(folder))
    training = page[page.index("<h2>Training</h2>") : page.index("<h2>Before and after</h2>")]
    assert training.index("<h3>reward_model</h3>") < training.index("It learnt.") < training.index("<h3>01-sft</h3>")
    assert "reward model, then sft, then grpo" in page
    audit = {"broken": {}, "groups": 2, "group_size": 2, "warnings": [], "base_samples": {
        "weighted_sum": {"mean": 0.5, "largest": 1.0, "varies": 0.5, "phantom": None}}}  # fmt: skip
    write_json(folder / "audit.json", audit)
    assert "0.5</td><td>1.0</td><td>50 % of groups" in page_of(folder)  # rows have no answers to be right in


def test_a_run_of_texts_without_a_reward_model_has_no_tables_of_one(folder: Path) -> None:
    page = page_of(text_run(folder, reward_model=False))
    assert "How far the judge can be believed" in page
    assert "How far the reward model can be believed" not in page and "Reliability" not in page
    assert "taken for negative" not in page and "reward model:" not in page


def test_the_pictures_name_what_is_compared() -> None:
    picture = accuracy_picture(text_metrics(0.2, 0.6, "01-sft"))
    assert "after 01-sft" in picture and "base" not in picture
    assert "judged negative by the" in picture and "taken for negative by" in picture
    assert "base" in accuracy_picture(metrics(0.2, 0.6))
    rows = predictions([answer("negative"), answer("positive")], [answer("negative"), answer("negative")])
    assert [row["right"] for row in changed_problems(rows, limit=9)["became negative"]] == [
        {"base": False, "trained": True}
    ]


def test_a_warning_on_the_figures_stands_before_them(folder: Path) -> None:
    file = folder / "grade/metrics.json"
    metrics = read_json(file)
    metrics["warnings"] = ["the reward was hacked: much"]
    write_json(file, metrics)
    page = page_of(folder)
    assert page.count("the reward was hacked: much") == 1
    assert page.index("the reward was hacked: much") < page.index("<svg") < page.index("paired difference</th>")
