"""On the first SIGINT, SIGTERM or SIGHUP, a run saves and exits."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from jaxcifar import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Raised by `StopRequest.check`, to leave a function that knows nothing of signals."""


class StopRequest:
    """True once a signal has asked to stop; `signal` says which.

    Where several processes train together, a signal to any of them counts for all, from their next
    `agree` or `check` on: they have to stop at the same step.
    """

    def __init__(self):
        self.received: signal.Signals | None = None  # by this process
        self._agreed: signal.Signals | None = None

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that has asked to stop."""
        return self.received if distributed.num_processes() == 1 else self._agreed

    def __bool__(self) -> bool:
        return self.signal is not None

    def agree(self, decision: bool = True) -> bool:
        """Returns process 0's decision in all processes, which learn of each other's signals."""
        if distributed.num_processes() == 1:
            return decision
        rows = distributed.gather([self.received or 0, decision])
        received = [signal.Signals(number) for number in rows[:, 0] if number]
        self._agreed = self._agreed or next(iter(received), None)
        return bool(rows[0, 1])

    def check(self) -> None:
        """Raises Stopped if a signal has asked to stop."""
        self.agree()
        if self:
            raise Stopped

    def follow(self) -> None:
        """Takes part in each `check` of process 0 until that calls `agree(False)`.

        Raises:
            Stopped: a signal has asked to stop; process 0 raises it too.
        """
        while self.agree():
            if self:
                raise Stopped

    def exit_exception(self) -> BaseException:
        """Returns what ends a process as the signal would have."""
        if self.signal == signal.SIGINT and distributed.num_processes() == 1:
            return KeyboardInterrupt()
        return SystemExit(128 + self.signal)  # several end in order, for which JAX waits


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Yields a StopRequest that the first SIGINT, SIGTERM or SIGHUP makes true, so that a loop can
    save and exit. A second Ctrl-C takes effect immediately, and so does another signal a second
    later: a closing terminal and some job schedulers send theirs twice at once.

    A signal that is ignored stays ignored, such as SIGINT in a background job. Outside the main
    thread, which alone may handle signals, none is received.
    """
    stop = StopRequest()
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
        handlers = {
            signum: handler
            for signum, handler in handlers.items()
            if handler not in (signal.SIG_IGN, None)  # None: not Python's
        }
    received_at = 0.0

    def restore() -> None:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)

    def receive(signum: int, frame: Any) -> None:
        nonlocal received_at
        if not stop.received:
            stop.received, received_at = signal.Signals(signum), time.monotonic()
            with contextlib.suppress(OSError):
                os.write(2, b"stopping after this step; Ctrl-C stops at once\n")
        elif signum == signal.SIGINT or time.monotonic() - received_at > 1:
            restore()
            os.kill(os.getpid(), signum)

    for signum in handlers:
        signal.signal(signum, receive)
    try:
        yield stop
    finally:
        restore()
