"""What the steps of a device call have measured: checked step by step, added to the progress."""

import jax
import numpy as np

from jaxcifar import metrics
from jaxcifar.program import CallResult, Program
from jaxcifar.progress import DivergedError, Progress


def add_call(progress: Progress, call: CallResult, lrs: np.ndarray, program: Program) -> None:
    """Adds a call's metrics to the progress, after checking those of each of its steps.

    Args:
        progress: the run's before the call; it is changed.
        call: the call, which this waits for.
        lrs: the learning rates of the epoch's steps, float32 [steps_per_epoch].
        program: the program that has made the call.

    Raises:
        DivergedError: a step's loss is not finite, or too many in a row were skipped.
    """
    sums, config = jax.tree.map(np.asarray, call.sums), program.config
    first = call.step_in_epoch - len(sums["loss"])  # the call's first step in the epoch
    step = progress.epoch * program.steps_per_epoch + first
    for index in np.flatnonzero(~np.isfinite(sums["loss"])):
        if not program.is_batch_finite(progress.epoch, first + int(index)):
            raise DivergedError(
                f"the augmented images are not finite in epoch {progress.epoch + 1}, step "
                f"{step + index + 1}: change config.augment={config.augment!r}"
            )
    progress.check_steps(sums, step, lrs[first:], config.optimizer.skip_nonfinite)
    sums.pop("grad_norm", None)
    progress.sums = metrics.add(progress.sums, sums)
    progress.step_in_epoch = call.step_in_epoch
