"""A run's work directory: whose run it holds, whether that is finished, and what it wrote.

The newest intact checkpoint's progress is the truth; classes.json, metrics.jsonl and config.json
(the config of the latest start) are copies of it for the reader.
"""

import errno
import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from jaxcifar import checkpoint_files, errors, hub
from jaxcifar import config as config_lib
from jaxcifar.lock import RunLock
from jaxcifar.manifest import write_atomically, write_json
from jaxcifar.progress import DivergedError, Progress
from jaxcifar.recipe_band import Band
from jaxcifar.spec import ConfigError

# What reading a file may raise that is not what we wrote
_BAD_JSON = (ValueError, TypeError, AttributeError, KeyError, RecursionError)


class Run:
    """A config and its work directory, locked; a context manager that releases the lock."""

    is_main = True  # among the processes that train it together
    band: Band | None = None  # that it is checked against

    def __init__(self, config: ConfigDict, directory: pathlib.Path, lock: RunLock):
        """Checks nothing; use `claim`."""
        self.config, self.directory, self.lock = config, directory, lock
        self.moved_to: pathlib.Path | None = None  # where `claim` has moved an older run
        self.last: pathlib.Path | None = None  # the checkpoint to resume from
        self.progress: Progress | None = None  # its progress

    @classmethod
    def claim(
        cls, config: ConfigDict, workdir: str | pathlib.Path, *, fresh: bool = False
    ) -> "Run":
        """Returns this config's run in a directory, a new one or one to be resumed. Damaged
        checkpoints are set aside, and the copies of the run's record are written again. Weights on
        the Hugging Face hub are downloaded; the run's config has their commit.

        Args:
            config: it is validated here, and not changed.
            workdir: the directory.
            fresh: move an older run aside and start over.

        Raises:
            ConfigError: the config is not valid; the directory cannot be written, or another
                process is using it; its run's config differs in what changes the computation (the
                message lists the differences); none of its checkpoints is intact; or weights cannot
                be downloaded, and no run in the directory has recorded which they were.
        """
        config_lib.validate(config)
        directory, pin_error = pathlib.Path(workdir), None
        try:
            config = hub.pin(config)
        except ConfigError as error:
            if fresh or not directory.exists():
                raise
            pin_error = error
        try:
            str(directory).encode()  # TensorStore needs UTF-8
            if (directory / "study.db").exists():
                raise ConfigError(f"{str(workdir)!r} holds a sweep; choose another work directory")
            lock = _lock(directory)
            moved_to = None
            if fresh and any(path.name != "lock" for path in directory.iterdir()):
                moved_to = _move_aside(directory, lock)
                lock = _lock(directory)
        except ConfigError:  # it is in use
            raise
        except (OSError, ValueError) as error:  # ValueError: a null character
            number, reason = getattr(error, "errno", None), getattr(error, "strerror", None)
            is_full = number in (errno.ENOSPC, errno.EDQUOT)
            raise ConfigError(
                f"the work directory {str(workdir)!r} cannot be used: {reason or error}; "
                + ("free some space and start again" if is_full else "choose another")
            ) from error
        run = cls(config, directory, lock)
        run.moved_to = moved_to
        try:
            with errors.machine():
                run._find_progress()
                if pin_error:
                    run._pin_as_recorded(pin_error)
                run._check_config()
                if run.progress:
                    run.write_copies(run.progress)
        except BaseException:
            lock.release()
            raise
        return run

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.lock.release()
        if isinstance(error, Exception) and not isinstance(error, ConfigError | DivergedError):
            error.log = errors.write_log(self.directory / "error.log", error)

    def finished_summary(self) -> dict[str, Any] | None:
        """Returns the run's summary if it is finished, else None."""
        if self.progress is None or not self.progress.is_finished(self.config):
            return None
        try:
            summary = json.loads((self.directory / "summary.json").read_text(encoding="utf-8"))
            best = {f"best_{key}": self.progress.best[key] for key in ("epoch", "val_acc")}
            is_ours = best.items() <= summary.items() and {"test_acc", "test_loss"} <= set(summary)
        except (OSError, *_BAD_JSON):  # missing, cut or edited
            return None
        return summary if is_ours else None

    def write_summary(self, summary: dict[str, Any], evaluation: dict[str, Any]) -> None:
        """Writes the scores and the summary of the finished run, the summary last."""
        self.lock.check()
        write_json(self.directory / "evaluation.json", evaluation)
        write_json(self.directory / "summary.json", summary)

    def remove_summary(self) -> None:
        """Removes the summary and the scores of a run that is being extended."""
        for name in ("summary.json", "evaluation.json", "examples.npz"):
            (self.directory / name).unlink(missing_ok=True)

    def write_copies(self, progress: Progress) -> None:
        """Writes the copies of the run's record for the reader, and prints which ones differed."""
        directory = self.directory
        if self.progress and self._config_was_edited():
            print(f"{directory / 'config.json'} differed from the run's record: written again")
        write_atomically(directory / "config.json", config_lib.to_json(self.config))
        records = "".join(_to_line(record) for record in progress.records)
        for name, text in (
            ("classes.json", json.dumps(progress.class_names, indent=1) + "\n"),
            ("metrics.jsonl", records),
        ):
            try:
                old = (directory / name).read_text(encoding="utf-8")
            except (OSError, ValueError):
                old = None
            # More epochs than the checkpoint has are those since it was saved.
            if self.progress and not (old or "").startswith(text):
                print(f"{directory / name} differed from the run's record: written again")
            if old != text:
                write_atomically(directory / name, text)

    def add_record(self, record: dict[str, float]) -> None:
        """Appends an epoch's record to `metrics.jsonl`."""
        self.lock.check()
        with open(self.directory / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(_to_line(record))

    def _find_progress(self) -> None:
        """Finds the checkpoint to resume from; refuses one run in the place of several."""
        if self.config.num_seeds == 1 and (runs := seed_directories(self.directory)):
            raise ConfigError(
                f"{str(self.directory)!r} holds the runs of {len(runs)} seeds; choose another work "
                "directory, or set num_seeds",
                command_hint="--fresh moves it aside and starts over",
            )
        checkpoint_files.clean_up(self.directory)
        checkpoints = self.directory / "checkpoints"
        self.last = checkpoint_files.find_newest(checkpoints / "last", set_aside=True)
        if self.last is None:
            return
        self.progress = checkpoint_files.read_progress(self.last)

    def _pin_as_recorded(self, error: ConfigError) -> None:
        """Takes the commit of pretrained weights from the run's record: it has used them already,
        so that the hub's being out of reach must not keep it from resuming.

        Args:
            error: raised where there is no record.
        """
        progress = self.progress
        for directory in () if progress else seed_directories(self.directory):
            last = checkpoint_files.find_newest(directory / "checkpoints" / "last")
            progress = progress or (last and checkpoint_files.read_progress(last))
        recorded = progress and config_lib.from_dict(progress.config)
        config = recorded and hub.pin_as_recorded(self.config, recorded)
        if not config:
            raise error
        print(f"{error}; going on with {config.model.pretrained}, which the run has recorded")
        self.config = config

    def _check_config(self) -> None:
        """Refuses a run of another config."""
        if self.progress is None:
            return
        old = config_lib.from_dict(self.progress.config)
        if differences := config_lib.differences(old, self.config):
            raise ConfigError(
                f"{str(self.directory)!r} holds a run with a different config; take its values to "
                "resume it, or choose another work directory:\n  " + "\n  ".join(differences),
                command_hint="--fresh moves it aside and starts over",
            )
        file, sha256 = self.config.config_file, self.config.config_sha256
        if sha256 and old.config_sha256 and sha256 != old.config_sha256:
            print(
                f"{file} has changed since the run last started: its config is still the same, but "
                "code that it registers may not be"
            )

    def _config_was_edited(self) -> bool:
        try:
            text = (self.directory / "config.json").read_text(encoding="utf-8")
            written = config_lib.from_dict(json.loads(text))
            return bool(config_lib.differences(config_lib.from_dict(self.progress.config), written))
        except (OSError, *_BAD_JSON):
            return True


def seed_directory(parent: pathlib.Path, seed: int) -> pathlib.Path:
    """Returns the work directory of a seed's run in that of several seeds."""
    return parent / f"seed-{seed}"


def seed_directories(parent: pathlib.Path) -> list[pathlib.Path]:
    """Returns the work directories of the seeds' runs in a directory; none in that of one run."""
    found = [path for path in parent.glob("seed-*") if path.name.removeprefix("seed-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("seed-")))


def _to_line(record: dict[str, float]) -> str:
    return json.dumps(record) + "\n"


def _lock(directory: pathlib.Path) -> RunLock:
    directory.mkdir(parents=True, exist_ok=True)
    return RunLock(directory)


def _move_aside(directory: pathlib.Path, lock: RunLock) -> pathlib.Path:
    """Renames a directory to the first free `<name>.old-<n>`, returns that, releases the lock."""
    try:
        index = 1
        while (aside := directory.with_name(f"{directory.name}.old-{index}")).exists():
            index += 1
        return directory.rename(aside)
    finally:
        lock.release()
