"""Runs compared: their curves, scores and configs. Runs that differ only by seed count as one."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxcifar import config as config_lib
from jaxcifar import errors
from jaxcifar.config_keys import GROUPS
from jaxcifar.report import charts, html, page, run_files, setup_sections
from jaxcifar.report.html import Section
from jaxcifar.report.run_files import RunFiles
from jaxcifar.scores import mean_and_spread
from jaxcifar.spec import ConfigError

SCORES = (  # key of RunFiles.headline(), its column, digits
    ("best_val_acc", "best validation accuracy, %", 1),
    ("test_acc", "test accuracy, %", 1),
    ("test_loss", "test loss", 3),
    ("ood_acc", "accuracy under corruptions, %", 1),
    ("images_per_second", "images/s", 0),
)
# They do not forbid resuming a run, but change what it results in
_ALSO_COMPARED = ("early_stopping.patience", "data.dir")


@dataclasses.dataclass
class Group:
    """Runs that differ only by seed, and what the report calls them."""

    name: str
    runs: list[RunFiles]


def write(workdirs: Sequence[str | pathlib.Path], output: str | pathlib.Path) -> pathlib.Path:
    """Writes the comparison of runs, which may be running or interrupted; returns the file's path.

    Args:
        workdirs: the runs' work directories.
        output: the file.

    Raises:
        ConfigError: a directory is not a run's, or is named twice; the file cannot be written; or
            matplotlib is not installed.
    """
    charts.check_available()
    runs = [run_files.read(workdir) for workdir in workdirs]
    places = [run.directory.resolve() for run in runs]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise ConfigError(f"{str(runs[index].directory)!r} is named twice")
    groups = group(runs)
    notes = [
        f"{run.directory}: {note}"
        for run in runs
        for note in run.notes
        if note.startswith(("config.json", "metrics.jsonl"))
    ]
    sections = []
    for name, heading, build in _SECTIONS:
        try:
            with errors.reading(f"{heading}: the files"):
                sections.append(Section(name, heading, build(groups)))
        except ConfigError as error:
            notes.append(str(error))
    subtitle = f"{len(runs)} runs, {len(groups)} config{'s' * (len(groups) > 1)}"
    return page.save(
        pathlib.Path(output), html.document("Runs compared", subtitle, notes, sections)
    )


def group(runs: Sequence[RunFiles]) -> list[Group]:
    """Returns the runs by config: those in a group differ only by seed."""
    groups: list[list[RunFiles]] = []
    for run in runs:
        for members in groups:
            if _differ_only_by_seed(members[0], run):
                members.append(run)
                break
        else:
            groups.append([run])
    return [
        Group(
            f"{number}: {members[0].name}" + (f" ({len(members)} seeds)" * (len(members) > 1)),
            members,
        )
        for number, members in enumerate(groups, 1)
    ]


def _differ_only_by_seed(one: RunFiles, other: RunFiles) -> bool:
    if not one.config or not other.config:
        return False
    keys = list(_ALSO_COMPARED)
    for name, settings in GROUPS.items():
        if one.config.get(f"{name}.name") not in settings.registry:  # a config file's own
            keys += [key for key in one.config | other.config if key.startswith(f"{name}.")]
    if any(one.config.get(key) != other.config.get(key) for key in keys):
        return False
    try:
        with errors.reading("the config"):
            a, b = setup_sections.to_config(one), setup_sections.to_config(other)
            lines = config_lib.differences(a, b) + config_lib.differences(b, a)
    except ConfigError:  # damaged
        return False
    return all(line.startswith("seed:") for line in lines)


def _scores(groups: Sequence[Group]) -> str:
    """Returns the table of final scores, and that of the runs."""
    headlines = [[run.headline() for run in group.runs] for group in groups]
    shown = [
        score
        for score in SCORES
        if any(score[0] in numbers for row in headlines for numbers in row)
    ]
    rows = [
        (
            group.name,
            *(_cell([n[key] for n in row if key in n], len(row), d) for key, _, d in shown),
        )
        for group, row in zip(groups, headlines, strict=True)
    ]
    text = (
        "Mean ± sample standard deviation over seeds, and in brackets the 95% confidence interval "
        "of the mean (Student's t). Unfinished runs count with their best epoch so far."
    )
    states = [
        (
            str(run.directory),
            number,
            run.config.get("seed", ""),
            run.status,
            *(f"{run.headline()[k]:.{d}f}" if k in run.headline() else "" for k, _, d in shown),
        )
        for number, group in enumerate(groups, 1)
        for run in group.runs
    ]
    columns = [column for _, column, _ in shown]
    return (
        html.paragraph(text)
        + html.table("Scores", ["config", *columns], rows, columns)
        + html.table("Every run", ["run", "config", "seed", "state", *columns], states, ("state",))
    )


def _cell(values: Sequence[float], num_runs: int, digits: int) -> str:
    if not values:
        return ""
    mean, std, half_width = mean_and_spread(values)
    text = f"{mean:.{digits}f}"
    if len(values) > 1:
        low, high = mean - half_width, mean + half_width
        text += f" ± {std:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return text if len(values) == num_runs else f"{text} ({len(values)} of {num_runs} runs)"


def _curves(groups: Sequence[Group]) -> str:
    """Returns the curves of validation accuracy and loss, with the table of their numbers."""
    groups = [group for group in groups if any(run.records for run in group.runs)]
    if not groups:
        return html.paragraph("No run has done an epoch.")
    pictures, tables = [], []
    for key, title, label, digits in (
        ("val_acc", "Validation accuracy", "validation accuracy, %", 1),
        ("val_loss", "Validation loss", "validation loss, nats", 3),
    ):
        series = [_series(group, key) for group in groups]
        ends = ", ".join(f"{one.name} ends at {one.y[-1]:.{digits}f}" for one in series)
        caption = f"{title} after each epoch."
        if any(one.low is not None for one in series):
            caption += (
                " Line: mean over the seeds that have done the epoch; band: ± one sample standard "
                "deviation."
            )
        alt = f"Line chart of {title.lower()} by epoch: {ends}."
        pictures.append(html.figure(charts.lines(series, label, alt), caption))
        cells = {
            (one.name, epoch): f"{y:.{digits}f}"
            for one in series
            for epoch, y in zip(one.x, one.y, strict=True)
        }
        epochs = sorted({epoch for one in series for epoch in one.x})
        rows = [(f"{e:.0f}", *(cells.get((one.name, e), "") for one in series)) for e in epochs]
        columns = ["epoch", *(one.name for one in series)]
        tables.append(html.table(f"{title} by epoch: the numbers of the chart", columns, rows))
    return f'<div class="charts">{"".join(pictures)}</div>' + html.details(
        "The numbers of these charts", "".join(tables)
    )


def _series(group: Group, key: str) -> charts.Series:
    """Returns a group's mean by epoch over the runs that have done it, and the band around it."""
    by_epoch: dict[float, list[float]] = {}
    for run in group.runs:
        for record in run.records:
            by_epoch.setdefault(record["epoch"], []).append(record[key])
    epochs = sorted(by_epoch)
    means = np.array([np.mean(by_epoch[epoch]) for epoch in epochs])
    name = html.shorten(group.name, 44)
    if len(group.runs) == 1:
        return charts.Series(name, epochs, means)
    stds = np.array([np.std(v, ddof=1) if len(v := by_epoch[e]) > 1 else 0 for e in epochs])
    return charts.Series(name, epochs, means, means - stds, means + stds)


def _configs(groups: Sequence[Group]) -> str:
    """Returns the table of the keys in which the groups' configs differ."""
    ignored = (*setup_sections.INTERNAL, "seed")
    keys = dict.fromkeys(key for group in groups for key in group.runs[0].config)
    rows = []
    for key in keys:
        values = [setup_sections.show(group.runs[0].config.get(key)) for group in groups]
        if key not in ignored and len(set(values)) > 1:
            rows.append((key, *values))
    if not rows:
        return html.paragraph("The configs do not differ, except perhaps in the seed.")
    names = [group.name for group in groups]
    return html.table("Keys whose values differ", ["key", *names], rows, names)


_SECTIONS = (
    ("scores", "Scores", _scores),
    ("curves", "Curves", _curves),
    ("configs", "Configs", _configs),
)
