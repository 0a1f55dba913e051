"""The checkpoints of a run as files: which there are, which are intact, what a run's record is.

checkpoints/last/<step>/{state/,progress.json,manifest.json}   the last few, for resuming
checkpoints/best/<step>/{state/,progress.json,manifest.json}   those that the last refer to
checkpoints/damaged/                                           what was set aside

Importing this does not import JAX; `checkpoint` reads and writes the arrays.
"""

import pathlib
import shutil

from jaxcifar import errors, manifest
from jaxcifar.progress import Progress
from jaxcifar.spec import ConfigError


def steps(directory: pathlib.Path) -> list[int]:
    """Returns the steps with a checkpoint in checkpoints/last or checkpoints/best, newest first."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted((int(n) for n in names if n.isdecimal() and n == str(int(n))), reverse=True)


def find_newest(directory: pathlib.Path, *, set_aside: bool = False) -> pathlib.Path | None:
    """Returns the newest intact checkpoint in a directory, or None if there is no checkpoint.
    Prints which newer ones are skipped.

    Args:
        directory: checkpoints/last or checkpoints/best.
        set_aside: move damaged checkpoints away; only the run's owner may.

    Raises:
        ConfigError: there are checkpoints, and none is intact.
    """
    listed = steps(directory)
    damaged, problems = [], []
    for path in (directory / str(step) for step in listed):
        condition = manifest.check(path)
        if condition == "intact":
            for other in damaged:
                moved = f"; it is now in {move_aside(other)}" if set_aside else ""
                print(f"the checkpoint {other} is damaged: using the one before{moved}")
            return path
        if condition == "damaged":
            damaged.append(path)
        else:
            print(f"the checkpoint {path} has no manifest: skipped")
        problems.append(f"{path.name} ({condition})")
    if steps(directory) != listed:  # the run has saved another one meanwhile
        return find_newest(directory, set_aside=set_aside)
    if problems:
        raise ConfigError(
            f"no checkpoint in {str(directory)!r} is intact: {', '.join(problems)}; restore one "
            "from a backup, or move the directory away to start over"
        )
    return None


def read_progress(path: pathlib.Path) -> Progress:
    """Returns the progress that a checkpoint records.

    Raises:
        ConfigError: it cannot be read, or is another version's.
    """
    with errors.reading(f"the checkpoint {str(path)!r}", "another version may have written it"):
        return Progress.from_json((path / "progress.json").read_text(encoding="utf-8"))


def commit(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Makes a completely written directory a checkpoint, in place of an older one of its step.

    Raises:
        OSError: a file cannot be written.
    """
    manifest.write(partial)
    _replace(partial, path)


def _replace(partial: pathlib.Path, path: pathlib.Path) -> None:
    remove(path)
    partial.rename(path)
    manifest.sync_directory(path.parent)


def remove(path: pathlib.Path) -> None:
    """Deletes a checkpoint, its manifest first: what is left if that is cut short is unfinished."""
    manifest.path_for(path).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def move_aside(path: pathlib.Path) -> pathlib.Path:
    """Moves a damaged checkpoint to checkpoints/damaged and returns its new path."""
    directory = path.parents[1] / "damaged"
    directory.mkdir(exist_ok=True)
    index, name = 1, f"{path.parent.name}-{path.name}"
    while (aside := directory / f"{name}-{index}").exists():
        index += 1
    return path.rename(aside)


def clean_up(workdir: pathlib.Path) -> None:
    """Completes or deletes what a killed process has left behind; only the run's owner may."""
    for partial in workdir.glob("checkpoints/*/*.partial"):
        if manifest.check(partial) == "intact":  # it was about to take its place
            _replace(partial, partial.with_suffix(""))
        shutil.rmtree(partial, ignore_errors=True)
    for partial in workdir.glob("*.partial"):
        partial.unlink(missing_ok=True)
