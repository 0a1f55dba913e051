"""The page: headings and tables in the terminal, and the same as HTML."""

import itertools
import pathlib
from collections.abc import Iterable, Sequence

import rich.box
import rich.console
import rich.table
import rich.text

from jaxcifar.parity.rows import Result
from jaxcifar.report import html
from jaxcifar.report.page import save

TITLE = "jaxcifar and PyTorch, compared"
_COLUMNS = ("What", "Compared with", "In", "Largest difference", "Tolerance", "Why", "Numbers")
_WORDS = ("What", "Compared with", "In", "Why", "Result")


def show(results: Iterable[Result], versions: str) -> list[Result]:
    """Prints the page as the results come, group by group, and returns them all."""
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    console.print(f"{TITLE}\n{versions}", markup=False)
    done = []
    status = console.status("comparing; most of the time goes into compiling")
    with status:
        for group, members in itertools.groupby(results, key=lambda result: result.row.group):
            members = list(members)
            console.print(_terminal_table(group, members))
            done += members
    console.print("\nHow differences are measured")
    for line in meanings(done):
        console.print(rich.text.Text(line, style="dim"))
    console.print()
    for result in failures(done):
        console.print(rich.text.Text(f"{verdict(result)}: {describe(result)}", style="bold red"))
    console.print(summary(done), markup=False)
    return done


def _terminal_table(group: str, results: Sequence[Result]) -> rich.table.Table:
    table = rich.table.Table(
        title=f"\n{group}", title_justify="left", title_style="bold", box=rich.box.SIMPLE_HEAD
    )
    for name in ("", "What", "Compared with", "Difference", "Tolerance"):
        justify = "right" if name in ("Difference", "Tolerance") else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for result in results:
        row = result.row
        cells = (verdict(result), row.what, row.against, difference(result), tolerance(result))
        style = "green" if result.agrees else "bold red"
        table.add_row(
            rich.text.Text(cells[0], style="yellow" if result.agrees and row.by_design else style),
            *(rich.text.Text(cell, style="" if result.agrees else style) for cell in cells[1:]),
        )
    reasons = dict.fromkeys(f"{tolerance(result)}: {result.row.reason}" for result in results)
    table.caption = rich.text.Text("\n".join(reasons), style="dim", justify="left")
    table.caption_justify = "left"
    return table


def verdict(result: Result) -> str:
    """Returns a row's outcome in a word or two."""
    if result.agrees:
        return "by design" if result.row.by_design else "agrees"
    return "NO DIFFERENCE" if result.row.by_design and not result.error else "DISAGREES"


def difference(result: Result) -> str:
    """Returns the difference of a row, as text."""
    if result.error:
        return "none: see below"
    return _number(result.difference, result.row.measure.digits)


def tolerance(result: Result) -> str:
    """Returns the tolerance of a row, with the unit of both."""
    row = result.row
    sign = "more than " if row.by_design else ""
    digits = row.measure.digits.replace("2g", "3g")
    return f"{sign}{_number(row.tolerance, digits)} {row.measure.unit}".strip()


def _number(value: float, digits: str) -> str:
    return "0" if value == 0 else f"{value:{digits}}"


def failures(results: Sequence[Result]) -> list[Result]:
    """Returns the results that are not as their rows claim."""
    return [result for result in results if not result.agrees]


def describe(result: Result) -> str:
    """Returns a line about a row that failed."""
    row = result.row
    what = f"{row.group}: {row.what}, against {row.against}"
    if result.error:
        return f"{what}: {result.error}"
    where = f", in {result.where}" if result.where else ""
    return f"{what}: {difference(result)} instead of {tolerance(result)}{where}"


def meanings(results: Sequence[Result]) -> list[str]:
    """Returns a line for each way in which differences are measured."""
    measures = dict.fromkeys(result.row.measure for result in results)
    return [f"{measure.unit or 'no unit'}: {measure.meaning}" for measure in measures]


def summary(results: Sequence[Result]) -> str:
    """Returns the counts in one line."""
    parts = []
    for by_design, claim in ((False, "rows agree"), (True, "differ by design, as stated")):
        members = [result for result in results if result.row.by_design == by_design]
        if members:
            parts.append(f"{sum(r.agrees for r in members)} of {len(members)} {claim}")
    return "; ".join(parts)


def write(
    results: Sequence[Result], versions: str, seconds: float, path: pathlib.Path
) -> pathlib.Path:
    """Writes the page as HTML and returns its path.

    Args:
        results: of all rows.
        versions: what was compared, on what, and when.
        seconds: how long they took together.
        path: the file.

    Raises:
        ConfigError: it cannot be written.
    """
    count = sum(result.count for result in results if not result.row.by_design)
    failed = failures(results)
    cards = [("Rows", summary(results).partition(";")[0], "within the tolerance they state.")]
    cards += [("Numbers", f"{count:,}", "compared, all together.")]
    cards += [("Time", f"{seconds:.0f} s", "with compiling.")]
    sections = [html.Section("summary", "Summary", html.cards(cards) + html.paragraph(_HOW))]
    for group, members in itertools.groupby(results, key=lambda result: result.row.group):
        name = group.lower().replace(" ", "-")
        sections.append(html.Section(name, group, _html_table(group, list(members))))
    measures = html.items(meanings(results))
    sections.append(html.Section("measures", "How differences are measured", measures))
    if failed:
        lines = html.items(f"{verdict(result)}: {describe(result)}" for result in failed)
        sections.append(html.Section("failed", "Rows that failed", lines))
    return save(path, html.document(TITLE, versions, [], sections))


_HOW = (
    "Every row computes the same with jaxcifar and with the PyTorch and torchvision that are "
    "installed, from the same inputs, and states the largest difference that it allows and why it "
    "is not smaller. Most are in float64, where rounding is too small to hide an error. Rows that "
    "differ by design fail where nothing differs."
)


def _html_table(group: str, results: Sequence[Result]) -> str:
    cells = [
        (
            result.row.what,
            result.row.against,
            result.row.dtype,
            difference(result),
            tolerance(result),
            result.row.reason,
            f"{result.count:,}",
            verdict(result),
        )
        for result in results
    ]
    caption = f"{group}: {summary(results)}."
    marked = [index for index, result in enumerate(results) if not result.agrees]
    return html.table(caption, (*_COLUMNS, "Result"), cells, _WORDS, marked)
