"""A profile of some training steps, for TensorBoard, XProf or Perfetto."""

import os
import pathlib

import jax

from jaxcifar.spec import ConfigError

FIRST_STEP, NUM_STEPS = 10, 20  # the steps before are slower: memory is still being allocated


class StepProfile:
    """Traces NUM_STEPS training steps after the first FIRST_STEP of the process, or as many more as
    a device call makes.
    """

    def __init__(self, directory: str | pathlib.Path | None):
        """Prepares a trace in a directory; None for no trace.

        Raises:
            ConfigError: the directory cannot be written.
        """
        self._directory, self._num_steps, self._stop_after = directory, 0, None
        if directory:
            try:
                pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"profile={str(directory)!r} cannot be written: {error.strerror}"
                ) from error
            if not os.access(directory, os.W_OK):
                raise ConfigError(f"profile={str(directory)!r} cannot be written")

    def count(self, num_steps: int, result: object) -> str | None:
        """Counts steps that have been dispatched and starts or stops the trace where it is due; a
        trace covers whole device calls, which end when `result` is computed. Returns what to tell
        the user, if anything.
        """
        self._num_steps += num_steps
        if self._directory is None or self._num_steps < FIRST_STEP:
            return None
        if self._stop_after is None:
            jax.block_until_ready(result)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every Python call would slow down what is measured
            jax.profiler.start_trace(str(self._directory), profiler_options=options)
            self._stop_after = self._num_steps + NUM_STEPS
        elif self._num_steps >= self._stop_after:
            jax.block_until_ready(result)
            note = f"profile written to {self._directory}"
            self.close()
            return note
        return None

    def close(self) -> None:
        """Ends a trace that is being made."""
        if self._directory and self._stop_after is not None:
            jax.profiler.stop_trace()
            self._directory = None
