"""Our figures beside the published ones, and several seeds together, from hand-made metrics."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import index
import pytest
from graded import metrics, preference_metrics, share, text_metrics
from scipy.stats import ttest_1samp
from support import ROOT

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import write_json, write_text
from grpo_cot.params import Run
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.reporting.bands import claim_pictures
from grpo_cot.reporting.index import index_page
from grpo_cot.reporting.tables import (
    Result,
    ablation,
    comparisons_over_seeds,
    over_seeds,
    published_results,
    published_tables,
    replications,
    wrong_by_mark,
)
from grpo_cot.statistics import wilson_interval

HOSTILE = "<script>alert(1)</script>"


def result(
    name: str, base: float, trained: float, recipe: str = "r", seed: int = 1, row: str | None = None, **changed: Any
) -> Result:
    line = Run(recipe=recipe, dataset="generated", base="tiny", image="cpu", seed=seed)
    return Result(name, line, row, None, metrics(base, trained, **changed))


def comparison(a: str, b: str, difference: float) -> dict[str, Any]:
    paired = {"difference": difference, "low": difference - 0.05, "high": difference + 0.05, "p": 0.0312}
    reading = {"a": share(0.5), "b": share(0.5 + difference), **paired}
    readings = {"strict_accuracy": reading, "lenient_accuracy": reading}
    unread = {"a": {"value": 0.25}, "b": {"value": 0.0}}
    return {"a": a, "b": b, "set": "test", "n": 500, **readings, "unread": unread, "warnings": ["may be reading"]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with recipes for two rows of the published tables, a placebo and no run."""
    recipe = (ROOT / "experiments/tiny-grpo.yaml").read_text(encoding="utf-8")
    for name, row in {"tiny-sft": "qwen2.5-3b-sft", "grpo": "qwen2.5-3b-grpo", "placebo": "null"}.items():
        lines = [f"published_row: {row}" if line.startswith("published_row:") else line for line in recipe.splitlines()]
        write_text(tmp_path / f"experiments/{name}.yaml", "\n".join(lines) + "\n")
    for name in ("datasets/generated", "bases/tiny"):
        write_text(tmp_path / f"sources/{name}.yaml", (ROOT / f"sources/{name}.yaml").read_text(encoding="utf-8"))
    return tmp_path


def page_of(project: Path, runs: dict[str, tuple[str, int, dict[str, Any]]], **comparisons: dict[str, Any]) -> str:
    """The index page of these runs: name: (recipe, seed, metrics)."""
    lines = [f"  {name}: {{recipe: {recipe}, dataset: generated, base: tiny, image: cpu, seed: {seed}}}"
             for name, (recipe, seed, _) in runs.items()]  # fmt: skip
    head = "runs:\n" + "\n".join(lines) if lines else "runs: {}"
    write_text(project / "params.yaml", f"{head}\ndatasets: [generated]\nbases: {{tiny: cpu}}\ncomparisons: {{}}\n")
    for name, (_, _, figures) in runs.items():
        write_json(project / f"runs/{name}/grade/metrics.json", figures)
        write_text(project / f"runs/{name}/report.html", "")
    for name, content in comparisons.items():
        write_json(project / f"comparisons/{name}.json", content)
    index.main(project)
    return (project / "reports/index.html").read_text(encoding="utf-8")


def test_published_intervals_are_wilsons_and_every_figure_has_its_faults() -> None:
    published = published_results()
    assert list(published["rows"]) == [
        "mt5-small", "encoder-decoder-scratch", "gpt2-medium", "decoder-only-scratch", "qwen2.5-3b-sft",
        "qwen2.5-3b-grpo",
    ]  # fmt: skip
    for row in published["rows"].values():
        exact = row["figures"]["strict_accuracy"]
        computed = wilson_interval(round(100 * exact["value"]), published["n"])
        assert (exact["low"], exact["high"]) == pytest.approx((computed.low, computed.high), abs=1e-6)
    texts = wrong_by_mark(published)
    for table in published_tables([], published):
        for row in table["rows"]:
            for column, cell in zip(table["columns"], row["published"], strict=True):
                said = " ".join(texts[mark] for mark in cell["marks"]) if cell else ""
                assert (cell is None) == (column == "lenient_accuracy")
                assert cell is None or "first 100 rows" in said
                assert ("minus signs and decimal points" in said) == (column == "strict_accuracy")
                assert ("only the first sentence" in said) == (column == "sacrebleu")
                assert ("selected on the test set" in said) == (row["model"].startswith("Qwen") and cell is not None)
                assert ("N/A" in said) == (cell is not None and cell["figure"] is None)


