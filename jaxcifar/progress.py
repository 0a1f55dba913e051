"""Where a run stands: what it has recorded, which epoch is the best, and when it is finished."""

import dataclasses
import json
import math
import statistics
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict


class DivergedError(RuntimeError):
    """Training produced numbers that are not finite."""


@dataclasses.dataclass
class Progress:
    """The run's state outside TrainState; saved with it as JSON. The work directory's config.json,
    classes.json and metrics.jsonl are copies of parts of it.
    """

    config: dict[str, Any]  # when this was saved
    class_names: list[str]
    data_fingerprint: str  # digest of the training images
    records: list[dict[str, float]] = dataclasses.field(default_factory=list)  # of epochs done
    step_in_epoch: int = 0  # steps done of the current epoch
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # of its metrics so far
    train_seconds: float = 0.0  # spent training on it so far
    skipped_in_a_row: int = 0  # the latest steps that optimizer.skip_nonfinite has skipped
    schedule_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    planned_epochs: int = 0  # that the schedule spans (0: those of `config`)

    def __post_init__(self):
        self.planned_epochs = self.planned_epochs or self.config.get("num_epochs", 0)

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return len(self.records)

    @property
    def best(self) -> dict[str, float] | None:
        """The record of the first epoch with the highest validation accuracy; None before any."""
        return max(self.records, key=lambda record: record["val_acc"], default=None)

    @property
    def best_epoch(self) -> int:
        """The best epoch, from 1; 0 before any."""
        return self.best["epoch"] if self.best else 0

    @property
    def num_images(self) -> float:
        """Number of images seen in the current epoch."""
        return self.sums.get("count", 0)

    def step(self, steps_per_epoch: int) -> int:
        """Returns the number of steps done since the run began."""
        return self.epoch * steps_per_epoch + self.step_in_epoch

    def check_steps(
        self, sums: dict[str, np.ndarray], step: int, lrs: np.ndarray, skip_limit: int
    ) -> None:
        """Checks the metrics of the steps of a device call, in the current epoch.

        Args:
            sums: each [steps].
            step: the number of steps done before them since the run began.
            lrs: their learning rates.
            skip_limit: `optimizer.skip_nonfinite`.

        Raises:
            DivergedError: a loss is not finite, or as many in a row as the limit were skipped.
        """
        for index, loss in enumerate(sums["loss"]):
            grad_norm = float(sums["grad_norm"][index]) if "grad_norm" in sums else None
            where = self.epoch + 1, step + index + 1, float(lrs[index]), grad_norm
            check_finite(float(loss), "the training loss is", *where)
            if skip_limit:
                is_skipped = bool(sums["skipped_steps"][index])
                self.skipped_in_a_row = is_skipped * (self.skipped_in_a_row + 1)
                if self.skipped_in_a_row >= skip_limit:
                    what = f"after {skip_limit} skipped steps in a row, the loss is"
                    check_finite(math.nan, what, *where)

    def end_epoch(self, record: dict[str, float], schedule_state: dict[str, Any]) -> None:
        """Adds the record of the epoch that has ended, and begins the next."""
        self.records = [*self.records, record]  # a new list: a save in the background has the old
        self.step_in_epoch, self.sums, self.train_seconds = 0, {}, 0.0
        self.schedule_state = schedule_state

    def is_finished(self, config: ConfigDict) -> bool:
        """Returns whether the run has completed the config's epochs, or stops early because its
        best epoch is too long ago.
        """
        patience = config.early_stopping.patience
        return self.epoch >= config.num_epochs or 0 < patience <= self.epoch - self.best_epoch

    def summary(self) -> dict[str, float | int]:
        """Returns what the records of a finished run say: its best epoch, and its speed."""
        return {
            "best_epoch": self.best_epoch,
            "best_val_acc": self.best["val_acc"],
            "images_per_second": statistics.median(r["images_per_second"] for r in self.records),
            "wall_seconds": sum(record["seconds"] for record in self.records),
        }

    def to_json(self) -> str:
        """Returns the progress as JSON; `from_json` reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        """Returns the progress that `to_json` wrote.

        Raises:
            ValueError, TypeError: it is not JSON, or has other keys.
        """
        return cls(**json.loads(text))


class SaveSchedule:
    """When `last` is to be saved: every so many epochs, steps or seconds, as the config says."""

    def __init__(self, config: ConfigDict, step: int):
        """Begins at a number of steps done, as if it had just been saved."""
        self._cadence = config.checkpoint
        self.saved(step)

    def saved(self, step: int) -> None:
        """Notes that the state after `step` steps has been saved."""
        self._step, self._time = step, time.monotonic()

    def is_due(self, step: int, epoch: int | None = None) -> bool:
        """Returns whether to save after `step` steps, with which epoch `epoch` has ended."""
        every = self._cadence
        return (
            (epoch is not None and epoch % every.every_epochs == 0)
            or (every.every_steps > 0 and step - self._step >= every.every_steps)
            or (every.every_seconds > 0 and time.monotonic() - self._time >= every.every_seconds)
        )


def check_finite(
    value: float, what: str, epoch: int, step: int, lr: float, grad_norm: float | None = None
) -> None:
    """Raises DivergedError unless a value is finite; the other arguments are for its message."""
    if not math.isfinite(value):
        norm = "" if grad_norm is None else f" and gradient norm {grad_norm:.3g}"
        raise DivergedError(
            f"training diverged: {what} {value} in epoch {epoch}, step {step}, at learning "
            f"rate {lr:.3g}{norm}; try a smaller learning rate (optimizer.lr, or schedule.max_lr "
            "where the schedule has it), a warm-up (schedule.warmup) or optimizer.clip_norm"
        )
