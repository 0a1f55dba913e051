"""The boundary where errors of files, libraries and the machine become plain ConfigErrors."""

import contextlib
import errno
import pathlib
import traceback
from collections.abc import Iterator

from jaxcifar.spec import ConfigError, first_line


@contextlib.contextmanager
def reading(what: str, remedy: str = "") -> Iterator[None]:
    """Turns every error that a damaged or foreign file may cause into a ConfigError.

    Args:
        what: what is read, with its path.
        remedy: what to do then.

    Raises:
        ConfigError: "<what> cannot be read (<reason>); <remedy>".
    """
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except Exception as error:  # parsers document few of the exceptions that damaged files cause
        reason = first_line(error)
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise ConfigError(
            f"{what} cannot be read ({reason})" + (f"; {remedy}" if remedy else "")
        ) from error


@contextlib.contextmanager
def machine() -> Iterator[None]:
    """Turns the errors of a full, read-only or vanished disk, of exhausted memory, and of exchanges
    with a process that has ended, which may arise anywhere in a run, into ConfigErrors.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(_describe(error)) from error
    except MemoryError as error:
        raise ConfigError(_OUT_OF_MEMORY) from error
    except (RuntimeError, ValueError) as error:  # JAX raises either
        if "RESOURCE_EXHAUSTED" in str(error):
            raise ConfigError(_OUT_OF_MEMORY) from error
        if "Gloo" in str(error):
            raise ConfigError(_LOST_PROCESS) from error
        raise


_OUT_OF_MEMORY = (
    "out of memory: reduce batch_size, eval.batch_size, or the size of the model or data set"
)

_LOST_PROCESS = (
    "another process of this run has ended or cannot be reached: see what it printed, then start "
    "all of them again, which continues from the newest checkpoint"
)


def _describe(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = f" ({' -> '.join(map(repr, names))})" if names else ""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space" if is_full else "fix that"
    return f"{error.strerror or first_line(error)}{where}; {remedy} and start again"


def write_log(path: pathlib.Path, error: BaseException) -> pathlib.Path | None:
    """Writes an error's traceback to a file; returns its path, None if it cannot be written."""
    try:
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return None
    return path
