"""A run's report, made from a run folder written by hand: no model is needed."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from graded import metrics, preference_metrics, share, text_metrics
from judged import answer, predictions
from run_folder import GRPO_LOG, HOSTILE, SFT_LOG, page_of, with_lengths, write_phase, write_problems, write_run
from support import ROOT

from grpo_cot.common.files import read_json, read_text, write_json, write_text
from grpo_cot.reporting.figures import (
    accuracy_picture,
    curve_pictures,
    difficulty_pictures,
    figure_rows,
    length_picture,
    pass_picture,
    reward_picture,
    reward_rows,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs/sft-grpo")


def test_the_page_shows_every_figure_with_its_interval(folder: Path) -> None:
    page = page_of(folder)
    assert "raised strict accuracy from 20.0 % to 60.0 % on 500 held-out problems: +40.0 points [+35.0, +45.0]" in page
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
    assert "The problems of test asked in another way (fewer worked examples, or the question alone): the two" in fewer
    assert page.count("not independent evidence") == 2  # that set, and the one that is a part of another
    data = page[page.index("<h2>Data</h2>") :]
    assert "<td>test-with-0</td>" not in data and "test-with-0: 40.2 tokens a prompt in the mean, 71 in the" in data


def test_each_phase_shows_what_it_optimises(folder: Path) -> None:
    page = page_of(folder)
    sft, grpo = page[page.index("<h3>01-sft</h3>") : page.index("<h2>Before and after</h2>")].split("<h3>02-grpo</h3>")
    assert "validation split" in sft and "weighted sum" not in sft
    assert "weighted sum" in grpo and "loss on the validation split" not in grpo.lower()
    assert "On the validation split: strict accuracy, step 0: 20.0 % [10.0, 30.0]" in grpo and "% of 100" in grpo
    assert "1 (50 problems): 20.0 % [10.0, 30.0] at step 0, 60.0 % [50.0, 70.0] at last" in grpo
    assert "sft, then grpo" in page
    assert "learns from no reward" in page


def test_prompts_are_shown_by_pass_rate_where_a_band_of_them_was_kept(folder: Path) -> None:
    recipe = folder / "kept.yaml"
    section = (
        "pass_rates: {problems: 400, count: 4, batch_size: 64, low: 0.1, high: 0.9, order: null,\n"
        "      sampling: {do_sample: true, max_new_tokens: 72}}\n    grpo:"
    )
    write_text(recipe, read_text(ROOT / "experiments/tiny-sft-grpo.yaml").replace("grpo:  ", f"{section}  ", 1))
    write_json(folder / "train/02-grpo/pass-rates.json", {"a": 0.0, "b": 0.25, "c": 0.25, "d": 1.0})
    page = page_of(folder, recipe)
    assert "Prompts by pass rate, kept from 0.1 to 0.9. 0: 1; 0.25: 2; 1: 1." in page


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
    assert '<th scope="row">mine</th><td>judges none</td><td>judges none</td><td>0 % of groups</td>' in rewards
    assert "the model that 02-grpo started from, in 24 groups of 4" in rewards
    assert "In 12 % of groups the weighted sum varies" in rewards
    assert "Audit: Of the base." in page and "Audit before 02-grpo: Of the start." in page


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


def test_phantom_groups_have_a_curve() -> None:
    log = [{"step": step, "phantom_advantage": 0.1 * step} for step in (1, 2)]
    assert "share that varies, none right" in "".join(label + svg for label, svg in curve_pictures(log))


def test_a_log_without_known_curves_has_no_picture() -> None:
    assert curve_pictures([{"step": 1, "loss": 2.0}]) == []


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
    write_problems(run, predictions(*answers, "01-sft", **more), f"The course {HOSTILE}")
    write_phase(run, "reward_model", SFT_LOG)
    summary = read_json(run / "train/summary.json")
    write_json(run / "train/summary.json", {"verdict": {"reward_model": ["It learnt."], **summary["verdict"]}})
    return run


def test_a_run_of_texts_shows_the_judges_and_the_reward_models_figures(folder: Path) -> None:
    page = page_of(text_run(folder))
    assert "<title>sft-grpo: 20 % → 60 %</title>" in page
    assert (
        "raised the share judged negative by the independent judge from 20.0 % to 60.0 % on 500 held-out texts" in page
    )
    assert "evaluated on 500 held-out texts" in page and '>after 01-sft</th><th scope="col">trained</th>' in page
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
    assert '<th scope="row">negative</th><td>0.875</td><td>0.812</td><td>0.843</td><td>180</td>' in page
    assert '<th scope="row">positive</th><td><span class="missing">none</span></td><td>0.000</td>' in page
    assert '<tr><th scope="row">negative</th><td>171</td><td>9</td></tr>' in page
    assert "Its expected calibration error is 0.052" in page
    assert "Of their beginnings alone it takes 12.5 %" in page
    assert 'role="img" aria-label="Reliability: of 30 texts with confidence 0.6 to 0.7 (mean 0.65), 70% are' in page
    assert 'right; of 470 texts with confidence 0.9 to 1.0 (mean 0.95), 100% are right"' in page


def test_texts_stand_side_by_side_with_their_verdicts_and_are_escaped(folder: Path) -> None:
    page = page_of(text_run(folder))
    held_out = page[page.index("<h2>Held-out texts</h2>") : page.index("<h2>Data</h2>")]
    worse, better, still, same = held_out.split("<article")[1:]
    assert ">stopped being negative</span> test, test-1" in worse and ">became negative</span> test, test-0" in better
    assert ">still not negative</span> test, test-2" in still and ">still negative</span> test, test-3" in same
    assert "its own text is positive" in better
    assert '<h4>after 01-sft: wrong</h4>\n<pre class="wrong"> is positive' in better
    assert '<h4>trained: right</h4>\n<pre class="right"> is negative' in better
    assert "judge: positive; reward model: negative (negative 90 %)" in better
    assert "judge: positive; reward model: positive (negative 10 %)" in still
    assert "<script>alert" not in page and page.count("&lt;script&gt;alert(1)") >= 12


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


def test_a_warning_on_the_figures_stands_before_them(folder: Path) -> None:
    file = folder / "grade/metrics.json"
    metrics = read_json(file)
    metrics["warnings"] = ["the reward was hacked: much"]
    write_json(file, metrics)
    page = page_of(folder)
    assert page.count("the reward was hacked: much") == 1
    assert page.index("the reward was hacked: much") < page.index("paired difference</th>") < page.index("<svg")


def test_the_first_screen_says_what_became_of_which_problems(folder: Path) -> None:
    page = page_of(folder)
    first = page[page.index("<main>") : page.index("<h2>All figures</h2>")]
    assert '<span class="tag gained">gained</span> Training raised strict accuracy' in first
    assert "Lenient accuracy rose as well: +40.0 points" in first
    assert 'data-change="lost">1 got worse</a> and <a href="#problems" data-change="won">1 got better</a>' in first
    lost = metrics(0.6, 0.2)
    write_json(folder / "grade/metrics.json", lost)
    assert '<span class="tag lost">lost</span> Training lowered strict accuracy' in page_of(folder)
    unshown = metrics(0.3, 0.32)
    write_json(folder / "grade/metrics.json", unshown)
    assert '<span class="tag no-difference-shown">no difference shown</span> No difference' in page_of(folder)


def test_length_and_difficulty_have_their_part_where_rows_have_a_difficulty(folder: Path) -> None:
    assert "Length and accuracy</h2>" not in page_of(folder)
    write_json(folder / "grade/metrics.json", with_lengths(metrics(0.2, 0.6)))
    page = page_of(folder)
    part = page[page.index("<h2>Length and accuracy</h2>") : page.index("Reward by reward")]
    assert "Before training, of a right and a wrong completion the right one is longer in 31.0 % [27.0, 35.0]" in part
    assert part.count("Among problems of one difficulty no relation of length and correctness is shown.") == 2
    assert part.count("<svg") == 3


def test_pictures_of_difficulty_and_length_say_their_figures() -> None:
    figures = with_lengths(metrics(0.2, 0.6))
    accuracy, tokens = (svg for _, svg in difficulty_pictures(figures["by_difficulty"], "base"))
    assert (
        "trained, difficulty 4 (100 problems): 50.0" in accuracy
        and "base, difficulty 1 (100 problems): 25.0" in accuracy
    )
    assert "trained, difficulty 4 (100 problems): 47.0" in tokens
    relation = figures["length_and_accuracy"] | {"base": {"pooled": None, "within": None}}
    picture = length_picture(relation, "base")
    assert "base, all problems: not measured" in picture
    assert "trained, one difficulty: 49.0 % [44.0, 54.0] of 14000 pairs" in picture


def test_samples_have_a_picture_where_they_were_drawn() -> None:
    assert pass_picture(metrics(0.2, 0.6, pass_at=None, majority_at=None)) is None
    picture = pass_picture(metrics(0.2, 0.6, pass_at={"1": share(0.4), "2": share(0.55)}))
    assert picture and "pass@2, trained: 55.0 % [51.0, 59.0]" in picture and "majority@4, base: 50.0 %" in picture


def test_each_reward_has_its_course_from_the_first_tenth_to_the_last() -> None:
    (row,) = reward_rows(GRPO_LOG, {"correctness": 1.0, "never_logged": 0.0})
    assert (row["name"], row["weight"]) == ("correctness", 1.0)
    assert (row["start"], row["end"]) == pytest.approx((0.125, 0.485))  # steps 1 to 4, and 37 to 40
    assert "correctness: 0.11 at step 1, 0.5 at step 40" in row["curve"]


def test_the_page_says_how_to_make_it_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part() -> str:
        page = page_of(folder)
        return page[page.index("Reproduce this page") : page.index("What ran on what")]

    monkeypatch.delenv("GRPO_COT_COMMIT", raising=False)
    assert "<pre>git checkout" not in part() and "does not know the commit" in part()
    monkeypatch.setenv("GRPO_COT_COMMIT", "abc123")
    assert "git checkout abc123\n" in part() and "differed" not in part()
    monkeypatch.setenv("GRPO_COT_COMMIT", "abc123+")
    assert "git checkout abc123\n" in part() and "Files differed from that commit" in part()
    expected = hashlib.md5((folder / "grade/predictions.jsonl").read_bytes()).hexdigest()
    assert f"<code>{expected}</code>, as in dvc.lock" in part() and "dvc repro report@sft-grpo" in part()


def test_pass_at_k_stands_beside_the_accuracies_with_its_paired_test(folder: Path) -> None:
    figures = read_json(folder / "grade/metrics.json")
    assert "drawn answers is right" not in page_of(folder)
    drawn = {"k": 8, "n": 100, "base": share(0.6), "trained": share(0.9), "difference": 0.3, "low": 0.2, "high": 0.4}
    write_json(folder / "grade/metrics.json", figures | {"paired_samples": {**drawn, "p": 0.0001}})
    first = page_of(folder).split('id="figures"')[0]
    assert "one of 8 drawn answers is right (pass@8, n = 100)" in first and "+30.0 points" in first
    write_json(folder / "grade/metrics.json", figures | {"paired_samples": {**drawn, "p": None}})
    assert "+30.0 points for every problem" in page_of(folder)
