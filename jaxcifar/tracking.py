"""What a run reports while it runs: the progress bar, metrics.jsonl, W&B and TensorBoard."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcifar import wandb_log
from jaxcifar.data import Splits
from jaxcifar.progress import Progress
from jaxcifar.progress_bar import ProgressBar
from jaxcifar.run import Run
from jaxcifar.tensorboard_log import TensorBoardLog
from jaxcifar.wandb_log import WandbLog


class Tracker:
    """Where a run reports; a context manager.

    On a terminal it shows a bar with epoch, loss, accuracy, images/s and time left, elsewhere plain
    lines. Every epoch's record goes to `metrics.jsonl`, W&B and TensorBoard.
    """

    def __init__(self, run: Run, progress: Progress, steps_per_epoch: int):
        """Prepares reports on a run, from its progress on.

        Raises:
            ConfigError: the run cannot be compared with its band.
        """
        self._run, self._progress = run, progress
        self._band_note = run.band and run.band.check_data(progress.class_names, steps_per_epoch)
        self._bar = ProgressBar("starting", run.config.num_epochs * steps_per_epoch, "steps")
        self._wandb: WandbLog | None = None
        self._tensorboard: TensorBoardLog | None = None
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> "Tracker":
        """Starts W&B, TensorBoard and the bar.

        Raises:
            ConfigError: W&B or TensorBoard is requested and cannot be used.
        """
        directory, config = self._run.directory, self._run.config
        if config.tensorboard:
            self._tensorboard = TensorBoardLog(directory, self._progress.epoch)
            self._exit.callback(self._tensorboard.close)
        self._wandb = wandb_log.start(directory, config, self._progress)
        self._exit.enter_context(self._bar)
        return self

    def __exit__(self, *exception) -> None:
        self._exit.close()
        if self._wandb:
            self._wandb.finish(exit_code=0 if exception[0] is None else 1)
            if self._wandb.offline_directory:
                print(f"W&B: upload the run with: wandb sync {self._wandb.offline_directory}")

    def info(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.print(text)

    def log_start(self, num_params: int, device: str, splits: Splits, notes: list[str]) -> None:
        """Prints what is trained, on what, and notes."""
        train, val, test = (f"{len(part):,}" for part in splits)
        self.info(
            f"{self._run.config.model.name}, {num_params:,} parameters, on {device}; images: "
            f"{train} train, {val} validation, {test} test; work directory {self._run.directory}"
        )
        notes = [*notes, self._band_note] if self._band_note else notes
        for note in notes:
            self.info(note)

    def update(self, epoch: int, step: int, loss: float, accuracy: float, speed: float) -> None:
        """Shows progress: epoch from 1, steps done, means over the epoch, images/s."""
        self._bar.update(
            step,
            f"epoch {epoch}/{self._run.config.num_epochs}  loss {loss:.3f}  acc {accuracy:5.2f}%  "
            f"{speed:,.0f} images/s",
        )

    def evaluation_callback(self, what: str) -> Callable[[int, int], None]:
        """Returns fn(done, total) that shows how many images have been scored."""
        return lambda done, total: self._bar.update(
            description=f"{what}: {done:,} of {total:,} images"
        )

    def log_epoch(self, record: dict[str, float]) -> None:
        """Reports an epoch's record."""
        self._run.add_record(record)
        for tracker in self._trackers:
            tracker.log(record)
        skipped = record.get("skipped_steps")
        self.info(
            "epoch {epoch:3d}  train loss {train_loss:.4f} acc {train_acc:5.2f}%  "
            "val loss {val_loss:.4f} acc {val_acc:5.2f}%  lr {lr:.3g}  "
            "{images_per_second:,.0f} images/s  {seconds:.1f} s".format(**record)
            + (f"  {skipped} steps skipped" if skipped else "")
        )
        if self._run.band and (off := self._run.band.off(self._progress.records)):
            self.info(off)

    def wants_histograms(self, epoch: int) -> bool:
        """Returns whether histograms are due after `epoch` epochs, and there is where to log."""
        every = self._run.config.wandb.histogram_every
        return bool(self._trackers) and every > 0 and epoch % every == 0

    def log_histograms(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Sends a histogram of each array to W&B and TensorBoard."""
        for tracker in self._trackers:
            tracker.log_histograms(epoch, arrays)

    def log_results(self, summary: dict[str, Any], evaluation: dict[str, Any]) -> None:
        """Prints how the run ended by its band, if it has one, and sends what a finished run has to
        show to W&B and TensorBoard.
        """
        if self._run.band:
            self.info(self._run.band.verdict(self._progress.records))
        for tracker in self._trackers:
            tracker.log_results(self._progress.epoch, summary, evaluation)

    @property
    def _trackers(self) -> list[WandbLog | TensorBoardLog]:
        return [tracker for tracker in (self._wandb, self._tensorboard) if tracker]
