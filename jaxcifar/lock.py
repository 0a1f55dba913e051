"""The lock on a work directory: one process trains in it at a time.

The kernel's lock on the file `lock` counts on one machine, and is freed whenever its holder dies.
For holders on other machines, and where a file system has no locks, the file's modification time
is a heartbeat: a holder that is silent for a minute has lost it.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import secrets
import socket
import threading
import time

from jaxcifar.spec import ConfigError

HEARTBEAT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # after which a holder counts as dead


class RunLock:
    """The exclusive lock on a work directory, held from its creation to `release`."""

    def __init__(self, directory: pathlib.Path):
        """Takes the lock; waits up to a minute to see whether a holder elsewhere is alive.

        Raises:
            ConfigError: another process holds it.
            OSError: the file cannot be written.
        """
        self._path = directory / "lock"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            has_kernel_lock = self._lock_in_kernel()
            while not self._is_in_place():  # moved away with its directory since it was opened
                os.close(self._fd)
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
                has_kernel_lock = self._lock_in_kernel()
            holder = self._holder()
            was_elsewhere = holder and not (has_kernel_lock and holder.get("kernel") == kernel_id())
            if was_elsewhere:
                self._wait_for_silence(holder)
            self._owner = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "start": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
                "kernel": kernel_id(),
            }
            self._write(json.dumps(self._owner) + "\n")
            if was_elsewhere:  # another process may have waited too: the last to write has it
                time.sleep(SILENCE_SECONDS / 30)
                self.check()
        except BaseException:
            os.close(self._fd)
            raise
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lock heartbeat", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Checks that the directory is still there and still ours.

        Raises:
            ConfigError: it was moved or deleted, or another process has taken it over.
        """
        directory = str(self._path.parent)
        if not self._is_in_place():
            raise ConfigError(
                f"the work directory {directory!r}, or its file 'lock', was moved, deleted or "
                "replaced during the run; restore it and start again"
            )
        if self._holder() != self._owner:
            raise ConfigError(f"another process has taken over the work directory {directory!r}")

    def release(self) -> None:
        """Gives the lock back; nothing if that has been done."""
        if self._released.is_set():
            return
        self._released.set()
        self._heart.join()
        with contextlib.suppress(OSError):  # the disk may be full or gone
            if self._holder() == self._owner:
                self._write("")
        os.close(self._fd)

    def _is_in_place(self) -> bool:
        """Returns whether the file that we have opened is still the directory's."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except OSError:
            return False

    def _lock_in_kernel(self) -> bool:
        """Returns whether the file system has locks; raises if another process holds this one."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._is_taken(self._holder()) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            return False
        return True

    def _wait_for_silence(self, holder: dict) -> None:
        """Waits until the holder's heartbeat is a minute old; raises if it beats."""
        modified = self._path.stat().st_mtime
        silence = self._now() - modified
        if silence < SILENCE_SECONDS:
            print(
                f"{self._path} is held by {_describe(holder)}; waiting up to "
                f"{SILENCE_SECONDS - silence:.0f} s to see whether it is alive"
            )
        while self._now() - modified < SILENCE_SECONDS:
            time.sleep(min(1.0, SILENCE_SECONDS / 10))
            if self._path.stat().st_mtime != modified:
                raise self._is_taken(self._holder())

    def _now(self) -> float:
        """Returns the time by the clock that stamps this directory's files."""
        probe = self._path.with_name(f"lock.{secrets.token_hex(4)}.partial")
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._fd)

    def _holder(self) -> dict:
        """Returns what the file says about the holder, {} if nothing."""
        try:
            holder = json.loads(os.pread(self._fd, 4096, 0) or "{}")
        except (ValueError, RecursionError):
            holder = None
        return holder if isinstance(holder, dict) else {"host": "an unknown machine"}

    def _write(self, text: str) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def _is_taken(self, holder: dict) -> ConfigError:
        return ConfigError(
            f"the work directory {str(self._path.parent)!r} is in use by {_describe(holder)}; wait "
            "for it to end, or choose another"
        )


def _describe(holder: dict) -> str:
    pid, host, start = (holder.get(key, "?") for key in ("pid", "host", "start"))
    return f"process {pid} on {host}, since {start}"


def kernel_id() -> str:
    """Returns what identifies the running kernel, which containers share and a reboot changes."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return socket.gethostname()
