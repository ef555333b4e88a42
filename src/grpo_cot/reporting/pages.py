"""The templates' environment, which all pages share. It escapes everything but our own pictures, style and script."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from grpo_cot.reporting.headlines import ACCURACIES, named
from grpo_cot.reporting.sentences import probability


def environment() -> Environment:
    """The templates of this package, with filters for shares (`0.5 | percent`), p values (`0.04 | probability`) and the
    names of accuracies (`figures | accuracy(key)`).

    `policy(script)` is the content policy of a page with that one script: the browser runs no other, whatever text of a
    model slips through, and loads nothing from elsewhere.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f} %"
    templates.filters["probability"] = probability
    templates.filters["accuracy"] = lambda figures, key: named(ACCURACIES[key], figures)
    templates.globals["policy"] = _policy
    return templates


def _policy(script: str | None = None) -> str:
    allowed = "'none'"
    if script is not None:
        allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"