def test_ours_stand_beside_the_published_figures(project: Path) -> None:
    page = page_of(project, {"sft-1": ("tiny-sft", 1, metrics(0.2, 0.613))})
    start = page.index("Qwen 2.5-3B (Instruction + CoT, QLoRA)")
    ours, published = page[start : page.index("Qwen 2.5-3B (GRPO, QLoRA)")].split('<tr class="published">')
    assert '<span class="tag ours">ours</span>' in ours and "sft-1" in ours
    assert "generated, set test, n = 500, seed 1" in ours and "other problems than published" in ours
    assert '3.25 <span class="note">[3.00, 3.50]</span>' in ours
    assert '0.613 <span class="note">[0.573, 0.653]</span>' in ours
    assert '<span class="tag published">published</span>' in published
    assert "1.7495" in published and "21.1412" in published
    assert '0.470 <span class="note">[0.375, 0.567]</span>' in published
    assert "not comparable with the published ones" in page
    assert "scored only the first sentence" in page


def test_only_a_run_on_the_published_data_set_is_not_marked(project: Path) -> None:
    tag = '<span class="tag">other problems than published</span>'
    runs = {"sft-1": ("tiny-sft", 1, metrics(0.2, 0.6))}
    origin = {"name": "generated", "id": None, "sets": {"test": {"id": "hllj/vi_gsm8k"}, "svamp": {"id": None}}}
    write_json(project / "data/generated.source.json", origin)
    assert tag not in page_of(project, runs)
    write_json(project / "data/generated.source.json", {**origin, "sets": {"test": {"id": "openai/gsm8k"}}})
    assert page_of(project, runs).count(tag) == 2  # in both tables


def test_rows_without_a_run_and_missing_figures_say_so(project: Path) -> None:
    page = page_of(project, {"sft-1": ("tiny-sft", 1, metrics(0.2, 0.6, perplexity=None))})
    row = page[page.index("mT5-small") : page.index("Encoder–Decoder (scratch)")]
    assert "no run yet" in row and "3.9578" in row
    ours = page[page.index("Qwen 2.5-3B (Instruction") :].split('<tr class="published">')[0]
    assert ours.count("not measured") == 1
    grpo = page[page.index("Qwen 2.5-3B (GRPO, QLoRA)") :]
    assert "N/A" in grpo.split('<tr class="published">')[1].split("</td>")[1]


def test_other_runs_are_listed_below_the_six_rows(project: Path) -> None:
    runs = {"placebo-1": ("placebo", 1, metrics(0.2, 0.21)), "sft-1": ("tiny-sft", 1, metrics(0.2, 0.6))}
    page = page_of(project, runs)
    assert page.index("Runs: base and trained") < page.index("Beside the published tables")
    table = page[page.index("Table I:") : page.index("Table II:")]
    assert table.index("no row of the published tables") < table.index("placebo-1")
    assert table.count("placebo-1</a>") == 1


