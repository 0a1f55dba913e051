import threading

import pytest

from jaxcifar.background import BackgroundWriter


@pytest.fixture
def busy_writer():
    """A writer whose task runs until a gate is opened, and the gate."""
    writer, started, gate = BackgroundWriter(), threading.Event(), threading.Event()
    writer.submit(lambda: (started.set(), gate.wait()))
    started.wait()
    return writer, gate


def test_latest_task_wins(busy_writer):
    writer, gate = busy_writer
    ran = []
    for index in (1, 2, 3):
        writer.submit(lambda i=index: ran.append(i))
    gate.set()
    writer.wait()
    assert ran == [3]
    writer.submit(lambda: ran.append(4))  # in a new thread
    writer.wait()
    assert ran == [3, 4]


def test_error_is_raised_once_and_drops_what_is_pending(busy_writer):
    writer, gate = busy_writer
    ran, failing = [], threading.Event()

    def fail():
        failing.set()
        gate.wait()
        raise OSError("full")

    gate.set()
    writer.wait()
    gate.clear()
    writer.submit(fail)
    failing.wait()
    writer.submit(lambda: ran.append(1))
    gate.set()
    with pytest.raises(OSError, match="full"):
        writer.wait()
    assert ran == []
    writer.submit(lambda: ran.append(2))
    writer.wait()
    assert ran == [2]
