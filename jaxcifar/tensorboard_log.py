"""Logging a run to TensorBoard, through tensorboardX, which needs no TensorFlow."""

import contextlib
import pathlib
import time
from typing import Any

import numpy as np

from jaxcifar import examples
from jaxcifar.spec import ConfigError


class TensorBoardLog:
    """The records and results of a run for TensorBoard, in <workdir>/tensorboard."""

    def __init__(self, workdir: pathlib.Path, epoch: int):
        """Goes on after `epoch` epochs: what was logged of later ones is purged.

        Raises:
            ConfigError: tensorboardX is not installed.
        """
        try:
            from tensorboardX import event_file_writer
            from tensorboardX.proto import event_pb2
        except ImportError as error:
            raise ConfigError(
                "config.tensorboard=True needs tensorboardX: pip install tensorboardX"
            ) from error
        self._workdir = workdir
        directory = workdir / "tensorboard"
        directory.mkdir(exist_ok=True)
        # Not SummaryWriter, whose flush() does not wait for its queue. File names have the second
        # only, and two starts in one would share a file.
        self._writer = event_file_writer.EventsWriter(
            str(directory / "events"), filename_suffix=f".{time.time_ns()}"
        )
        self._event = event_pb2.Event
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(session_log=start, step=epoch + 1)

    def log(self, record: dict[str, float]) -> None:
        """Adds an epoch's record, and returns when it is on the disk."""
        from tensorboardX import summary

        for name, value in record.items():
            if name != "epoch":
                self._write(summary=summary.scalar(name, value), step=record["epoch"])
        self._writer.flush()

    def log_histograms(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Adds a histogram of each array."""
        from tensorboardX import summary

        for name, values in arrays.items():
            self._write(summary=summary.histogram(name, values, bins=64), step=epoch)
        self._writer.flush()

    def log_results(self, epoch: int, summary: dict[str, Any], evaluation: dict[str, Any]) -> None:
        """Adds the scores of a finished run as scalars, its most confident mistakes as images, and
        the confusion matrix as one: a row for each class, whose predictions are the lighter the
        more there are.
        """
        from tensorboardX import summary as summaries

        for name, value in summary.items():
            if isinstance(value, int | float):
                self._write(summary=summaries.scalar(name, value), step=epoch)
        matrix = np.array(evaluation["confusion_matrix"], np.float64)
        levels = 255 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        pixels = levels.astype(np.uint8)[..., None].repeat(3, -1)
        names = [row["class"] for row in evaluation["per_class"]]
        shown = examples.load(self._workdir / "examples.npz", len(names))
        images = {"confusion_matrix": pixels}
        for index in np.flatnonzero(shown["pair"] == examples.CONFIDENT):
            label, prediction = (names[shown[key][index]] for key in ("labels", "predictions"))
            images[f"mistakes/{index + 1}_{label}_for_{prediction}"] = shown["images"][index]
        for name, image in images.items():
            self._write(summary=summaries.image(name, image, dataformats="HWC"), step=epoch)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # every epoch was flushed
            self._writer.close()

    def _write(self, **fields) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), **fields))
