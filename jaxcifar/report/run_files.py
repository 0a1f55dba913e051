"""What a work directory holds: each file that is there and can be read, and a note for the others.

Nothing here needs the run to be finished, or JAX.
"""

import dataclasses
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcifar import errors, examples
from jaxcifar.lock import SILENCE_SECONDS
from jaxcifar.spec import ConfigError

RECORD_KEYS = ("epoch", "step", "train_loss", "train_acc", "val_loss", "val_acc", "lr", "seconds")
RECORD_KEYS += ("images_per_second",)


@dataclasses.dataclass
class RunFiles:
    """A run as its files describe it; what is missing is empty, and `notes` says why."""

    directory: pathlib.Path
    name: str
    config: dict[str, Any]  # by dotted key, as JSON has them
    records: list[dict[str, float]]  # of epochs done; they have all RECORD_KEYS
    class_names: list[str]
    summary: dict[str, Any]
    evaluation: dict[str, Any]
    examples: dict[str, np.ndarray] | None
    preview: bytes  # a PNG image
    is_running: bool
    notes: list[str]

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return int(self.records[-1]["epoch"]) if self.records else 0

    @property
    def best(self) -> dict[str, float] | None:
        """The record of the first epoch with the highest validation accuracy."""
        return max(self.records, key=lambda record: record["val_acc"], default=None)

    @property
    def status(self) -> str:
        """Whether the run is finished, running or interrupted, and where it stands."""
        of = f" of {self.config['num_epochs']}" if "num_epochs" in self.config else ""
        if self.summary:
            return f"finished after {self.epoch}{of} epochs"
        if self.is_running:
            return f"running: {self.epoch}{of} epochs done"
        return f"interrupted after {self.epoch}{of} epochs"

    def headline(self) -> dict[str, float]:
        """Returns the numbers of the summary, those of a running run from its records."""
        numbers = {}
        if self.records:
            numbers = {
                "best_epoch": self.best["epoch"],
                "best_val_acc": self.best["val_acc"],
                "images_per_second": statistics.median(
                    record["images_per_second"] for record in self.records
                ),
                "wall_seconds": sum(record["seconds"] for record in self.records),
            }
        return numbers | {name: x for name, x in self.summary.items() if is_number(x)}


def read(workdir: str | pathlib.Path) -> RunFiles:
    """Returns what a work directory holds.

    Raises:
        ConfigError: it is not a run's.
    """
    directory = pathlib.Path(workdir)
    names = ("config.json", "metrics.jsonl", "summary.json", "evaluation.json")
    with errors.reading(f"the work directory {str(workdir)!r}"):
        if not any((directory / name).is_file() for name in names):
            raise ConfigError(
                f"{str(workdir)!r} is not the work directory of a run: it has no config.json"
            )
    notes: list[str] = []

    def attempt(name: str, reader: Callable[[pathlib.Path], Any], empty: Any, lost: str) -> Any:
        """Returns what the reader makes of a file, or `empty`, with a note on what is lost."""
        path = directory / name
        if not path.is_file():
            notes.append(f"{name} is missing: {lost}")
            return empty
        try:
            with errors.reading(name):
                return reader(path)
        except ConfigError as error:
            notes.append(f"{error}: {lost}")
            return empty

    config = attempt("config.json", _read_dict, {}, "no config, and no command")
    evaluation = attempt(
        "evaluation.json", _read_dict, {}, "no scores by class, confusions or calibration"
    )
    class_names = attempt("classes.json", _read_names, [], "no names from there")
    if not class_names:
        class_names = [str(row["class"]) for row in _rows(evaluation.get("per_class"))]
    records, note = attempt("metrics.jsonl", _read_records, ([], ""), "no curves")
    notes += [note] if note else []
    return RunFiles(
        directory=directory,
        name=directory.resolve().name,
        config=dict(flatten(config)),
        records=records,
        class_names=class_names,
        summary=attempt(
            "summary.json", _read_dict, {}, "no test scores from there, versions or device"
        ),
        evaluation=evaluation,
        examples=attempt(
            "examples.npz",
            lambda path: examples.load(path, len(class_names)),
            None,
            "no example images",
        ),
        preview=attempt("preview.png", _read_png, b"", "no picture of the augmentation")
        if config.get("augment")
        else b"",
        is_running=_is_running(directory),
        notes=notes,
    )


def is_number(value: Any) -> bool:
    """Returns whether a value from JSON is a finite number."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Returns the (dotted key, value) of nested dictionaries."""
    rows = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += flatten(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def _read_dict(path: pathlib.Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}")
    return value


def _read_names(path: pathlib.Path) -> list[str]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("it does not hold names")
    return value


def _rows(value: Any) -> list[dict[str, Any]]:
    """Returns a value from JSON if it is a list of classes, else nothing."""
    is_rows = isinstance(value, list) and all(isinstance(r, dict) and "class" in r for r in value)
    return value if is_rows else []


def _read_records(path: pathlib.Path) -> tuple[list[dict[str, float]], str]:
    """Returns the complete lines of metrics.jsonl, by epoch, and a note on the others, if any."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = {}
    for line in lines:
        try:
            record = json.loads(line)
            if all(is_number(record[key]) for key in RECORD_KEYS):
                records[record["epoch"]] = record
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    note = ""
    if len(records) < len(lines):
        note = (
            f"{path.name}: {len(lines) - len(records)} of {len(lines)} lines cannot be read, or "
            "repeat an epoch; the curves are of the others"
        )
    return [records[epoch] for epoch in sorted(records)], note


def _read_png(path: pathlib.Path) -> bytes:
    from PIL import Image  # lazy: most runs have no preview

    content = path.read_bytes()
    with Image.open(path, formats=["PNG"]) as image:
        image.load()
    return content


def _is_running(directory: pathlib.Path) -> bool:
    """Returns whether a process that was alive a minute ago has the lock."""
    try:
        status = (directory / "lock").stat()
        return status.st_size > 0 and time.time() - status.st_mtime < SILENCE_SECONDS
    except OSError:
        return False
