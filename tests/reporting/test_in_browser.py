"""The pages in a real Chromium: on a desk and on a phone, light and dark, with hostile text, without scripts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import index
import pytest
from chromium import Chromium, program
from graded import metrics, share
from run_folder import GRPO_LOG, HOSTILES, page_of, prediction, with_lengths, write_problems, write_run
from support import ROOT

from grpo_cot.common.files import read_json, write_json, write_text

pytestmark = pytest.mark.slow
AXE = ROOT / ".venv/axe/axe_playwright_python/axe.min.js"
# The rules that axe-core has: of WCAG 2 and of good practice.
RULES = """axe.run(document, {resultTypes: ["violations"]}).then(found => JSON.stringify(found.violations.map(
    rule => [rule.id, rule.help, rule.nodes.length, rule.nodes.slice(0, 3).map(node => node.html.slice(0, 300))])))"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
VERDICTS = {"won": (False, True), "lost": (True, False), "wrong": (False, False), "right": (True, True)}
CLAIMS = [
    {
        "question": f"Does it hold, {outcome}?", "published": "Over-penalisation harms.", "log": "0.34 against 0.45",
        "measure": "strict_accuracy", "sentence": "It costs 4.0 points [2.0, 6.0], p = 0.003.", "outcome": outcome,
        "figure": None if outcome == "not run" else {"value": -0.04, "low": -0.06, "high": -0.02, "seeds": [1, 2]},
    }
    for outcome in ("holds", "contradicted", "undecided", "not run")
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if not program():
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    chromium = Chromium(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


def long_report(folder: Path) -> Path:
    """The report of 500 problems with completions as long as a real model's, some of them hostile."""
    run = write_run(folder / "runs/sft-grpo")
    text = "<reasoning>\n" + "Each of the 4 boxes holds 12 apples, so 4 * 12 = 48.\n" * 40 + "</reasoning>\n"
    rows = []
    for at in range(500):
        completion = f"{HOSTILES[at % len(HOSTILES)]}\n{text}<answer>\n{at}\n</answer>"
        change = list(VERDICTS.values())[at % 4]
        rows.append(
            prediction(f"test-{at}", *change, completion, difficulty=1 + at % 4, set=("test", "mgsm_en")[at % 2])
        )
    rows[0]["trained"]["numeric"] = None
    write_problems(run, rows)
    file = run / "grade/metrics.json"
    figures = read_json(file)
    figures["trained"]["pass_at"] = {str(k): share(0.4 + 0.1 * k) for k in (1, 2, 4)}
    write_json(file, with_lengths({**figures, "warnings": ["the lenient difference may be one of reading: much"]}))
    page_of(run)
    return run / "report.html"


def long_index(folder: Path) -> Path:
    """The page over 40 runs: eight recipes with five seeds, comparisons, claims, and published tables."""
    recipe = (ROOT / "experiments/tiny-grpo.yaml").read_text(encoding="utf-8")
    lines, comparisons = [], {}
    for number in range(8):
        row = "qwen2.5-3b-grpo" if number == 0 else "null"
        text = [f"published_row: {row}" if line.startswith("published_row:") else line for line in recipe.splitlines()]
        write_text(folder / f"experiments/recipe-{number}.yaml", "\n".join(text) + "\n")
        for seed in range(1, 6):
            name = f"recipe-{number}-{seed}"
            lines.append(
                f"  {name}: {{recipe: recipe-{number}, dataset: generated, base: tiny, image: cpu, seed: {seed}}}"
            )
            write_json(folder / f"runs/{name}/grade/metrics.json", metrics(0.2, 0.4 + 0.02 * number + 0.01 * seed))
            log = [{**entry, "reward": entry["reward"] + 0.05 * seed} for entry in GRPO_LOG]
            write_json(folder / f"runs/{name}/train/01-grpo/log.json", log)
            comparisons[f"c{number}-{seed}"] = {"a": f"recipe-0-{seed}", "b": name}
    for name in ("datasets/generated", "bases/tiny"):
        write_text(folder / f"sources/{name}.yaml", (ROOT / f"sources/{name}.yaml").read_text(encoding="utf-8"))
    head = "runs:\n" + "\n".join(lines)
    write_text(folder / "params.yaml", f"{head}\ndatasets: [generated]\nbases: {{tiny: cpu}}\ncomparisons: {{}}\n")
    paired = {"difference": 0.02, "low": -0.03, "high": 0.07, "p": 0.0312, "a": share(0.4), "b": share(0.42)}
    for name, sides in comparisons.items():
        measured = {"strict_accuracy": paired, "lenient_accuracy": paired, "warnings": [HOSTILES[1]]}
        unread = {"a": {"value": 0.25}, "b": {"value": 0.0}}
        content = {**sides, "set": "test", "n": 500, **measured, "unread": unread}
        write_json(folder / f"comparisons/{name}.json", content)
    results, compared = index.graded_runs(folder), index.read_comparisons(folder)
    page = folder / "reports/index.html"
    trials = [{**one, "name": HOSTILES[0], "run": "recipe-0-1", "settings": HOSTILES} for one in compared[:3]]
    write_text(page, index.index_page(results, compared, index.bands(folder, results), CLAIMS, trials))
    return page


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {"report": long_report(folder / "one"), "index": long_index(folder / "all")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["report", "index"])
def test_a_page_is_quiet_fits_and_asks_for_nothing(
    browser: Chromium, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    browser.open(pages[name], width, scheme)
    assert browser.problems(pages[name]) == []
    assert browser.ask(OVERFLOW) == 0 and browser.ask("innerWidth") == width
    background = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["report", "index"])
def test_axe_finds_nothing(browser: Chromium, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    browser.open(pages[name], width, scheme)
    browser.ask("for (const part of document.querySelectorAll('details')) part.open = true")
    assert axe(browser) == []


@pytest.mark.parametrize("name", ["report", "index"])
def test_a_page_is_small_and_painted_within_a_second(browser: Chromium, pages: dict[str, Path], name: str) -> None:
    assert pages[name].stat().st_size < 5_000_000
    painted = []
    for _ in range(3):
        browser.open(pages[name], 1440, "light")
        browser.problems(pages[name])
        painted.append(browser.ask("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    assert min(painted) < 1000  # milliseconds


def visible(browser: Chromium) -> list[dict[str, Any]]:
    """The problems that are shown."""
    return list(
        browser.ask("""[...document.querySelectorAll(".problem")].filter(one => one.offsetHeight > 0).map(
        one => ({...one.dataset, name: one.querySelector("h3").textContent}))""")
    )


def choose(browser: Chromium, name: str, value: str) -> None:
    browser.ask(f"""(() => {{ const control = document.getElementById("filter").elements[{json.dumps(name)}];
        control.value = {json.dumps(value)}; control.dispatchEvent(new Event("input", {{bubbles: true}})); }})()""")


def test_problems_can_be_filtered_and_searched(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.open(pages["report"], 1440, "light")
    assert [problem["change"] for problem in visible(browser)] == ["lost"] * 10
    assert "10 of 500 matching problems" in browser.ask("document.getElementById('found').textContent")
    choose(browser, "change", "won")
    choose(browser, "difficulty", "1")
    assert {(problem["change"], problem["difficulty"]) for problem in visible(browser)} == {("won", "1")}
    choose(browser, "set", "mgsm_en")
    assert visible(browser) == []  # every won problem is of the other set
    choose(browser, "set", "")
    browser.ask("document.getElementById('more').click()")
    assert len(visible(browser)) == 20 and browser.ask("document.activeElement.className") == "problem"
    choose(browser, "words", "\n196\n APPLES")
    assert [problem["name"].split()[-1] for problem in visible(browser)] == ["test-196"]
    browser.ask("document.querySelector('button[type=reset]').click()")
    browser.ask("new Promise(done => setTimeout(done, 20))")
    choose(browser, "change", "unread")
    assert [problem["unread"] for problem in visible(browser)] == ["trained"]
    browser.ask("document.querySelector('a[data-change=lost]').click()")
    browser.ask("new Promise(done => setTimeout(done, 20))")
    assert {problem["change"] for problem in visible(browser)} == {"lost"} and len(visible(browser)) == 10


def test_without_scripts_the_first_problems_of_each_change_are_shown(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.open(pages["report"], 1440, "light", scripts=False)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)  # to be asked
    assert [problem["change"] for problem in visible(browser)] == [
        change for change in ("lost", "won", "wrong", "right") for _ in range(3)
    ]
    assert browser.ask("document.getElementById('filter').offsetHeight") == 0
    assert "The first 12 are shown" in browser.ask("document.getElementById('found').textContent")


def test_the_keyboard_sees_where_it_is_and_skips_the_head(browser: Chromium, pages: dict[str, Path]) -> None:
    for page in pages.values():
        browser.open(page, 1440, "light")
        key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, **key)
        assert browser.ask("document.activeElement.className") == "skip"
        assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert browser.ask("document.activeElement.getBoundingClientRect().left") >= 0


def test_hostile_text_is_shown_as_it_was_written(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.open(pages["report"], 1440, "light")
    texts = browser.ask("[...document.querySelectorAll('.problem pre')].map(one => one.textContent)")
    for text in HOSTILES:
        assert any(one.startswith(text) for one in texts), text
    assert browser.ask("document.querySelectorAll('img, script').length") == 1


def axe(browser: Chromium) -> list[Any]:
    """The rules that the page breaks."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed here: `make test` installs it")
    browser.ask(AXE.read_text(encoding="utf-8") + "\n;0")
    return list(json.loads(browser.ask(RULES)))


FAULTY = """<!DOCTYPE html><html><head><title>faults</title></head><body><main><h1>faults</h1>
<div style="width: 3000px">wide</div><p style="color: #999; background: #fff">pale</p><svg role="img"></svg>
<img src="elsewhere.png"><script>console.error("loud"); notThere();</script></main></body></html>"""


def test_the_checks_see_what_they_look_for(browser: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "faulty.html"
    page.write_text(FAULTY, encoding="utf-8")
    browser.open(page, 1440, "light")
    found = "\n".join(browser.problems(page))
    assert "loud" in found and "notThere is not defined" in found and "elsewhere.png" in found
    assert browser.ask(OVERFLOW) > 1000
    assert {"color-contrast", "svg-img-alt", "html-has-lang", "image-alt"} <= {rule[0] for rule in axe(browser)}


def test_text_that_slipped_through_unescaped_would_neither_run_nor_load(
    browser: Chromium, pages: dict[str, Path], tmp_path: Path
) -> None:
    planted = """<script>document.title = "run"</script><img src="elsewhere.png" onerror="document.title = 'run'">"""
    page = tmp_path / "planted.html"
    page.write_text(pages["report"].read_text(encoding="utf-8").replace("<main>", f"<main>{planted}"), encoding="utf-8")
    browser.open(page, 1440, "light")
    found = browser.problems(page)
    assert any("Content Security Policy" in problem for problem in found)
    asked = [event["params"] for event in browser.events if event["method"] == "Network.loadingFailed"]
    assert [request["blockedReason"] for request in asked] == ["csp"]
    assert browser.ask("document.title").startswith("sft-grpo") and len(visible(browser)) == 10
