"""What the steps of a device call have measured: checked step by step, added to the progress."""

import jax
import numpy as np

from jaxcifar import metrics
from jaxcifar.program import CallResult, Program
from jaxcifar.progress import DivergedError, Progress, check_finite


def add_call(progress: Progress, call: CallResult, lrs: np.ndarray, program: Program) -> None:
    """Adds a call's metrics to the progress, after checking those of each of its steps.

    Args:
        progress: of the run, before the call; changed.
        call: waited for.
        lrs: the learning rates of the epoch's steps, float32 [steps_per_epoch].
        program: which made the call.

    Raises:
        DivergedError: a step's loss is not finite, or too many in a row were skipped.
    """
    sums = jax.tree.map(np.asarray, call.sums)
    grad_norms = sums.pop("grad_norm", None)
    num_steps, limit = len(sums["loss"]), program.config.optimizer.skip_nonfinite
    for index, loss in enumerate(sums["loss"]):
        step_in_epoch = call.step_in_epoch - num_steps + index + 1
        where = (
            progress.epoch + 1,
            progress.epoch * program.steps_per_epoch + step_in_epoch,
            float(lrs[step_in_epoch - 1]),
            None if grad_norms is None else float(grad_norms[index]),
        )
        if not np.isfinite(loss) and not program.is_batch_finite(progress.epoch, step_in_epoch - 1):
            raise DivergedError(
                f"the augmented images are not finite in epoch {where[0]}, step {where[1]}: "
                f"change config.augment={program.config.augment!r}"
            )
        check_finite(float(loss), "the training loss is", *where)
        if limit:
            is_skipped = bool(sums["skipped_steps"][index])
            progress.skipped_in_a_row = is_skipped * (progress.skipped_in_a_row + 1)
            if progress.skipped_in_a_row >= limit:
                check_finite(np.nan, f"after {limit} skipped steps in a row, the loss is", *where)
    progress.sums = metrics.add(progress.sums, sums)
    progress.step_in_epoch = call.step_in_epoch