def test_runs_on_pairs_without_final_answers_have_their_own_figures_over_seeds_too(project: Path) -> None:
    pairs = {"a": "dpo-1", "b": "dpo-2", "set": "test", "n": 490, "unread": None, "warnings": [],
             "pair_accuracy": comparison("", "", 0.3)["strict_accuracy"] | {"n": 490}}  # fmt: skip
    runs = {f"dpo-{seed}": ("placebo", seed, preference_metrics(0.4, 0.8 + 0.05 * seed)) for seed in (1, 2)}
    page = page_of(project, runs, both=pairs)
    assert page.count("n = 490 pairs") == 3 and "81.0 %" in page
    assert "strict accuracy" not in page and "unread</div>" not in page
    seeds = page[page.index("The same recipe with several seeds") : page.index("<h2>Comparisons</h2>")]
    assert "<td>pairs ranked right</td>" in seeds and "+47.5 points" in seeds
    results = index.graded_runs(project)
    lines = list(index.summary(results, index.read_comparisons(project)))
    assert lines[0].startswith("dpo-1: pairs ranked right 40.0% -> 85.0%")
    assert lines[-1].startswith("both: pairs ranked right of dpo-2 minus dpo-1: ")
    mixed = page_of(project, runs | {"placebo-1": ("placebo", 3, metrics(0.2, 0.6))}, both=pairs)
    assert "20.0 %" in mixed and "n = 490 pairs" in mixed


def test_runs_of_texts_stand_in_the_index_over_seeds_and_in_the_last_lines(project: Path) -> None:
    figures = {f"ppo-{seed}": text_metrics(0.2, 0.55 + 0.05 * seed, "01-sft") for seed in (1, 2)}
    figures["ppo-1"]["warnings"] = ["the reward was hacked: much"]
    judged = {"a": "ppo-1", "b": "ppo-2", "set": "test", "n": 500, "unread": None, "warnings": [], "wanted": "negative",
              "wanted_share": comparison("", "", 0.05)["strict_accuracy"]}  # fmt: skip
    page = page_of(project, {name: ("placebo", int(name[-1]), entry) for name, entry in figures.items()}, both=judged)
    label = "judged negative by the independent judge"
    table = page[: page.index("<h2>Comparisons</h2>")]
    assert page.count(f"<td>{label}</td>") == 2 + 1 + 1  # two runs, the seeds together, the comparison
    assert "taken for negative by the reward model" in table and '<div class="note">after 01-sft</div>' in table
    assert '<div class="warning">the reward was hacked: much</div>' in table and "Table I" not in page
    assert "+42.5 points" in table[table.index("several seeds") :]
    lines = list(index.summary(index.graded_runs(project), index.read_comparisons(project)))
    assert lines[0].startswith(f"ppo-1: {label} 20.0% (after 01-sft) -> 60.0%, difference +40.0 points")
    assert lines[1].startswith("ppo-1: taken for negative by the reward model 30.0% (after 01-sft) -> 70.0%")
    assert lines[2] == "ppo-1: WARNING: the reward was hacked: much"
    assert lines[-1].startswith(f"both: {label} of ppo-2 minus ppo-1: +5.0 points")


def test_a_run_that_has_no_page_yet_is_named_without_a_link(project: Path) -> None:
    runs = {"placebo-1": ("placebo", 1, metrics(0.2, 0.21))}
    link = '<a href="../runs/placebo-1/report.html">placebo-1</a>'
    assert page_of(project, runs).count(link) == 1
    (project / "runs/placebo-1/report.html").unlink()
    index.main(project)
    page = (project / "reports/index.html").read_text(encoding="utf-8")
    assert "placebo-1" in page and "../runs/placebo-1" not in page


def test_experiments_stand_beside_the_checkout_with_what_they_changed() -> None:
    tried = comparison("", "", 0.05) | {
        "name": "two", "run": "sft-1", "settings": ["experiments/tiny-sft.yaml:rewards.correctness: 1 → 2"]
    }  # fmt: skip
    page = index_page([], [], [], [], [tried])
    table = page[page.index('id="experiments"') :]
    assert "two" in table and "run sft-1<br>experiments/tiny-sft.yaml:rewards.correctness: 1 → 2" in table
    assert "+5.0 points" in table
    assert "experiments" not in index_page([], [], [], [])


