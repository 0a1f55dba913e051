"""Logging a run to TensorBoard, through tensorboardX, which needs no TensorFlow."""

import pathlib
import time

from jaxcifar.spec import ConfigError


class TensorBoardLog:
    """The records of a run as TensorBoard scalars, in <workdir>/tensorboard."""

    def __init__(self, workdir: pathlib.Path, epoch: int):
        """Goes on after `epoch` epochs: what was logged of later ones is purged.

        Raises:
            ConfigError: tensorboardX is not installed.
        """
        try:
            import tensorboardX
        except ImportError as error:
            raise ConfigError(
                "config.tensorboard=True needs tensorboardX: pip install tensorboardX"
            ) from error
        self._writer = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"),
            purge_step=epoch + 1,
            # File names have the second only, and two starts in one would share a file
            filename_suffix=f".{time.time_ns()}",
        )

    def log(self, record: dict[str, float]) -> None:
        """Adds an epoch's record, and returns when it is in the file."""
        for name, value in record.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
