"""A background thread for the newest task."""

import threading
from collections.abc import Callable

Task = Callable[[], None]


class BackgroundWriter:
    """Runs tasks in a thread, one at a time. Of the tasks that have not begun only the newest is
    kept, so that a slow disk does not delay training.
    """

    def __init__(self):
        """Starts nothing: the thread starts with the first task."""
        self._pending: Task | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._condition = threading.Condition()

    def submit(self, task: Task) -> None:
        """Schedules a task, in place of one that has not begun.

        Raises:
            BaseException: what an earlier task raised; nothing is scheduled then.
        """
        with self._condition:
            self._raise_error()
            self._pending = task
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Waits until there is nothing left to run.

        Raises:
            BaseException: what a task raised.
        """
        with self._condition:
            while self._thread is not None:
                self._condition.wait()
            self._raise_error()

    def _run(self) -> None:
        while True:
            with self._condition:
                task, self._pending = self._pending, None
                if task is None:
                    self._thread = None
                    self._condition.notify_all()
                    return
            try:
                task()
            except BaseException as error:
                with self._condition:
                    self._error, self._pending = error, None

    def _raise_error(self) -> None:
        if self._error:
            error, self._error = self._error, None
            raise error
