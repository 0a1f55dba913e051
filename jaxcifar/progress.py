"""A run's progress and its stopping rules."""

import dataclasses
import math
from typing import Any

from ml_collections import ConfigDict


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


@dataclasses.dataclass
class Progress:
    """The run's state outside TrainState; saved with it as JSON."""

    data_fingerprint: str  # digest of the training images
    num_epochs: int  # the target when this was saved
    epoch: int = 0  # epochs done
    step_in_epoch: int = 0  # steps done of the current epoch
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # of its metrics so far
    seconds: float = 0.0  # spent on it so far
    best_epoch: int = 0
    best_val_acc: float = -1.0
    schedule_state: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def num_images(self) -> float:
        """Number of images seen in the current epoch."""
        return self.sums.get("count", 0)

    def step(self, steps_per_epoch: int) -> int:
        """Returns the number of steps done since the run began."""
        return self.epoch * steps_per_epoch + self.step_in_epoch

    def end_epoch(self, val_acc: float, schedule_state: dict[str, Any]) -> bool:
        """Advances to the next epoch; returns whether the one that ended is the best so far."""
        self.epoch += 1
        self.step_in_epoch, self.sums, self.seconds = 0, {}, 0.0
        self.schedule_state = schedule_state
        is_best = val_acc > self.best_val_acc
        if is_best:
            self.best_epoch, self.best_val_acc = self.epoch, val_acc
        return is_best

    def is_finished(self, config: ConfigDict) -> bool:
        """Returns whether the run has completed the config's epochs, or stops early."""
        return is_finished(config, self.epoch, self.best_epoch)


def is_finished(config: ConfigDict, epoch: int, best_epoch: int) -> bool:
    """Returns whether a run of `epoch` epochs has completed the config's, or stops early because
    its best epoch is too long ago.
    """
    patience = config.early_stopping.patience
    return epoch >= config.num_epochs or 0 < patience <= epoch - best_epoch


def check_finite(loss: float, which: str, epoch: int, step: int, lr: float) -> None:
    """Raises DivergedError unless the loss is finite; the other arguments are for its message."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"training diverged: the {which} loss is {loss} in epoch {epoch}, step {step}, at "
            f"learning rate {lr:.3g}; try a smaller learning rate (optimizer.lr, or schedule.max_lr"
            " where the schedule has it), or a warm-up (schedule.warmup)"
        )
