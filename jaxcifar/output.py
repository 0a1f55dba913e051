"""Standard output and error that cannot stop a run, and have only what a user should see."""

import io
import os
import sys
from typing import Any


class _Pipe(io.FileIO):
    """A file descriptor whose writes succeed even where the reader is gone or the disk is full."""

    def write(self, data: bytes) -> int:
        try:
            return super().write(data) or len(data)  # None: it would block
        except OSError:
            return len(data)


def protect() -> None:
    """Replaces standard output and error, unless something else has replaced them: a closed or full
    output silences the display, and characters that its encoding lacks are escaped.
    """
    sys.unraisablehook = _hide_closed_loop
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue
        try:
            pipe = _Pipe(os.dup(stream.fileno()), "w")
        except (OSError, ValueError):  # closed
            pipe = _Pipe(os.open(os.devnull, os.O_WRONLY), "w")
        new = io.TextIOWrapper(
            io.BufferedWriter(pipe),
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=True,
        )
        setattr(sys, name, new)


def _hide_closed_loop(unraisable: Any) -> None:
    """Hides what TensorStore's threads raise after Orbax has reported a failed write."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
