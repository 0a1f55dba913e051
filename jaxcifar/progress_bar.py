"""Progress display: a bar on a terminal, otherwise an occasional line."""

import time

import rich.console
import rich.progress

PLAIN_SECONDS = 30  # without a terminal: at most one line per this many seconds


class ProgressBar:
    """A context manager that shows progress toward `total`, and lines printed meanwhile."""

    def __init__(self, description: str, total: int, unit: str = "images"):
        """Creates a bar that appears on entering the context and is removed on exit."""
        self._console = rich.console.Console(highlight=False)
        if self._console.is_jupyter:  # plain lines there, too, instead of HTML for each
            self._console = rich.console.Console(
                highlight=False, force_jupyter=False, force_terminal=False
            )
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("ETA"),
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

    def update(
        self,
        completed: int | None = None,
        description: str | None = None,
        total: int | None = None,
    ) -> None:
        """Updates how much is done, what, and of how much; None keeps the current value."""
        self._description = description or self._description
        self._total = total or self._total
        self._bar.update(
            self._task, completed=completed, description=self._description, total=self._total
        )
        if self._bar.disable and time.monotonic() - self._last_line > PLAIN_SECONDS:
            done = self._bar.tasks[self._task].completed
            self.print(f"{self._description}  {done:,.0f} of {self._total:,} {self._unit}")

    def print(self, text: str) -> None:
        """Prints a line above the bar."""
        self._last_line = time.monotonic()
        self._console.print(text, markup=False, soft_wrap=True)
