"""A recipe's band: the learning rate and the validation accuracy that its runs had, epoch by epoch,
beside the config as <name>.band.json, for runs to be checked against (--check_recipe).
"""

import dataclasses
import functools
import json
import math
from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxcifar import config_files, errors
from jaxcifar.spec import ConfigError

_LR_TOLERANCE = 1e-4  # relative; float32 and the last digits of another platform are far below


@dataclasses.dataclass
class Band:
    """What the file of a band holds."""

    name: str  # of the config
    num_seeds: int  # runs that the band comes from
    config: dict[str, object]  # keys that must have these values
    class_names: list[str]
    steps_per_epoch: int
    lr: list[float]  # after each epoch
    val_acc: list[list[float]]  # after each epoch: lowest and highest, in percent
    checks_accuracy: bool = True  # whether the run has the band's classes

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.band.json"

    def check_data(self, class_names: Sequence[str], steps_per_epoch: int) -> str:
        """Returns a note on what of a run is checked.

        Raises:
            ConfigError: the run has another number of steps, and so other learning rates.
        """
        if steps_per_epoch != self.steps_per_epoch:
            raise ConfigError(
                f"--check_recipe: {self.file} is of {self.steps_per_epoch} steps an epoch; this "
                f"run has {steps_per_epoch}; train on as many images in batches of the same size, "
                "or leave --check_recipe out"
            )
        self.checks_accuracy = list(class_names) == self.class_names
        if self.checks_accuracy:
            return f"checked after each epoch against {self.file} (runs: {self.num_seeds})"
        return (
            f"{self.file} is of other classes ({', '.join(self.class_names[:3])}, ...): "
            "only the learning rate is checked"
        )

    def off(self, records: Sequence[dict[str, float]]) -> str:
        """Returns since when and why the latest epoch is off the band; "" if it is on it.

        Args:
            records: of every epoch so far.
        """
        since, reason = 0, ""
        for record in records:
            reason = self._reason(record)
            since = (since or int(record["epoch"])) if reason else 0
        return f"off the band since epoch {since}: {reason}" if reason else ""

    def verdict(self, records: Sequence[dict[str, float]]) -> str:
        """Returns how a run ended, by its records."""
        return self.off(records) or f"on the band of {self.file}"

    def _reason(self, record: dict[str, float]) -> str:
        """Returns what of an epoch's record is off the band, "" if nothing is."""
        index = int(record["epoch"]) - 1
        lr, (low, high) = self.lr[index], self.val_acc[index]
        if not math.isclose(record["lr"], lr, rel_tol=_LR_TOLERANCE, abs_tol=1e-12):
            return f"learning rate {record['lr']:.4g}, expected {lr:.4g}"
        if self.checks_accuracy and not low <= record["val_acc"] <= high:
            accuracy = record["val_acc"]
            return f"validation accuracy {accuracy:.2f}%, expected {low:.1f} to {high:.1f}%"
        return ""


def load(config: ConfigDict) -> Band:
    """Returns the band beside the config's file.

    Raises:
        ConfigError: there is none, or it is of runs with other values.
    """
    file = config_files.find(config.config_file)
    path = file and file.with_suffix(".band.json")
    if not path or not path.is_file():
        have = sorted(p.name.split(".")[0] for p in config_files.SHIPPED.glob("*.band.json"))
        raise ConfigError(
            f"--check_recipe: there is no band beside {config.config_file!r}; the configs with one "
            f"are {', '.join(have)}"
        )
    with errors.reading(f"the band {str(path)!r}", "restore it"):
        band = Band(name=file.stem, **json.loads(path.read_text(encoding="utf-8")))
    wrong = [
        key
        for key, value in band.config.items()
        if functools.reduce(getattr, key.split("."), config) != value
    ]
    if wrong:
        flags = " ".join(f"--config.{key}={band.config[key]}" for key in wrong)
        raise ConfigError(f"--check_recipe: {path.name} is of runs with {flags}: add that")
    return band