def test_only_accuracies_that_all_seeds_have_are_put_together() -> None:
    results = [
        Result(f"t{seed}", Run(recipe="r", dataset="d", base="b", image="cpu", seed=seed), None, None, figures)
        for seed, figures in enumerate([text_metrics(0.2, 0.6), text_metrics(0.2, 0.5, reward_model=False)], start=1)
    ]
    (group,) = replications(results)
    assert list(group["figures"]) == ["wanted_share"]
    assert group["figures"]["wanted_share"]["difference"]["value"] == pytest.approx(0.35)


def test_without_any_run_the_page_says_how_to_get_one(project: Path) -> None:
    assert "No run has been graded yet" in page_of(project, {})


def test_without_a_run_that_has_a_row_there_are_no_published_tables(project: Path) -> None:
    page = page_of(project, {"placebo-1": ("placebo", 1, metrics(0.2, 0.21))})
    assert "placebo-1" in page and "Table I" not in page


def test_an_unknown_published_row_is_refused() -> None:
    with pytest.raises(InputError, match="run one: its recipe's published_row is 'mt5', expected null or one of"):
        published_tables([result("one", 0.1, 0.2, row="mt5")], published_results())


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_name_published_rows_that_exist(path: Path) -> None:
    assert load_recipe(path).published_row in {None, *published_results()["rows"]}


