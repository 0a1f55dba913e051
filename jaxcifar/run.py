"""A run's work directory: whose run it holds, whether that is finished, and what it wrote."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar.progress import is_finished
from jaxcifar.spec import ConfigError


class Run:
    """A config and its work directory."""

    def __init__(self, config: ConfigDict, directory: pathlib.Path):
        """Checks nothing; use `claim`."""
        self.config, self.directory = config, directory
        self.moved_to: pathlib.Path | None = None  # where `claim` has moved an older run

    @classmethod
    def claim(
        cls, config: ConfigDict, workdir: str | pathlib.Path, *, fresh: bool = False
    ) -> "Run":
        """Returns this config's run in a directory, a new one or one to be resumed, and writes its
        config.json.

        Args:
            config: it is validated here.
            workdir: the directory.
            fresh: move an older run aside and start over.

        Raises:
            ConfigError: the config is not valid, the directory cannot be written, or its run's
                config differs in what changes the computation; the message lists the differences.
        """
        config_lib.validate(config)
        run = cls(config, pathlib.Path(workdir))
        path = run.directory / "config.json"
        try:
            if fresh:
                run.moved_to = _move_aside(run.directory)
            run.directory.mkdir(parents=True, exist_ok=True)
            if path.exists() and (run.directory / "checkpoints").exists():  # else it never began
                run._compare(read_config(run.directory))
            path.write_text(config_lib.to_json(config))
        except OSError as error:
            raise ConfigError(
                f"the work directory {str(workdir)!r} cannot be used: {error.strerror}; choose "
                "another"
            ) from error
        return run

    def finished_summary(self) -> dict[str, Any] | None:
        """Returns the run's summary if it is finished, else None."""
        path = self.directory / "summary.json"
        accuracies = [record["val_acc"] for record in self.records()]
        if not path.exists() or not accuracies:
            return None
        best_epoch = accuracies.index(max(accuracies)) + 1
        if not is_finished(self.config, len(accuracies), best_epoch):
            return None
        return json.loads(path.read_text())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes the summary of the finished run."""
        (self.directory / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")

    def remove_summary(self) -> None:
        """Removes the summary of a run that is being extended."""
        (self.directory / "summary.json").unlink(missing_ok=True)

    def records(self) -> list[dict[str, float]]:
        """Returns the epochs' records in `metrics.jsonl`."""
        path = self.directory / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def drop_records_after(self, epoch: int) -> None:
        """Drops the records of later epochs, which a resumed run will write again."""
        path = self.directory / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(lines[:epoch]))

    def add_record(self, record: dict[str, float]) -> None:
        """Appends an epoch's record to `metrics.jsonl`."""
        with open(self.directory / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")

    def _compare(self, old: ConfigDict) -> None:
        """Refuses to resume a run of another config; prints that the config file has changed."""
        if differences := config_lib.differences(old, self.config):
            raise ConfigError(
                f"{str(self.directory)!r} holds a run with a different config; choose another work "
                "directory:\n  " + "\n  ".join(differences),
                command_hint="--fresh moves it aside and starts over",
            )
        file, sha256 = self.config.config_file, self.config.config_sha256
        if sha256 and old.config_sha256 and sha256 != old.config_sha256:
            print(
                f"{file} has changed since the run last started: its config is still the same, but "
                "code that it registers may not be"
            )


def read_config(directory: pathlib.Path) -> ConfigDict:
    """Returns the config of the run in a directory.

    Raises:
        ConfigError: there is none that can be read.
    """
    path = directory / "config.json"
    try:
        return config_lib.from_json(path.read_text())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{str(directory)!r} is not a run directory: config.json is missing or cannot be read",
            command_hint="--fresh moves the directory aside and starts over"
            if path.exists()
            else "",
        ) from error


def _move_aside(directory: pathlib.Path) -> pathlib.Path | None:
    """Renames a directory to the first free `<name>.old-<n>` and returns that; None if there is
    nothing to move.
    """
    if not directory.exists():
        return None
    index = 1
    while (aside := directory.with_name(f"{directory.name}.old-{index}")).exists():
        index += 1
    return directory.rename(aside)
