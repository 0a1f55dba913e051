"""Charts as SVG images that follow the reader's light or dark color scheme.

They are drawn in the light scheme's colors, which then become CSS variables: a style sheet inside
the image gives these their values. Series differ by color (Okabe and Ito's, which readers with any
color vision can tell apart; darkened to contrast with the page), line style and marker.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcifar.report import html
from jaxcifar.spec import ConfigError

# By name: the color in the light scheme, in the dark one
_COLORS = {
    "ink": ("#1b1d20", "#e8eaed"),
    "grid": ("#d5d9de", "#3a3f46"),
    "blue": ("#0072b2", "#56b4e9"),
    "vermilion": ("#d55e00", "#ff8c42"),
    "green": ("#00805e", "#2fc99a"),
    "purple": ("#a8507f", "#e09cc3"),
}
_SERIES = ("blue", "vermilion", "green", "purple", "ink")
_LINE_STYLES, _MARKERS = ("-", "--", "-.", ":"), "osD^vP"
WIDTH = 4.9  # inches, of 72 pixels: a phone shows a chart at its size
MAX_MARKED = 20  # a longer series has no markers


class Series(NamedTuple):
    """A line: its name, its points, and the band around it, if any."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def check_available() -> None:
    """Raises ConfigError unless matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("reports need matplotlib: pip install matplotlib") from None


def lines(
    series: Sequence[Series],
    y_label: str,
    alt: str,
    *,
    mark: tuple[float, str] | None = None,
    from_zero: bool = False,
) -> str:
    """Returns a chart of lines over epochs, as an <img>.

    Args:
        series: the lines.
        y_label: what they show, with the unit.
        alt: the text for those who cannot see the chart.
        mark: an epoch to point out and what to call it.
        from_zero: whether the values begin at 0.
    """

    def plot(axes: Any) -> None:
        for index, one in enumerate(series):
            color = _color(_SERIES[index % len(_SERIES)])
            axes.plot(
                one.x,
                one.y,
                label=one.name,
                color=color,
                linestyle=_LINE_STYLES[index % len(_LINE_STYLES)],
                marker=_MARKERS[index % len(_MARKERS)] if len(one.x) <= MAX_MARKED else None,
                markersize=4,
                linewidth=1.6,
            )
            if one.low is not None:
                axes.fill_between(one.x, one.low, one.high, color=color, alpha=0.2, linewidth=0)
        if mark:
            axes.axvline(mark[0], color=_color("ink"), linewidth=0.8, linestyle=(0, (2, 3)))
            axes.annotate(
                mark[1],
                (mark[0], 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
            )
        axes.set(xlabel="epoch", ylabel=y_label)
        if from_zero:
            axes.set_ylim(0, 1.08 * max(max(one.y) for one in series))
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(series) > 1:
            axes.figure.legend(
                loc="outside lower center", ncols=2 if len(series) <= 4 else 1, handlelength=3
            )

    rows = max(len(series) - 1, 0) if len(series) > 4 else len(series) > 1
    return _draw(plot, 2.9 + 0.2 * rows, alt)


def points(
    groups: Sequence[Series],
    x_label: str,
    y_label: str,
    alt: str,
    *,
    line: Series | None = None,
    is_log: bool = False,
) -> str:
    """Returns a chart of points, as an <img>.

    Args:
        groups: the points; strings for x are categories.
        x_label: what x is.
        y_label: what the values are, with the unit.
        alt: the text for those who cannot see the chart.
        line: steps to draw through the chart.
        is_log: whether x has a logarithmic scale.
    """

    def plot(axes: Any) -> None:
        for index, group in enumerate(groups):
            color, marker = _color(_SERIES[index % len(_SERIES)]), _MARKERS[index % len(_MARKERS)]
            axes.plot(
                group.x, group.y, marker, label=group.name, color=color, markersize=5, alpha=0.7
            )
        if line:
            axes.step(line.x, line.y, where="post", label=line.name, color=_color("ink"))
        axes.set(xlabel=x_label, ylabel=y_label)
        if is_log:
            xs = [x for group in groups for x in group.x]
            axes.set_xscale("log", subs=(2, 5))
            # As plain text: mathematical markup is off
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
            has_few_decades = max(xs) < 30 * min(xs)
            axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if has_few_decades else "")
        elif all(isinstance(x, int) for group in groups for x in group.x):
            axes.xaxis.get_major_locator().set_params(integer=True)
        if len(groups) + bool(line) > 1:
            axes.figure.legend(loc="outside lower center", ncols=3)

    return _draw(plot, 2.9 + 0.2 * (len(groups) + bool(line) > 1), alt)


def bars(
    names: Sequence[str], values: Sequence[float], x_label: str, alt: str, dots: Sequence = ()
) -> str:
    """Returns a chart of horizontal bars from 0 to 100, the first on top, as an <img>; `dots` are
    the parts of each bar.
    """

    def plot(axes: Any) -> None:
        rows = np.arange(len(names))
        axes.barh(rows, values, color=_color("blue"), height=0.7, alpha=0.45 if dots else 1)
        for row, parts in enumerate(dots):
            axes.plot(parts, [row] * len(parts), "o", color=_color("vermilion"), markersize=3.5)
        axes.set_yticks(rows, [html.shorten(name, 30) for name in names])
        axes.set(xlabel=x_label, xlim=(0, 100), ylim=(len(names) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)

    return _draw(plot, 0.7 + 0.2 * len(names), alt)


def reliability(bins: Sequence[dict[str, Any]], alt: str) -> str:
    """Returns the accuracy of predictions over their confidence, by bins, as an <img>."""

    def plot(axes: Any) -> None:
        full = [row for row in bins if row["count"]]
        axes.bar(
            [100 * row["low"] for row in full],
            [row["accuracy"] for row in full],
            [100 * (row["high"] - row["low"]) for row in full],
            align="edge",
            color=_color("blue"),
            alpha=0.45,
            label="accuracy in the bin",
        )
        axes.plot(
            [row["confidence"] for row in full],
            [row["accuracy"] for row in full],
            "o",
            color=_color("vermilion"),
            markersize=4,
            label="at the mean confidence",
        )
        axes.plot([0, 100], [0, 100], "--", color=_color("ink"), linewidth=1, label="calibrated")
        axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 100))
        axes.figure.legend(loc="outside lower center", ncols=2)

    return _draw(plot, 3.6, alt)


def _color(name: str) -> str:
    return _COLORS[name][0]


def _draw(plot: Callable[[Any], None], height: float, alt: str) -> str:
    """Returns what `plot` draws on a figure's axes, `height` inches high, as an <img>."""
    import io

    from matplotlib import style  # lazy: it is slow, and only reports need it
    from matplotlib.figure import Figure

    ink, grid = _color("ink"), _color("grid")
    settings = {
        "font.size": 10.0,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "jaxcifar",  # the same chart is the same file
        "text.parse_math": False,  # names may have dollar signs
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": grid,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "xtick.color": ink,
        "ytick.color": ink,
        "legend.frameon": False,
    }
    file = io.StringIO()
    with style.context(["default", settings]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the browser has the letters that matplotlib's font lacks
        figure = Figure((WIDTH, height), dpi=72, layout="constrained")
        plot(figure.add_subplot())
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    size = round(WIDTH * 72), round(height * 72)
    return html.image(_themed(file.getvalue()).encode(), "image/svg+xml", alt, size)


def _themed(svg: str) -> str:
    """Returns an SVG with its colors as CSS variables, and without addresses but namespaces'."""
    svg = svg[svg.index("<svg") :]  # the DOCTYPE has an address
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"'DejaVu Sans'.*?sans-serif", "system-ui, sans-serif", svg)
    for name, (light, _) in _COLORS.items():
        svg = svg.replace(light, f"var(--{name})")
    light, dark = (
        "; ".join(f"--{name}: {values[scheme]}" for name, values in _COLORS.items())
        for scheme in (0, 1)
    )
    rules = f":root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    start = svg.index(">") + 1
    return f"{svg[:start]}<style>{rules}</style>{svg[start:]}"