def test_over_seeds_is_the_t_interval() -> None:
    values = [0.4, 0.34, 0.42]
    test = ttest_1samp(values, 0)
    found = over_seeds(values)
    assert found["value"] == pytest.approx(sum(values) / 3)
    assert (found["low"], found["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found["p"] == pytest.approx(test.pvalue)
    assert over_seeds([0.2, 0.2]) == {"value": 0.2, "low": None, "high": None, "p": None}


def test_replications_are_runs_that_differ_in_their_seed_alone() -> None:
    results = [
        result("a1", 0.2, 0.6, seed=1), result("a2", 0.2, 0.54, seed=2), result("a3", 0.2, 0.62, seed=3),
        result("b1", 0.2, 0.3, recipe="other"),
        Result("gone", None, None, None, metrics(0.2, 0.9)),
    ]  # fmt: skip
    (group,) = replications(results)
    assert (group["recipe"], group["seeds"], group["n"]) == ("r", [1, 2, 3], [500])
    figures = group["figures"]
    assert figures["strict_accuracy"]["difference"] == over_seeds([0.6 - 0.2, 0.54 - 0.2, 0.62 - 0.2])
    assert figures["lenient_accuracy"]["trained"]["value"] == pytest.approx((0.65 + 0.59 + 0.67) / 3)
    assert figures["strict_accuracy"]["base"]["p"] is None
    assert [figure["label"] for figure in figures.values()] == ["strict accuracy", "lenient accuracy"]


def test_comparisons_over_seeds_show_the_placebos_own_difference() -> None:
    results = [
        result(f"{recipe}{seed}", 0.2, trained, recipe=recipe, seed=seed)
        for recipe, figures in {"placebo": (0.19, 0.22, 0.21), "right": (0.6, 0.54, 0.62)}.items()
        for seed, trained in enumerate(figures, start=1)
    ]
    differences = [0.41, 0.32, 0.41]
    comparisons = [
        comparison(f"placebo{seed}", f"right{seed}", difference) for seed, difference in enumerate(differences, 1)
    ]
    again = comparison("placebo1", "right2", 0.35)  # its runs are in the group already
    alone = comparison("right1", "placebo1", -0.41)
    (group,) = comparisons_over_seeds([*comparisons, again, alone], results)
    assert (group["a"], group["b"], group["seeds"]) == ("placebo", "right", ["1", "2", "3"])
    strict = group["figures"]["strict_accuracy"]
    assert strict["b_minus_a"] == over_seeds(differences)
    assert strict["a"] == over_seeds([0.19 - 0.2, 0.22 - 0.2, 0.21 - 0.2])
    assert strict["b"]["low"] > 0 > strict["a"]["low"]


def test_the_page_shows_seeds_together_and_single_comparisons(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {
        f"{recipe}-{seed}": (recipe, seed, metrics(0.2, trained))
        for recipe, figures in {"placebo": (0.19, 0.22), "grpo": (0.6, 0.54)}.items()
        for seed, trained in enumerate(figures, start=1)
    }
    page = page_of(
        project, runs, one=comparison("placebo-1", "grpo-1", 0.41), two=comparison("placebo-2", "grpo-2", 0.32)
    )
    assert "The same recipe with several seeds" in page and "The same comparison with several seeds" in page
    assert "+37.0 points" in page  # the mean over both seeds of grpo minus its base
    assert "+41.0 points" in page and "p = 0.031" in page
    said = capsys.readouterr().out
    assert "grpo-1: strict accuracy 20.0% -> 60.0%" in said
    assert "one: strict accuracy of grpo-1 minus placebo-1: +41.0 points" in said
    assert "4 runs, 2 comparisons: file://" in said


def test_text_of_others_is_escaped(project: Path) -> None:
    hostile = {**metrics(0.2, 0.6), "set": HOSTILE}
    page = page_of(project, {"sft-1": ("tiny-sft", 1, hostile)}, one=comparison(HOSTILE, "sft-1", 0.1))
    assert HOSTILE not in page and "&lt;script&gt;" in page


def test_the_page_is_made_without_torch_or_matplotlib(project: Path) -> None:
    code = "import index, sys; print(sorted({'torch', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    path = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'workflow'}"}
    said = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


CLAIM = {
    "question": "Does the penalty hurt?", "published": f"Over-penalisation harms {HOSTILE}", "log": "0.34 against 0.45",
    "measure": "strict_accuracy", "sentence": "It costs 4.0 points.", "outcome": "holds", "recipes": ("a", "b"),
    "figure": {"value": -0.04, "low": -0.06, "high": -0.02, "seeds": [1, 2, 3]},
}  # fmt: skip
NOT_RUN = {**CLAIM, "outcome": "not run", "sentence": "No run decides this yet.", "figure": None, "recipes": ()}


def test_claims_stand_first_with_the_published_claim_and_log_beside_our_measurement() -> None:
    page = index_page([], [], [], [CLAIM, NOT_RUN])
    first = page[page.index("<main") : page.index("own curves</h2>")]
    assert '<span class="tag holds">holds</span> <b>Does the penalty hurt?</b> It costs 4.0 points.' in first
    assert '<span class="tag not-run">not run</span>' in first and HOSTILE not in page
    assert '<td class="wide">0.34 against 0.45</td>' in first
    assert 'aria-label="Difference: -4.0 points [-6.0, -2.0]"' in first
    assert first.count("<svg") == 1


def test_claims_of_one_unit_have_one_scale_and_no_interval_is_said() -> None:
    tokens = {**CLAIM, "measure": "completion_tokens", "figure": {"value": -20.0, "low": None, "high": None}}
    wide = {**CLAIM, "figure": {"value": 0.1, "low": -0.2, "high": 0.4}}
    first, second, third, none = claim_pictures([CLAIM, wide, tokens, NOT_RUN])
    assert "Difference: -20.0 tokens, no interval" in third and none is None
    scales = [re.findall(r">([^<]+)</text>", svg) for svg in (first, second, claim_pictures([CLAIM])[0])]
    assert scales[0] == scales[1] != scales[2] and "points" in scales[0]


def test_without_a_run_that_decides_one_there_are_no_claims_and_no_published_curves() -> None:
    assert 'aria-label="Published: completion length' in index_page([], [], [], [CLAIM])
    without = index_page([], [], [], [NOT_RUN])
    assert "Does the penalty hurt?" not in without and "length study" not in without and "<svg" not in without


def test_a_comparison_has_the_format_and_the_length_too(project: Path) -> None:
    more = comparison("a", "b", 0.1)
    more["format_adherence"] = {**more["strict_accuracy"], "difference": 0.25}
    more["completion_tokens"] = {"a": 40.0, "b": 31.5, "difference": -8.5, "low": -9.5, "high": -7.5, "p": 0.0001}
    page = page_of(project, {}, one=more)
    table = page[page.index("<h2>Comparisons</h2>") :]
    assert 'rowspan="4"' in table and "<td>format adherence</td>" in table and "+25.0 points" in table
    assert '<td>40.0</td><td>31.5</td><td>-8.5 <span class="note">[-9.5, -7.5]</span>' in table
    alike = {**more["completion_tokens"], "difference": 0.0, "low": None, "high": None, "p": None}
    assert "<td>+0.0</td>" in page_of(project, {}, one={**more, "completion_tokens": alike})


def test_recipes_stand_side_by_side_with_t_intervals_over_seeds() -> None:
    results = [
        *(result(f"grpo{seed}", 0.2, trained, "grpo", seed) for seed, trained in enumerate((0.6, 0.54, 0.63), 1)),
        *(result(f"placebo{seed}", 0.2, 0.25, "placebo", seed, format_adherence=share(0.4)) for seed in (1, 2)),
        result(
            "alone", 0.2, 0.7, "alone", completion_tokens={"value": 61.5, "low": 60.0, "high": 63.0},
            sound_accuracy=share(0.55), pass_at={"1": share(0.6), "8": share(0.85)},
        ),
    ]  # fmt: skip
    (table,) = ablation(results)
    assert (table["dataset"], table["base"]) == ("generated", "tiny")
    assert [(row["recipe"], row["seeds"]) for row in table["rows"]] == [
        ("alone", [1]), ("grpo", [1, 2, 3]), ("placebo", [1, 2]),
    ]  # fmt: skip
    alone, grpo, placebo = (row["figures"] for row in table["rows"])
    assert grpo["strict_accuracy"]["trained"] == over_seeds([0.6, 0.54, 0.63])
    assert grpo["strict_accuracy"]["base"]["value"] == 0.2
    assert placebo["format_adherence"]["trained"]["value"] == 0.4
    assert alone["completion_tokens"]["trained"] == {"value": 61.5, "low": None, "high": None, "p": None}
    assert alone["sound_accuracy"]["trained"]["value"] == 0.55 and alone["pass_at.8"]["trained"]["value"] == 0.85
    assert grpo["sound_accuracy"]["trained"] is grpo["pass_at.8"]["trained"] is None
    page = index_page(results, [], [], [])
    assert "85.0 %" in page and "not measured" in page
    assert '61.5<div class="note">base 44.0</div>' in page and "Recipes side by side" in page
    assert "Recipes side by side" not in index_page(results[:3], [], [], [])
    assert ablation([*results[:3], Result("texts", results[3].line, None, None, preference_metrics(0.2, 0.6))]) == []


def test_the_words_at_the_head_of_a_recipe_stand_beside_its_name(project: Path) -> None:
    recipe = project / "experiments/placebo.yaml"
    settings = "\n".join(line for line in recipe.read_text().splitlines() if not line.startswith("#"))
    write_text(recipe, f"# Pays `random` < 1,\n# whatever is said.\n{settings}\n# no more\n")
    page = page_of(project, {"a": ("placebo", 1, metrics(0.2, 0.21)), "b": ("grpo", 1, metrics(0.2, 0.6))})
    assert '">placebo<div class="note">Pays random &lt; 1, whatever is said.</div></th>' in page


def test_seeds_have_their_curves_on_the_page(project: Path) -> None:
    for seed in (1, 2):
        log = [{"step": step, "reward": 0.1 * step + seed} for step in (1, 2, 3)]
        write_json(project / f"runs/grpo-{seed}/train/01-grpo/log.json", log)
    page = page_of(project, {f"grpo-{seed}": ("grpo", seed, metrics(0.2, 0.5)) for seed in (1, 2)})
    assert "<h3>01-grpo: weighted reward</h3>" in page and "<figcaption>grpo, 2 seeds</figcaption>" in page
