"""The problems that a page holds: their order, how many, and that texts of models and users are nothing but text."""

import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from judged import answer, predictions
from run_folder import HOSTILES, page_of, prediction, write_problems, write_run

from grpo_cot.common.files import read_json, write_json
from grpo_cot.reporting.transcripts import FIRST, LONGEST, Transcripts, transcripts

VERDICTS = {"won": (False, True), "lost": (True, False), "wrong": (False, False), "right": (True, True)}


def shown(rows: list[dict[str, Any]], **more: Any) -> Transcripts:
    return transcripts(rows, {(row["set"], row["id"]): f"Q {row['id']}" for row in rows}, **more)


def test_problems_that_got_worse_come_first_and_keep_their_order() -> None:
    rows = [prediction(f"{change}-{at}", *right) for at in range(5) for change, right in VERDICTS.items()]
    found = shown(rows)
    assert [row["id"] for row in found.rows] == [
        f"{change}-{at}" for change in ("lost", "won", "wrong", "right") for at in range(5)
    ]
    assert found.counts == {"lost": 5, "won": 5, "wrong": 5, "right": 5, "unread": 0}
    assert found.total == 20 and found.names["lost"] == "right to wrong"
    assert [row["id"] for row in found.rows if row["first"]] == [
        f"{change}-{at}" for change in ("lost", "won", "wrong", "right") for at in range(FIRST)
    ]


def test_unread_problems_and_difficulties_can_be_found() -> None:
    unread = prediction("a", True, False, difficulty=3, set="other")
    unread["trained"]["numeric"] = None
    found = shown([unread, prediction("b", True, False, difficulty=1), prediction("c", True, False)])
    assert [row["unread"] for row in found.rows] == [["trained"], [], []]
    assert found.counts["unread"] == 1 and found.difficulties == [1, 3] and found.sets == ["other", "test"]


def test_a_page_holds_what_fits_and_long_completions_are_cut() -> None:
    rows = [prediction(f"right-{at}", True, True, "x" * 9000) for at in range(50)]
    found = shown([*rows, prediction("lost", True, False)], budget=100_000)
    assert found.rows[0]["id"] == "lost" and found.total == 51
    assert len(found.rows) == 1 + (100_000 - 1100) // (1000 + 2 * LONGEST + len("Q right-0"))
    assert found.rows[1]["shown"] == {"base": "x" * LONGEST, "trained": "x" * LONGEST}
    assert found.rows[1]["rest"] == {"base": 9000 - LONGEST, "trained": 9000 - LONGEST}
    escaped = [prediction(f"right-{at}", True, True, "<" * 1000) for at in range(50)]
    assert len(shown(escaped, budget=100_000).rows) == 100_000 // (1000 + 8000 + len("Q right-0"))


def test_rows_without_a_verdict_are_held_as_not_judged() -> None:
    (row,) = shown([prediction("a", False, True, gold=None)]).rows
    assert (row["change"], row["right"], row["unread"]) == ("unjudged", {"base": None, "trained": None}, [])


def test_texts_are_judged_by_their_class() -> None:
    rows = predictions([answer("negative"), answer("positive")], [answer("negative"), answer("negative")])
    found = shown(rows)
    assert [row["change"] for row in found.rows] == ["won", "right"]
    assert found.names == {"won": "became negative", "right": "still negative"}


class Page(HTMLParser):
    """A page's elements with their attributes, and the text in each `pre`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pres: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag in ("pre", "script"):
            (self.pres if tag == "pre" else self.scripts).append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("pre", "script"):
            (self.pres if self.open[-1] == "pre" else self.scripts)[-1] += data


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A run in which everything that others write is hostile."""
    run = write_run(tmp_path / "runs/sft-grpo")
    rows = [prediction(f"{at} {text}", *VERDICTS["won"], text, gold=text) for at, text in enumerate(HOSTILES)]
    write_problems(run, rows, HOSTILES[1])
    metrics = read_json(run / "grade/metrics.json")
    metrics["warnings"] = list(HOSTILES)
    write_json(run / "grade/metrics.json", metrics)
    return run


def test_whatever_others_wrote_shows_as_text(hostile: Path) -> None:
    page = Page(page_of(hostile))
    for text in HOSTILES:
        assert page.pres.count(text) >= 2, text  # both models' completion
    assert not {"img", "i"} & {tag for tag, _ in page.elements}
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []
    assert [tag for tag, _ in page.elements].count("main") == 1 and len(page.scripts) == 1


def test_the_browser_may_run_the_pages_own_script_alone_and_load_nothing(hostile: Path) -> None:
    text = page_of(hostile)
    page = Page(text)
    (policy,) = (
        attributes["content"] or ""
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy and policy.startswith("default-src 'none';")
    references = re.findall(r'(?:src|href|action|xlink:href)="([^"]*)"', text)
    assert references and all(reference.startswith("#") for reference in references)


def test_every_picture_and_table_can_be_read_without_being_seen(hostile: Path) -> None:
    page = Page(page_of(hostile))
    pictures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(pictures) > 10 and all(one["role"] == "img" and one["aria-label"] for one in pictures)
    assert all(attributes.get("scope") for tag, attributes in page.elements if tag == "th")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))
