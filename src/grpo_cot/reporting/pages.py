"""The templates' environment, which all pages share. It escapes everything but our own pictures."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from grpo_cot.reporting.headlines import ACCURACIES, named


def environment() -> Environment:
    """The templates of this package, with filters for shares (`0.5 | percent`), p values (`0.04 | probability`) and the
    names of accuracies (`figures | accuracy(key)`)."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f} %"
    templates.filters["probability"] = lambda value: "< 0.001" if value < 0.001 else f"= {value:.3f}"
    templates.filters["accuracy"] = lambda figures, key: named(ACCURACIES[key], figures)
    return templates
