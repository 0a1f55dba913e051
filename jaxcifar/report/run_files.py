"""What a work directory holds: each file that is there and can be read, and a note for the others.

Nothing here needs the run to be finished, or JAX.
"""

import dataclasses
import json
import math
import pathlib
import statistics
import time
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
    summary = _read_json(directory / "summary.json", dict, notes)
    evaluation = _read_json(directory / "evaluation.json", dict, notes)
    class_names = _read_json(directory / "classes.json", list, notes)
    run = RunFiles(
        directory=directory,
        name=directory.resolve().name,
        config=dict(flatten(_read_json(directory / "config.json", dict, notes))),
        records=_read_records(directory / "metrics.jsonl", notes),
        class_names=[str(name) for name in class_names],
        summary=summary,
        evaluation=evaluation,
        examples=None,
        preview=b"",
        is_running=_is_running(directory),
        notes=notes,
    )
    try:
        run.examples = examples.load(directory / "examples.npz", len(class_names))
    except ConfigError as error:
        notes.append(f"{error}: no example images")
    if run.config.get("augment"):
        try:
            with errors.reading("preview.png"):
                run.preview = _read_png(directory / "preview.png")
        except ConfigError as error:
            notes.append(f"{error}: no picture of the augmentation")
    return run


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


def _read_json(path: pathlib.Path, kind: type, notes: list[str]) -> Any:
    """Returns the dict or list in a file, an empty one (and a note) if it cannot be read."""
    try:
        with errors.reading(path.name):
            value = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(value, kind):
                raise ValueError(f"it holds a {type(value).__name__}, not a {kind.__name__}")
            return value
    except ConfigError as error:
        notes.append(f"{error}: what it says is left out")
        return kind()


def _read_records(path: pathlib.Path, notes: list[str]) -> list[dict[str, float]]:
    """Returns the complete lines of metrics.jsonl, by epoch; a note counts the others."""
    try:
        with errors.reading(path.name):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except ConfigError as error:
        notes.append(f"{error}: no curves")
        return []
    records = {}
    for line in lines:
        try:
            record = json.loads(line)
            if all(is_number(record[key]) for key in RECORD_KEYS):
                records[record["epoch"]] = record
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    if len(records) < len(lines):
        notes.append(
            f"{path.name}: {len(lines) - len(records)} of {len(lines)} lines cannot be read, or "
            "repeat an epoch; the curves are of the others"
        )
    if not records:
        notes.append(f"{path.name} has no complete epoch: no curves")
    return [records[epoch] for epoch in sorted(records)]


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
