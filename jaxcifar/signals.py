"""SIGINT and SIGTERM: asked once to stop, a run saves and leaves."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """Yields a list that receives the first SIGINT or SIGTERM, so that a loop can save and leave.
    A second one acts at once.

    A signal that is ignored stays ignored, such as SIGINT in a background job. Outside the main
    thread, which alone may handle signals, the list stays empty.
    """
    received: list[signal.Signals] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {n: handler for n, handler in handlers.items() if handler != signal.SIG_IGN}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def receive(number: int, frame: Any) -> None:
        received.append(signal.Signals(number))
        restore()

    for number in handlers:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        restore()
