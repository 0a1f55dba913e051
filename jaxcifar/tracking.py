"""What a run reports while it runs: the progress bar, metrics.jsonl, Weights & Biases."""

import importlib.util
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcifar.progress_bar import ProgressBar
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError


class Tracker:
    """Where a run reports; a context manager.

    On a terminal it shows a bar with epoch, loss, accuracy, images/s and time left, elsewhere plain
    lines. Every epoch's record goes to `metrics.jsonl` and to W&B.
    """

    def __init__(self, run: Run, *, num_steps: int):
        """Prepares reports on a run of `num_steps` training steps."""
        self._run = run
        self._bar = ProgressBar("starting", num_steps, "steps")
        self._wandb = None

    def __enter__(self) -> "Tracker":
        """Starts W&B and the bar.

        Raises:
            ConfigError: W&B is requested and cannot be used.
        """
        self._wandb = _start_wandb(self._run.directory, self._run.config)
        self._bar.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._bar.__exit__(*exception)
        if self._wandb:
            self._wandb.finish(exit_code=0 if exception[0] is None else 1)

    def info(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.print(text)

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
        if self._wandb:
            self._wandb.log(record, step=record["epoch"])
        self.info(
            "epoch {epoch:3d}  train loss {train_loss:.4f} acc {train_acc:5.2f}%  "
            "val loss {val_loss:.4f} acc {val_acc:5.2f}%  lr {lr:.3g}  "
            "{images_per_second:,.0f} images/s  {seconds:.1f} s".format(**record)
        )

    def wants_histograms(self, epoch: int) -> bool:
        """Returns whether gradient histograms are due after `epoch` epochs and W&B is enabled."""
        every = self._run.config.wandb.histogram_every
        return self._wandb is not None and every > 0 and epoch % every == 0

    def log_histograms(self, epoch: int, gradients: dict[str, np.ndarray]) -> None:
        """Sends a histogram of each parameter's gradient (arrays by name) to W&B."""
        import wandb

        self._wandb.log(
            {
                f"gradients/{name}": wandb.Histogram(np_histogram=np.histogram(values, bins=64))
                for name, values in gradients.items()
            },
            step=epoch,
        )

    def log_summary(self, summary: dict[str, Any]) -> None:
        """Sends the run's summary to W&B."""
        if self._wandb:
            self._wandb.summary.update(summary)


def _start_wandb(workdir: pathlib.Path, config: ConfigDict) -> Any:
    """Returns the W&B run, or None where W&B is disabled or not installed. Never prompts."""
    requested = config.wandb.mode
    mode = os.environ.get("WANDB_MODE", "") if requested == "auto" else requested
    if mode == "disabled":
        return None
    if importlib.util.find_spec("wandb") is None:
        if requested == "auto":
            print("W&B is not installed: logging to metrics.jsonl only.")
            return None
        raise ConfigError(f"config.wandb.mode={requested!r} needs W&B: pip install wandb")
    import wandb

    has_key = mode != "offline" and wandb.login(prompt=False, verify=False)
    if mode == "online" and not has_key:
        raise ConfigError(
            "W&B is to run online and needs an API key: set WANDB_API_KEY, run `wandb login`, "
            "or choose config.wandb.mode='offline'"
        )
    mode = mode or ("online" if has_key else "offline")
    common = {
        "project": config.wandb.project,
        "dir": workdir,
        "config": config.to_dict(),
        "name": workdir.name,
    }
    try:
        return wandb.init(mode=mode, settings=_wandb_settings(), **common)
    except wandb.errors.Error as error:
        if requested != "auto":
            raise ConfigError(
                f"W&B cannot be reached ({error}); choose config.wandb.mode='offline'"
            ) from error
        print(f"W&B cannot be reached ({error}): logging offline.")
        return wandb.init(mode="offline", settings=_wandb_settings(), **common)


def _wandb_settings() -> Any:
    import wandb

    # silent: the run prints its own lines; wait 30 s for the network instead of 90
    return wandb.Settings(silent=True, init_timeout=30)
