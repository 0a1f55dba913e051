"""Which process runs a trial, and whether it is still alive."""

import fcntl
import os
import pathlib
import secrets

from jaxcifar.lock import kernel_id


class Owner:
    """This process in the eyes of others on the same machine: a locked file, which the kernel
    unlocks when the process dies, so that its trials are taken over at once.
    """

    def __init__(self, directory: pathlib.Path):
        """Creates and locks a file in the directory.

        Raises:
            OSError: it cannot be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self.name = directory, f"{kernel_id()}-{secrets.token_hex(8)}"
        self._fd = os.open(directory / self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _try_lock(self._fd)

    def is_dead(self, name: str) -> bool:
        """Returns whether another owner has died; False if it may be on another machine."""
        if not name.startswith(kernel_id()):  # a file system may have locks of each machine's own
            return False
        try:
            fd = os.open(self._directory / name, os.O_RDWR)
        except OSError:
            return False
        try:
            return _try_lock(fd)
        finally:
            os.close(fd)

    def release(self, *, is_done: bool) -> None:
        """Unlocks the file, and removes it if no trial of ours is left running."""
        if is_done:
            (self._directory / self.name).unlink(missing_ok=True)
        os.close(self._fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is held, or the file system has no locks
        return False
    return True
