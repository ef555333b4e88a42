"""What all pages share: the templates' environment, in which everything but our own pictures is escaped."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment() -> Environment:
    """The templates of this package, with filters for shares (`0.5 | percent`) and p values (`0.04 | probability`)."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f} %"
    made.filters["probability"] = lambda value: "< 0.001" if value < 0.001 else f"= {value:.3f}"
    return made
