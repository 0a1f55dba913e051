"""One trial's training, in a process of its own, which the sweep follows by its records.

A crash, or a device that is out of memory, ends the trial and not the sweep, and no two trials
share a JAX process. As a command, this file is that process: it is `jaxcifar.main`, which also
stops, saved, when the sweep is gone.
"""

import dataclasses
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

COMMAND = (sys.executable, "-m", "jaxcifar.sweep.training")
POLL_SECONDS = 0.2
STOP_SECONDS = 300.0  # a run stops after its step, which may first have to be compiled
FREE_SECONDS = 120.0  # for the process of a sweep that was killed to save and end
_SIGNALED = tuple(128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))


@dataclasses.dataclass(frozen=True)
class Result:
    """How a training process ended.

    "stopped" is on our request, "killed" by somebody else; either can be resumed. `value` is the
    best validation accuracy in percent of a complete run.
    """

    status: Literal["complete", "pruned", "diverged", "failed", "stopped", "killed"]
    message: str = ""
    value: float | None = None


def train(
    flags: Sequence[str],
    directory: pathlib.Path,
    environment: Mapping[str, str],
    on_epoch: Callable[[int, float], bool],
    should_stop: Callable[[], bool],
) -> Result:
    """Trains, or resumes, the run in a work directory; its output is appended to output.log there.

    Args:
        flags: the training command's.
        directory: the work directory.
        environment: environment variables to set.
        on_epoch: called once for each epoch done, with its number from 1 and its validation
            accuracy in percent; True prunes the trial.
        should_stop: whether to stop now; the run is saved first.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _wait_until_free(directory, should_stop)
    if should_stop():
        return Result("stopped")
    log = directory / "output.log"
    with open(log, "ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            [*COMMAND, *flags, f"--workdir={directory}"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,  # Ctrl-C reaches only the sweep, which then stops the run
        )
    asked, seen = "", set()
    try:
        while process.poll() is None and not asked:
            if should_stop():
                asked = "stopped"
                break
            for epoch, accuracy in _new_epochs(directory, seen):
                if on_epoch(epoch, accuracy):
                    asked = "pruned"
                    break
            else:
                time.sleep(POLL_SECONDS)
        if asked:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        code = process.wait()
    except BaseException:
        process.terminate()  # the storage failed: the run is saved, and resumed by the next start
        process.wait()
        raise
    finally:
        process.stdin.close()
    if code == 0:
        for epoch, accuracy in _new_epochs(directory, seen):
            on_epoch(epoch, accuracy)
        return _read_summary(directory)
    message = _last_error(log, start)
    if code == 3:
        return Result("diverged", message)
    if asked:
        return Result(asked)
    if code < 0 or code in _SIGNALED:
        return Result("killed", f"its process was stopped by signal {abs(code) % 128}")
    return Result("failed", message or f"its process ended with exit code {code}")


def _new_epochs(directory: pathlib.Path, seen: set[int]) -> list[tuple[int, float]]:
    """Returns the epochs in metrics.jsonl that are not in `seen`, and adds them."""
    try:
        text = (directory / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    epochs = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
            epoch, accuracy = int(record["epoch"]), float(record["val_acc"])
        except (ValueError, TypeError, KeyError):  # a line that is being written
            continue
        if epoch not in seen:
            seen.add(epoch)
            epochs.append((epoch, accuracy))
    return epochs


def _read_summary(directory: pathlib.Path) -> Result:
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        return Result("complete", value=float(summary["best_val_acc"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Result("failed", f"{directory / 'summary.json'} cannot be read")


def _last_error(log: pathlib.Path, start: int) -> str:
    """Returns what the process has said last, its error if there is one."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    marked = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (marked or lines or [""])[-1][:500]


def _wait_until_free(directory: pathlib.Path, should_stop: Callable[[], bool]) -> None:
    """Waits while another process on this machine trains in the directory."""
    deadline = time.monotonic() + FREE_SECONDS
    while time.monotonic() < deadline and not should_stop():
        try:
            with open(directory / "lock", "r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(POLL_SECONDS)
        except OSError:  # no lock yet, or a file system without locks
            return


def _stop_with_the_sweep() -> None:
    os.read(0, 1)  # returns when the other end of the pipe is closed, also by a SIGKILL
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    from jaxcifar import main

    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    main.launch()
