"""Logging a run to Weights & Biases: online, or offline into <workdir>/wandb."""

import importlib.util
import os
import pathlib
import re
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcifar import checkpoint_files, examples, manifest
from jaxcifar.progress import Progress
from jaxcifar.run import seed_directories
from jaxcifar.spec import ConfigError, first_line


class WandbLog:
    """A run on W&B. A work directory has one W&B id, so that a restarted run goes on there.

    W&B cannot resume offline runs: each start writes a new file, into which all earlier epochs'
    records are logged again, so that the newest file alone has all of them (histograms: those since
    the last start). When W&B fails during a run, the run continues without it.
    """

    def __init__(self, workdir: pathlib.Path, config: ConfigDict, mode: str, progress: Progress):
        """Starts the W&B run. Never prompts.

        Raises:
            ConfigError: W&B cannot be used as the config and the environment say.
        """
        import wandb

        self._workdir = workdir
        directory = workdir / "wandb"
        directory.mkdir(exist_ok=True)
        is_of_seed = workdir in seed_directories(workdir.parent)
        arguments = {
            "project": config.wandb.project,
            "id": _run_id(directory / "run-id"),
            "dir": workdir,
            "config": config.to_dict(),
            "name": workdir.name,
            "group": workdir.parent.name if is_of_seed else None,
            "tags": [config[group].name for group in ("model", "data", "optimizer", "schedule")],
        }
        is_requested = config.wandb.mode != "auto"
        try:
            # silent: the run prints its own lines; wait 30 s for the network instead of 90
            settings = wandb.Settings(silent=True, init_timeout=30)
            if mode == "online":
                try:
                    self._run = wandb.init(
                        mode=mode, resume="allow", settings=settings, **arguments
                    )
                except wandb.errors.CommError as error:
                    if is_requested:
                        raise ConfigError(
                            f"W&B cannot be reached ({first_line(error)}); choose "
                            "config.wandb.mode='offline'"
                        ) from error
                    print(f"W&B cannot be reached ({first_line(error)}): logging offline.")
                    wandb.teardown()  # else the run's id would be in use
                    mode = "offline"
            if mode == "offline":
                self._run = wandb.init(mode=mode, settings=settings, **arguments)
        except (ConfigError, OSError):
            raise
        except Exception as error:  # W&B documents few of its errors
            raise ConfigError(
                f"W&B cannot be started ({_reason(error)}); correct its settings, or choose "
                "config.wandb.mode='disabled'"
            ) from error
        self.offline_directory = None
        self._has_failed = False
        if mode == "offline":
            self.offline_directory = pathlib.Path(self._run.settings.sync_dir)
            for record in progress.records:
                self.log(record)

    def log(self, record: dict[str, float]) -> None:
        """Logs an epoch's record."""
        self._attempt(lambda: self._run.log(record, step=record["epoch"]))

    def log_histograms(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Logs a histogram of each array."""
        import wandb

        histograms = {
            name: wandb.Histogram(np_histogram=np.histogram(values, bins=64))
            for name, values in arrays.items()
        }
        self._attempt(lambda: self._run.log(histograms, step=epoch))

    def log_results(self, epoch: int, summary: dict[str, Any], evaluation: dict[str, Any]) -> None:
        """Logs the run's summary, the confusion matrix, the most confident mistakes, and the best
        model as an artifact.
        """
        import wandb

        def act() -> None:
            self._run.summary.update(summary)
            names = [row["class"] for row in evaluation["per_class"]]
            counts = np.ravel(evaluation["confusion_matrix"])
            labels, predictions = divmod(np.repeat(np.arange(len(counts)), counts), len(names))
            matrix = wandb.plot.confusion_matrix(
                y_true=labels.tolist(), preds=predictions.tolist(), class_names=names
            )
            table = wandb.Table(columns=["image", "class", "predicted", "probability"])
            shown = examples.load(self._workdir / "examples.npz", len(names))
            columns = ("images", "labels", "predictions", "probabilities")
            for pixels, label, prediction, probability in zip(
                *(shown[name][shown["pair"] == examples.CONFIDENT] for name in columns), strict=True
            ):
                row = (names[label], names[prediction], float(probability))
                table.add_data(wandb.Image(pixels), *row)
            # no step: after a resumed start it would be older than the run's, and dropped
            self._run.log({"confusion_matrix": matrix, "mistakes": table})
            artifact = wandb.Artifact(f"model-{self._run.id}", type="model", metadata=summary)
            best = checkpoint_files.find_newest(self._workdir / "checkpoints" / "best")
            for path in filter(pathlib.Path.is_file, best.rglob("*")):  # add_dir prints
                artifact.add_file(str(path), name=str(path.relative_to(best)))
            self._run.log_artifact(artifact, aliases=["best"])

        self._attempt(act)

    def finish(self, exit_code: int) -> None:
        """Ends the W&B run."""
        self._attempt(lambda: self._run.finish(exit_code=exit_code))

    def _attempt(self, action: Callable[[], None]) -> None:
        """Acts, unless W&B has failed before."""
        if self._has_failed:
            return
        try:
            action()
        except Exception as error:  # W&B documents few of its errors
            self._has_failed = True
            print(f"W&B has failed ({_reason(error)}): the run continues without it")


def start(workdir: pathlib.Path, config: ConfigDict, progress: Progress) -> WandbLog | None:
    """Returns the W&B run, or None where W&B is disabled or not installed.

    Raises:
        ConfigError: W&B is requested and cannot be used.
    """
    mode = choose_mode(config.wandb.mode)
    return None if mode == "disabled" else WandbLog(workdir, config, mode, progress)


def choose_mode(requested: str) -> str:
    """Returns "online", "offline" or "disabled": what config.wandb.mode says, or for its "auto"
    $WANDB_MODE, or else online if an API key is configured.

    Raises:
        ConfigError: W&B is requested and cannot be used, or its settings are not valid.
    """
    mode = os.environ.get("WANDB_MODE", "") if requested == "auto" else requested
    if mode == "disabled":
        return mode
    if mode not in ("", "online", "offline"):
        raise ConfigError(f"WANDB_MODE={mode!r} is not valid: use online, offline or disabled")
    if importlib.util.find_spec("wandb") is None:
        if requested == "auto":
            print("W&B is not installed: logging to metrics.jsonl only.")
            return "disabled"
        raise ConfigError(f"config.wandb.mode={requested!r} needs W&B: pip install wandb")
    has_key = mode != "offline" and _has_key()
    if mode == "online" and not has_key:
        raise ConfigError(
            "W&B is to run online and needs an API key: set WANDB_API_KEY, run `wandb login`, "
            "or choose config.wandb.mode='offline'"
        )
    return mode or ("online" if has_key else "offline")


def _has_key() -> bool:
    """Returns whether an API key is configured.

    Raises:
        ConfigError: it is malformed, or another setting of W&B is.
    """
    import wandb

    try:
        wandb.setup(wandb.Settings(silent=True))
        return wandb.login(prompt=False, verify=False)
    except Exception as error:  # W&B documents few of its errors
        raise ConfigError(
            f"W&B's settings are not valid ({_reason(error)}); correct WANDB_API_KEY or "
            "WANDB_BASE_URL, or choose config.wandb.mode='offline'"
        ) from error


def _reason(error: Exception) -> str:
    """Returns an error's message in one line: the first of pydantic's says nothing."""
    return " ".join(str(error).split())[:200]


def _run_id(path: pathlib.Path) -> str:
    """Returns the work directory's W&B id, a new one if it has none that can be read."""
    try:
        run_id = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        run_id = ""
    if not re.fullmatch("[0-9a-f]{8}", run_id):
        run_id = secrets.token_hex(4)
        manifest.write_atomically(path, f"{run_id}\n")
    return run_id
