"""Pictures as inline SVG: a text alternative in each, the colours of the page's scheme, and nothing that none needs."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("svg")
from markupsafe import Markup, escape
from matplotlib import pyplot

# Matplotlib draws in these colours, which nothing else has. In the page each is a variable of its style sheet, which
# has a value for light and one for dark.
_VARIABLES = ("ink", "grey", "line", "page", "before", "after", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8")
INK, GREY, LINE, PAGE, BEFORE, AFTER, *SERIES = (f"#0000{number:02x}" for number in range(1, len(_VARIABLES) + 1))
DASHES = ("-", "--", "-.")  # beside the colours, for those who do not tell them apart
_STYLE = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10, "text.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "legend.frameon": False,
    "legend.labelcolor": INK, "svg.fonttype": "none",
}  # fmt: skip
_UNUSED = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->|(?<=>)\s+(?=<)", re.DOTALL)
_COLOUR = re.compile(r"\b(fill|stroke): ?#0000([0-9a-f]{2})\b")
_REFERENCE = re.compile(r'(?:href="#|url\(#)([^")]+)')
_FONT = re.compile(r"'DejaVu Sans'[^;\"]*")


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """A figure of that many inches and its axes, in our style; closed at the end."""
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(width, height))
        try:
            yield figure, axes
        finally:
            pyplot.close(figure)


def as_svg(figure: Any, words: str) -> Markup:
    """The figure as an element of a page, with these words for those who do not see it."""
    buffer = io.StringIO()
    with pyplot.rc_context({"svg.hashsalt": words}):  # ids that no other picture of the page has, the same every time
        figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.03, transparent=True)
    text = buffer.getvalue()
    text = _UNUSED.sub("", text[text.index("<svg") :])
    referenced = set(_REFERENCE.findall(text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referenced else "", text)
    text = _COLOUR.sub(lambda found: f"{found[1]}: var(--{_VARIABLES[int(found[2], 16) - 1]})", text)
    text = _FONT.sub("system-ui, sans-serif", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"', 1))


def series(log: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """The steps that logged a quantity, and its values there."""
    points = [(entry["step"], entry[name]) for entry in log if name in entry]
    return [step for step, _ in points], [value for _, value in points]


def course(label: str, steps: Sequence[float], values: Sequence[float]) -> str:
    """A curve in words."""
    if not values:
        return f"{label}: not logged"
    return (
        f"{label}: {values[0]:.3g} at step {steps[0]:.0f}, {values[-1]:.3g} at step {steps[-1]:.0f}, "
        f"between {min(values):.3g} and {max(values):.3g}"
    )
