import signal

import pytest

from jaxcifar.signals import Stopped, stop_signals


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def number(request):
    """A signal, handled as in a foreground process, whatever the tests' own parent ignores."""
    handler = signal.default_int_handler if request.param == signal.SIGINT else signal.SIG_DFL
    previous = signal.signal(request.param, handler)
    yield request.param
    signal.signal(request.param, previous)


def send(number):
    signal.raise_signal(number)  # os.kill may reach another thread first


def test_first_signal_is_received_and_handlers_are_restored(number, capfd):
    before = signal.getsignal(number)
    with stop_signals() as stop:
        assert not stop
        stop.check()
        send(number)
        assert stop.signal == number
        with pytest.raises(Stopped):
            stop.check()
    assert signal.getsignal(number) == before
    assert "stopping after this step" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_are_sent_twice_at_once_save(number):
    """A closing terminal sends SIGHUP twice, and some job schedulers SIGTERM."""
    with stop_signals() as stop:
        for _ in range(3):
            send(number)
        assert stop.signal == number
        assert stop.exit_exception().code == 128 + number


def test_second_sigint_acts_immediately():
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_signals() as stop:
            send(signal.SIGINT)
            assert stop
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, previous)


def test_ignored_signal_stays_ignored(number):
    """As SIGINT is in a job that a non-interactive shell runs in the background."""
    signal.signal(number, signal.SIG_IGN)
    with stop_signals() as stop:
        send(number)
        assert not stop
    assert signal.getsignal(number) == signal.SIG_IGN
