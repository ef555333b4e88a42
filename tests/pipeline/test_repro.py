"""The short experiment through the whole pipeline, as a user runs it."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from grpo_cot.common.files import read_yaml
from pipeline.conftest import Project

pytestmark = pytest.mark.slow
STEPS = ("prepare", "audit", "train", "check", "evaluate", "grade", "merge", "publish", "report")


def test_every_step_leaves_what_it_promises(finished: Project) -> None:
    run = finished.folder / "runs/short-a"
    for path in (
        "prompts/train.jsonl", "prompts/eval-test.jsonl", "prompts/summary.json", "audit.json", "train/model.json",
        "train/01-grpo/adapter_model.safetensors", "train/01-grpo/configuration.json", "check.json", "merge.json",
        "eval/completions.jsonl", "grade/predictions.jsonl", "grade/metrics.json", "merged/model.safetensors",
        "published.json", "report.html", *(f"record/{step}.json" for step in STEPS[:-1]),
    ):  # fmt: skip
        assert (run / path).stat().st_size > 0, path
    assert not list(finished.folder.rglob("*.tmp"))
    scratch = [path for step in ("train", "evaluate") for path in (finished.folder / f".cache/{step}").rglob("*")]
    left = [path.name for path in scratch if path.is_file() and path.parent.name != "of-bases"]
    assert set(left) == {"lock"}
    assert len(list((finished.folder / ".cache/evaluate/of-bases").iterdir())) == 1  # both runs have the same base


def test_metrics_keep_their_contract(finished: Project) -> None:
    metrics = json.loads((finished.folder / "runs/short-a/grade/metrics.json").read_text())
    assert metrics["n"] == 20
    for model in ("base", "trained"):
        for share in ("strict_accuracy", "lenient_accuracy", "format_adherence"):
            assert metrics[model][share]["low"] <= metrics[model][share]["value"] <= metrics[model][share]["high"]
        assert {"reasoning_tokens", "truncated"} <= metrics[model].keys()
        assert metrics[model]["perplexity"]["value"] > 1
        assert metrics[model]["sacrebleu"]["signature"].startswith("nrefs:1|")
        assert metrics[model]["pass_at"].keys() == metrics[model]["majority_at"].keys() == {"1", "2"}
    for reader in ("strict_accuracy", "lenient_accuracy"):
        assert metrics["paired"][reader].keys() == {"difference", "low", "high", "p", "detectable"}
    row = json.loads((finished.folder / "runs/short-a/grade/predictions.jsonl").read_text().splitlines()[0])
    assert {"id", "gold", "base", "trained"} <= row.keys()
    assert {"completion", "strict", "lenient", "numeric", "strict_correct", "lenient_correct"} <= row["trained"].keys()


def test_a_second_repro_runs_nothing_and_status_is_clean(finished: Project) -> None:
    assert finished.repro() == []
    assert "up to date" in finished.run("dvc", "status")


def test_metrics_and_plots_can_be_shown(finished: Project) -> None:
    assert "trained.strict_accuracy.value" in finished.run("dvc", "metrics", "show")
    finished.run("dvc", "plots", "show", "runs/short-a/curves")
    page = (finished.folder / "dvc_plots/index.html").read_text()
    assert "frac_reward_zero_std" in page
    shutil.rmtree(finished.folder / "dvc_plots")


def test_the_comparison_is_paired(finished: Project) -> None:
    comparison = json.loads((finished.folder / "comparisons/a-b.json").read_text())
    assert comparison["n"] == 20
    assert comparison["strict_accuracy"].keys() == {"a", "b", "difference", "low", "high", "p", "detectable"}


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.found.append(value)


def test_the_report_is_self_contained_and_shows_the_figures(finished: Project) -> None:
    page = (finished.folder / "runs/short-a/report.html").read_text()
    references = _References()
    references.feed(page)
    assert references.found == []
    assert page.count("<svg") >= 3
    metrics = json.loads((finished.folder / "runs/short-a/grade/metrics.json").read_text())
    assert f"{100 * metrics['trained']['strict_accuracy']['value']:.1f} %" in page
    assert "&lt;answer&gt;" in page and "<answer>" not in page
    graded = read_yaml(finished.folder / "dvc.lock")["stages"]["grade@short-a"]["outs"]
    hashes = [out["md5"] for out in graded if "/grade/" in out["path"]]
    assert len(hashes) == 2 and all(f"<code>{one}</code>, as in dvc.lock" in page for one in hashes)
    assert re.search(r"git checkout [0-9a-f]{40}\n", page) and "Files differed from that commit" not in page


def test_no_output_of_a_computing_step_holds_a_path_of_the_machine(finished: Project) -> None:
    for path in (finished.folder / "runs/short-a").rglob("*"):
        if path.is_file() and "record" not in path.parts and path.name != "report.html":
            assert str(finished.folder).encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        ("batch_size: 20", "batch_size: 10", {"evaluate", "publish", "report"}),  # the card and the report quote it
        ("strict_format: 1.0", "strict_format: 0.5", {"audit", "train", "grade", "publish", "report"}),
        ("How many r's are in strawberry?", "What is 2 + 3?", {"check", "publish", "report"}),
    ],
)
def test_a_changed_setting_makes_stale_the_steps_that_read_it(
    finished: Project, old: str, new: str, steps: set[str]
) -> None:
    """The steps after them follow where an output changes; the kills of test_interruption.py run them."""
    finished.edit("experiments/short.yaml", old, new)
    try:
        stale = json.loads(finished.run("dvc", "status", "--json"))
    finally:
        finished.edit("experiments/short.yaml", new, old)
    assert {stage.split("@")[0] for stage in stale} == steps


def test_the_merged_model_loads_with_plain_transformers_and_answers_like_base_and_adapter(finished: Project) -> None:
    figures = json.loads((finished.folder / "runs/short-a/merge.json").read_text())
    assert figures["parity_holds"] and figures["token_agreement"] >= 0.95 and figures["misplaced"] <= 0.01
    said = finished.run(
        "python", "-c",
        "from transformers import pipeline\n"
        "p = pipeline('text-generation', 'published/short-a/merged', max_new_tokens=5)\n"
        "print(p([{'role': 'user', 'content': 'Ben has 3 cups. Ben buys 4 more. How many cups does Ben have now?'}]))",
    )  # fmt: skip
    assert "assistant" in said


def test_the_published_folder_has_the_hubs_layout_and_a_complete_card(finished: Project) -> None:
    from huggingface_hub import ModelCard

    for part, weights in (("adapter", "adapter_model.safetensors"), ("merged", "model.safetensors")):
        folder = finished.folder / "published/short-a" / part
        assert (folder / weights).is_file()
        card = ModelCard.load(folder / "README.md")
        assert card.data.license == "apache-2.0" and card.data.eval_results
        for text in ("strict accuracy", "lenient accuracy", "learning_rate", "licence", "test: 20 problems, greedy"):
            assert text in card.text
        assert not re.search(r"\{\{|\{%", card.text)
