import json
import os
import subprocess
import sys
import threading
import time

import pytest

from jaxcifar import lock as lock_lib
from jaxcifar.lock import RunLock
from jaxcifar.spec import ConfigError


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(lock_lib, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(lock_lib, "HEARTBEAT_SECONDS", 0.05)


def lock_file_of(tmp_path, **owner):
    file = tmp_path / "lock"
    file.write_text(json.dumps({"host": "elsewhere", "pid": 7, "start": "yesterday"} | owner))
    return file


def test_second_holder_is_refused_and_named(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on .*, since 20"):
        RunLock(tmp_path)
    lock.check()
    lock.release()
    assert (tmp_path / "lock").read_text() == ""
    RunLock(tmp_path).release()


def test_lock_of_a_killed_process_is_free(tmp_path):
    code = "import pathlib, sys, time; from jaxcifar.lock import RunLock\n"
    code += "lock = RunLock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"process {process.pid} on"):
        RunLock(tmp_path)
    process.kill()
    process.communicate()
    started = time.monotonic()
    RunLock(tmp_path).release()
    assert time.monotonic() - started < lock_lib.SILENCE_SECONDS  # the kernel knew


def test_silent_holder_elsewhere_is_waited_for_and_replaced(tmp_path, capsys):
    lock_file_of(tmp_path)
    started = time.monotonic()
    RunLock(tmp_path).release()
    assert time.monotonic() - started > 0.3
    assert "held by process 7 on elsewhere" in capsys.readouterr().out


def test_live_holder_elsewhere_is_refused(tmp_path):
    file = lock_file_of(tmp_path)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.05):
            os.utime(file)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(ConfigError, match="in use by process 7 on elsewhere"):
        RunLock(tmp_path)
    stop.set()
    thread.join()


def test_without_kernel_locks_the_heartbeat_decides(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(lock_lib.errno.ENOLCK, "no locks available")

    monkeypatch.setattr(lock_lib.fcntl, "flock", unsupported)
    lock = RunLock(tmp_path)
    with pytest.raises(ConfigError, match="in use by"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()


@pytest.mark.parametrize("content", ["{", "[1]", "\0\0", "{}"])
def test_damaged_lock_file_counts_as_someone_elses(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    RunLock(tmp_path).release()


def test_moved_or_taken_over_directory_is_noticed(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    lock = RunLock(directory)
    lock_file_of(directory)  # as another machine that takes over writes it
    with pytest.raises(ConfigError, match="another process has taken over"):
        lock.check()
    directory.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="was moved, deleted or replaced"):
        lock.check()
    directory.mkdir()
    RunLock(directory).release()
    with pytest.raises(ConfigError, match="was moved, deleted or replaced"):
        lock.check()
    lock.release()
    assert "elsewhere" in (tmp_path / "moved" / "lock").read_text()  # not ours to clear


def test_directory_that_is_replaced_while_it_is_locked(tmp_path, monkeypatch):
    """As by another process's --fresh: the lock is on the new directory."""
    directory = tmp_path / "run"
    directory.mkdir()
    flock = lock_lib.fcntl.flock

    def flock_late(*arguments):
        if not (tmp_path / "moved").exists():
            directory.rename(tmp_path / "moved")
            directory.mkdir()
        return flock(*arguments)

    monkeypatch.setattr(lock_lib.fcntl, "flock", flock_late)
    lock = RunLock(directory)
    lock.check()
    with pytest.raises(ConfigError, match="in use"):
        RunLock(directory)
    lock.release()
