"""The report of a sweep: its trials, how the best improved, and which keys mattered."""

import dataclasses
import math
import pathlib
import shlex
from collections.abc import Mapping, Sequence

from jaxcifar.report import charts, html, page, setup_sections
from jaxcifar.report.html import Section

Value = float | int | str


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial as the report shows it; trial 0 is the config itself."""

    number: int
    status: str
    values: Mapping[str, Value]
    accuracy: float | None  # in percent: the best of a complete trial, the last of another
    epochs: int
    attempts: int
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What the report shows: trials by number, spaces by key as texts, the keys whose space is
    logarithmic, the importances of keys, which sum to 1 (none if there are too few trials), and the
    command's arguments.
    """

    name: str
    trials: Sequence[Trial]
    spaces: Mapping[str, str]
    log_keys: frozenset[str]
    importances: Mapping[str, float]
    arguments: Sequence[str]

    @property
    def complete(self) -> list[Trial]:
        """The complete trials."""
        return [trial for trial in self.trials if trial.status == "complete"]

    @property
    def best(self) -> Trial | None:
        """The complete trial with the highest accuracy, the first of equals."""
        return max(self.complete, key=lambda t: (t.accuracy, -t.number), default=None)


def write(sweep: Sweep, output: pathlib.Path) -> pathlib.Path:
    """Writes the report of a sweep, which may be running, and returns its path.

    Raises:
        ConfigError: the file cannot be written, or matplotlib is not installed.
    """
    charts.check_available()
    counts: dict[str, int] = {}
    for trial in sweep.trials:
        counts[trial.status] = counts.get(trial.status, 0) + 1
    subtitle = f"{len(sweep.trials)} trials: " + ", ".join(f"{n} {s}" for s, n in counts.items())
    sections = [
        Section(name, heading, body) for name, heading, build in _SECTIONS if (body := build(sweep))
    ]
    return page.save(output, html.document(f"Sweep {sweep.name}", subtitle, [], sections))


def _best(sweep: Sweep) -> str:
    best = sweep.best
    if best is None:
        return html.paragraph("No trial is complete yet.")
    rows = [("Best validation accuracy", f"{best.accuracy:.2f}%", f"trial {best.number}.")]
    config = sweep.trials[0]
    if config.number == 0 and config.status == "complete":
        gain = best.accuracy - config.accuracy
        meaning = f"trial 0; the best is {gain:.2f} points above it."
        rows.append(("The config itself", f"{config.accuracy:.2f}%", meaning))
    text = (
        "The validation images chose among the trials, so the best accuracy flatters a little, "
        "the more so the more trials there are. The test images have no part in the search."
    )
    values = [
        (key, setup_sections.show(best.values[key]), _initial(sweep, key), space)
        for key, space in sweep.spaces.items()
        if key in best.values
    ]
    columns = ("key", "best", "the config itself", "searched")
    return (
        html.cards(rows)
        + html.paragraph(text)
        + html.table("The best values", columns, values, columns[1:])
    )


def _initial(sweep: Sweep, key: str) -> str:
    value = sweep.trials[0].values.get(key) if sweep.trials[0].number == 0 else None
    return setup_sections.show(value)


def _history(sweep: Sweep) -> str:
    groups = _groups(sweep, [trial.number for trial in sweep.trials])
    if not groups:
        return ""
    x, y = [], []
    for trial in sweep.complete:
        x.append(trial.number)
        y.append(max(trial.accuracy, y[-1] if y else -math.inf))
    line = charts.Series("best so far", x, y) if x else None
    alt = "Chart of the validation accuracy of every trial by its number"
    alt += f"; the best complete one has {y[-1]:.2f}%." if y else "."
    chart = charts.points(groups, "trial", "validation accuracy, %", alt, line=line)
    caption = (
        "Validation accuracy of the trials: of complete ones their best epoch's, of others their "
        "last epoch's."
    )
    return f'<div class="charts">{html.figure(chart, caption)}</div>'


def _importances(sweep: Sweep) -> str:
    if not sweep.importances:
        return html.paragraph(
            "There are too few complete trials to say which keys matter, or only one key."
        )
    names = list(sweep.importances)
    shares = [100 * share for share in sweep.importances.values()]
    listed = ", ".join(f"{name} {share:.0f}%" for name, share in zip(names, shares, strict=True))
    chart = charts.bars(names, shares, "importance, %", f"Bar chart of importances: {listed}.")
    caption = (
        "How much each key decides whether a trial is among the best tenth (PED-ANOVA, over the "
        "complete trials). With few trials this is a hint, not a measurement."
    )
    rows = [(name, f"{share:.1f}") for name, share in zip(names, shares, strict=True)]
    return f'<div class="charts">{html.figure(chart, caption)}</div>' + html.details(
        "The numbers of this chart", html.table("Importances", ("key", "importance, %"), rows)
    )


def _slices(sweep: Sweep) -> str:
    pictures = []
    for key in sweep.spaces:
        groups = _groups(sweep, [trial.values.get(key) for trial in sweep.trials])
        if not groups:
            continue
        alt = f"Chart of the validation accuracy of every trial by its {key}."
        chart = charts.points(
            groups, key, "validation accuracy, %", alt, is_log=key in sweep.log_keys
        )
        pictures.append(html.figure(chart, f"{key}, searched in {sweep.spaces[key]}."))
    return f'<div class="charts">{"".join(pictures)}</div>' if pictures else ""


def _groups(sweep: Sweep, x: Sequence[Value | None]) -> list[charts.Series]:
    """Returns the points of complete trials, and of those that were stopped, with an accuracy."""
    shown = [
        (
            trial.status == "complete",
            html.shorten(value, 24) if isinstance(value, str) else value,
            trial.accuracy,
        )
        for trial, value in zip(sweep.trials, x, strict=True)
        if trial.accuracy is not None and value is not None
    ]
    if any(isinstance(value, str) for _, value, _ in shown):
        shown.sort(key=lambda point: point[1])  # else categories come as the trials did
    return [
        charts.Series(name, [x for done, x, _ in shown if done is is_complete], ys)
        for name, is_complete in (("complete", True), ("not complete", False))
        if (ys := [y for done, _, y in shown if done is is_complete])
    ]


def _trials(sweep: Sweep) -> str:
    rows = [
        (
            trial.number,
            trial.status,
            "" if trial.accuracy is None else f"{trial.accuracy:.2f}",
            trial.epochs,
            *(_cell(trial.values.get(key)) for key in sweep.spaces),
            trial.attempts,
            trial.message,
        )
        for trial in sweep.trials
    ]
    columns = ("trial", "state", "val acc, %", "epochs", *sweep.spaces, "starts", "remark")
    text = (
        "Each trial is a run in the directory trial-<number> beside this file. One that was "
        "interrupted was resumed there, so numbers are missing: those of its repetitions."
    )
    table = html.table("Every trial", columns, rows, ("state", "remark", *sweep.spaces))
    return html.paragraph(text) + table


def _cell(value: Value | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _again(sweep: Sweep) -> str:
    command = " \\\n    ".join(["python -m jaxcifar.sweep", *map(shlex.quote, sweep.arguments)])
    text = (
        "The same command continues an interrupted sweep, and with more --trials a finished one. "
        "best.py, beside this file, is the config of the best trial."
    )
    return html.command(command) + html.paragraph(text)


_SECTIONS = (
    ("best", "Best", _best),
    ("history", "History", _history),
    ("importances", "Importances", _importances),
    ("slices", "Accuracy by key", _slices),
    ("trials", "Trials", _trials),
    ("again", "Run it again", _again),
)
