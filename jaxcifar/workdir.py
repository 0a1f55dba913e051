"""The work directory: whose run it holds, whether that is finished, and moving it aside."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar.config import ConfigError


def claim(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Makes the directory this config's: creates it, or checks that its run may go on with it.

    Raises:
        ConfigError: it cannot be written, or its run's config differs in what changes the
            computation; the message lists the differences.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if path.exists() and (workdir / "checkpoints").exists():  # else its run never began
            _refuse_differences(_read_config(path), config, workdir)
        path.write_text(config_lib.to_json(config))
    except OSError as error:
        raise ConfigError(
            f"--workdir={str(workdir)!r} cannot be used: {error.strerror}; choose another"
        ) from error


def finished_summary(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any] | None:
    """Returns the summary of the directory's run if that is finished, else None."""
    path = workdir / "summary.json"
    accuracies = [record["val_acc"] for record in records(workdir)]
    if not path.exists() or not accuracies:
        return None
    best_epoch = accuracies.index(max(accuracies)) + 1
    if not is_finished(config, len(accuracies), best_epoch):
        return None
    return json.loads(path.read_text())


def is_finished(config: ConfigDict, epoch: int, best_epoch: int) -> bool:
    """Returns whether a run of that many epochs has made all of the config's, or has to stop early
    because its best is too many epochs ago.
    """
    patience = config.early_stopping.patience
    return epoch >= config.num_epochs or 0 < patience <= epoch - best_epoch


def records(workdir: pathlib.Path) -> list[dict[str, float]]:
    """Returns the epochs' records in `metrics.jsonl`."""
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def move_aside(workdir: pathlib.Path) -> pathlib.Path | None:
    """Renames the directory to the first free `<name>.old-<n>` and returns that, or None if there
    was nothing to move.
    """
    if not workdir.exists():
        return None
    number = 1
    while (aside := workdir.with_name(f"{workdir.name}.old-{number}")).exists():
        number += 1
    return workdir.rename(aside)


def _read_config(path: pathlib.Path) -> ConfigDict:
    try:
        return config_lib.from_json(path.read_text())
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read; --fresh starts over") from error


def _refuse_differences(old: ConfigDict, new: ConfigDict, workdir: pathlib.Path) -> None:
    differences = config_lib.differences(old, new)
    if differences:
        raise ConfigError(
            f"{str(workdir)!r} holds a run of another config; choose another --workdir, "
            "or --fresh to move it aside and start over:\n  " + "\n  ".join(differences)
        )
