"""How far long work is: a bar on a terminal, elsewhere a plain line now and then."""

import time

import rich.console
import rich.progress

PLAIN_SECONDS = 30  # without a terminal: at most one line of progress in this time


class ProgressBar:
    """A context manager that shows progress towards `total`, and lines printed meanwhile."""

    def __init__(self, description: str, total: int, unit: str = "images"):
        """Creates a bar that appears when the context is entered and is gone at its end."""
        self._console = rich.console.Console(highlight=False)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._description, self._total, self._unit = description, total, unit
        self._task = self._bar.add_task(description, total=total)
        self._last_line = time.monotonic()

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bar.stop()

    def update(self, completed: int | None = None, description: str | None = None) -> None:
        """Shows how much is done, and what; None leaves either as it is."""
        self._description = description or self._description
        self._bar.update(self._task, completed=completed, description=self._description)
        if self._bar.disable and time.monotonic() - self._last_line > PLAIN_SECONDS:
            done = self._bar.tasks[self._task].completed
            self.print(f"{self._description}  {done:,.0f} of {self._total:,} {self._unit}")

    def print(self, text: str) -> None:
        """Prints a line above the bar."""
        self._last_line = time.monotonic()
        self._console.print(text, markup=False, soft_wrap=True)
