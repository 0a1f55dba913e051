"""What a run shows and writes while it runs: the progress bar, metrics.jsonl, W&B."""

import importlib.util
import json
import os
import pathlib
import time
from typing import Any

import numpy as np
import rich.console
import rich.progress
from ml_collections import ConfigDict

from jaxcifar.config import ConfigError

PLAIN_SECONDS = 30  # where output is no terminal: at most one line in this time within an epoch


class Tracker:
    """The one place that a run reports to; a context manager.

    On a terminal it shows a bar with epoch, loss, accuracy, images/s and time left, elsewhere plain
    lines. Every epoch's record goes to `metrics.jsonl` and to W&B.
    """

    def __init__(self, workdir: pathlib.Path, config: ConfigDict, *, epochs_done: int, steps: int):
        """Starts reporting on a run of which `epochs_done` epochs are done; `steps` is the number
        of training steps of the whole run. Records of later epochs, which a resumed run makes
        again, are dropped from `metrics.jsonl`.
        """
        self._path = workdir / "metrics.jsonl"
        lines = self._path.read_text().splitlines(True) if self._path.exists() else []
        self._path.write_text("".join(lines[:epochs_done]))
        self._num_epochs = config.num_epochs
        self._steps = steps
        self._console = rich.console.Console(highlight=False)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=steps)
        self._last_line = time.monotonic()
        self._wandb = _start_wandb(workdir, config)

    def __enter__(self) -> "Tracker":
        self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bar.stop()
        if self._wandb:
            self._wandb.finish(exit_code=0 if exception[0] is None else 1)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def update(self, epoch: int, step: int, loss: float, accuracy: float, speed: float) -> None:
        """Shows where the run is: epoch from 1, steps made, means of the epoch, images/s."""
        text = (
            f"epoch {epoch}/{self._num_epochs}  loss {loss:.3f}  acc {accuracy:5.2f} %  "
            f"{speed:,.0f} images/s"
        )
        self._bar.update(self._task, completed=step, description=text)
        if self._bar.disable and time.monotonic() - self._last_line > PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self.say(f"{text}  step {step}/{self._steps}")

    def log_epoch(self, record: dict[str, float]) -> None:
        """Writes an epoch's record."""
        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
        if self._wandb:
            self._wandb.log(record, step=record["epoch"])
        self._last_line = time.monotonic()
        self.say(
            "epoch {epoch:3d}  train loss {train_loss:.4f} acc {train_acc:5.2f} %  "
            "val loss {val_loss:.4f} acc {val_acc:5.2f} %  lr {lr:.3g}  "
            "{images_per_second:,.0f} images/s  {seconds:.1f} s".format(**record)
        )

    @property
    def wants_histograms(self) -> bool:
        """Whether anyone would see gradient histograms."""
        return self._wandb is not None

    def log_histograms(self, epoch: int, gradients: dict[str, Any]) -> None:
        """Sends a histogram of each layer's gradients (arrays by name) to W&B."""
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
    """Returns the W&B run, or None where W&B is disabled or not installed. Never asks."""
    asked = config.wandb.mode
    mode = os.environ.get("WANDB_MODE", "") if asked == "auto" else asked
    if mode == "disabled":
        return None
    if importlib.util.find_spec("wandb") is None:
        if asked == "auto":
            print("W&B is not installed: this run is tracked in metrics.jsonl alone.")
            return None
        raise ConfigError(f"config.wandb.mode={asked!r} needs W&B: pip install wandb")
    import wandb

    has_key = mode != "offline" and wandb.login(prompt=False, verify=False)
    if mode == "online" and not has_key:
        raise ConfigError(
            "W&B is to run online but no key is configured: set WANDB_API_KEY, run `wandb login`, "
            "or choose --config.wandb.mode=offline"
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
        if asked != "auto":
            raise ConfigError(
                f"W&B cannot be reached ({error}); choose --config.wandb.mode=offline"
            ) from error
        print(f"W&B cannot be reached ({error}): this run is tracked offline.")
        return wandb.init(mode="offline", settings=_wandb_settings(), **common)


def _wandb_settings() -> Any:
    import wandb

    # silent: the run's own lines say what it does; 30 s instead of 90 until the network is given up
    return wandb.Settings(silent=True, init_timeout=30)
