"""Checkpoints of a run: `last` holds all of its state, `best` the model that scored best.

They are written in the background; `checkpoint_files` says where they are and which are intact.
`load_model` loads a network from either.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxcifar import array_files, checkpoint_files, errors, manifest, models, parallel
from jaxcifar import config as config_lib
from jaxcifar.background import BackgroundWriter
from jaxcifar.models import functional
from jaxcifar.progress import Progress
from jaxcifar.run import seed_directories
from jaxcifar.spec import ConfigError, first_line
from jaxcifar.step import TrainState

State = TypeVar("State")


class Checkpoints:
    """The checkpoints of a run, for its owner: saves in the background, restores, cleans up."""

    def __init__(self, directory: pathlib.Path, keep: int, check_owner: Callable[[], None]):
        """Reads and writes nothing yet.

        Args:
            directory: the run's `checkpoints`.
            keep: how many `last` to keep.
            check_owner: raises if the directory is not ours any more; called before every save.
        """
        self._directory, self._keep, self._check_owner = directory, keep, check_owner
        self._writer = BackgroundWriter()
        self._best: tuple[int, dict[str, functional.Arrays]] | None = None  # its step and model
        self._best_on_disk: int | None = None

    def save(self, step: int, state: TrainState, progress: Progress) -> None:
        """Schedules saving a state as `last`, after the best model if that is not saved yet.
        Training must not donate the state. Where the disk is slow, only the newest state is saved.

        Raises:
            BaseException: what an earlier save raised.
        """
        text, best = progress.to_json(), self._best

        def write() -> None:
            if best and best[0] != self._best_on_disk:  # before the `last` that refers to it
                self._write("best", *best, text)
                self._best_on_disk = best[0]
            self._write("last", step, state, text)
            self._remove_old()

        self._writer.submit(write)

    def keep_best(self, step: int, model: dict[str, functional.Arrays]) -> None:
        """Keeps the best model so far in memory, to be saved with the next state."""
        self._best = step, model

    def restore_last(self, path: pathlib.Path, template: State, progress: Progress) -> State:
        """Returns the state in a `last` checkpoint, after making sure that the best one that its
        progress refers to is there: it is restored from `last` if that is the same step.

        Args:
            path: the checkpoint, intact.
            template: `jax.ShapeDtypeStruct`s with the shapes and shardings to restore to.
            progress: the checkpoint's.

        Raises:
            ConfigError: it cannot be read, or the best is missing or damaged.
        """
        state = _restore(path, template)
        if progress.best:
            best = self._directory / "best" / str(progress.best["step"])
            condition = manifest.check(best)
            if condition != "intact":
                what = "damaged" if condition == "damaged" else "missing or incomplete"
                if path.name != best.name:
                    raise ConfigError(
                        f"the run's best checkpoint {str(best)!r} is {what}; restore it from a "
                        "backup",
                        command_hint="--fresh moves the run aside and starts over",
                    )
                print(f"the checkpoint {best} is {what}: it is restored from {path}")
                if condition == "damaged":
                    checkpoint_files.move_aside(best)
                self._write("best", progress.best["step"], state.model, progress.to_json())
        for older in (path.parent / str(step) for step in checkpoint_files.steps(path.parent)):
            if manifest.check(older) == "damaged":
                moved = checkpoint_files.move_aside(older)
                print(f"the older checkpoint {older} is damaged; it is now in {moved}")
        self._remove_old()
        return state

    def best_model(self, template: TrainState, progress: Progress) -> dict[str, functional.Arrays]:
        """Returns the best model, from memory or else from disk.

        Raises:
            ConfigError: it cannot be read.
        """
        step = progress.best["step"]
        if self._best and self._best[0] == step:
            return self._best[1]
        return _restore(self._directory / "best" / str(step), template.model)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Waits until everything is on disk, but not after a second Ctrl-C. What a save raises then
        does not replace an error of the run.
        """
        if isinstance(error, KeyboardInterrupt):
            return
        try:
            self.wait()
        except Exception as second:
            if error is None:
                raise
            print(f"the state was not saved: {first_line(second)}")

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
            BaseException: what a save raised.
        """
        self._writer.wait()

    def _write(self, which: str, step: int, state: State, progress: str) -> None:
        self._check_owner()
        directory = self._directory / which
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f"{step}.partial"
        checkpoint_files.remove(partial)
        partial.mkdir()
        try:
            arrays = {name: np.asarray(leaf) for name, leaf in functional.flatten(state).items()}
            array_files.write(partial / "state", arrays)
            (partial / "progress.json").write_text(progress, encoding="utf-8")
            checkpoint_files.commit(partial, directory / str(step))
        finally:
            checkpoint_files.remove(partial)  # of a save that failed

    def _remove_old(self) -> None:
        """Deletes all but the newest few `last`, and every best that is neither the current one nor
        referred to by those. Those newer than the newest complete one are left alone.
        """
        last, best = self._directory / "last", self._directory / "best"
        paths = [last / str(step) for step in checkpoint_files.steps(last)]
        complete = [path for path in paths if manifest.path_for(path).exists()][: self._keep]
        for path in paths[paths.index(complete[0]) :]:
            if path not in complete:
                checkpoint_files.remove(path)
        kept = [checkpoint_files.read_progress(path) for path in complete]
        needed = {progress.best["step"] for progress in kept if progress.best}
        needed.add(self._best_on_disk)
        for step in checkpoint_files.steps(best):
            if step not in needed:
                checkpoint_files.remove(best / str(step))


def load_model(
    workdir: str | os.PathLike,
    which: str | int = "best",
    config_file: str | None = None,
) -> tuple[nnx.Module, ConfigDict]:
    """Returns a run's model, ready to score images (in evaluation mode), and its config.

    The model maps normalized images, float32 [N, H, W, 3], to logits, float32 [N, classes];
    `evaluate.predict` takes images as they are.

    It needs neither the run's data nor its devices, and may be called while it is running.
    Nothing in the work directory is executed. The model's `class_names` are the classes in the
    order of the logits, its `normalization` the (mean, std) that images were normalized with, its
    `image_size` their height and width in pixels.

    Args:
        workdir: the run's work directory.
        which: 'best', 'last', or the step of a checkpoint.
        config_file: the run's config file, if it registers the model; it is run as Python.

    Raises:
        ConfigError: there is no such run or checkpoint, it cannot be read, or its model is not
            registered.
    """
    if config_file:
        config_lib.load(config_file)
    path, progress, leaves = _read(workdir, which)
    config = config_lib.from_dict(progress.config)
    _check_registered(config, config_file)
    num_classes = len(progress.class_names)
    model = nnx.eval_shape(
        lambda: models.from_config(config, num_classes=num_classes, rngs=nnx.Rngs(0))
    )
    _check_fits(model, leaves, config, path)
    nnx.update(model, functional.insert(leaves, nnx.to_pure_dict(nnx.state(model))))
    model.eval()
    model.class_names = tuple(progress.class_names)
    model.normalization = tuple(config.data.mean), tuple(config.data.std)
    model.image_size = config.data.image_size
    return model, config


def read_best(workdir: str | os.PathLike) -> tuple[Progress, dict[str, np.ndarray]]:
    """Returns the progress that a run's best checkpoint records, and the parameters and statistics
    in it by path; the model need not be registered. Otherwise as `load_model`, with its errors.
    """
    return _read(workdir, "best")[1:]


def _read(
    workdir: str | os.PathLike, which: str | int
) -> tuple[pathlib.Path, Progress, dict[str, np.ndarray]]:
    """Returns a checkpoint's path, its progress, and its parameters and statistics by path."""
    checkpoints = pathlib.Path(workdir) / "checkpoints"
    if runs := seed_directories(pathlib.Path(workdir)):
        raise ConfigError(
            f"{str(workdir)!r} holds the runs of {len(runs)} seeds: name one, such as "
            f"{str(runs[0])!r}"
        )
    if not checkpoints.is_dir():
        raise ConfigError(f"{str(workdir)!r} is not the work directory of a run with a checkpoint")
    while True:
        before = sorted(checkpoints.glob("*/*"))
        try:
            path = _find(checkpoints, which)
            progress = checkpoint_files.read_progress(path)
            return path, progress, _read_model(path)
        except ConfigError:
            if sorted(checkpoints.glob("*/*")) == before:  # else the run has saved meanwhile
                raise


def _restore(path: pathlib.Path, template: State) -> State:
    """Returns a checkpoint's arrays in the structure of a template, and with its shardings."""
    arrays = _read_arrays(path)
    expected = functional.flatten(template)
    shapes, expected_shapes = (
        {name: (tuple(leaf.shape), leaf.dtype) for name, leaf in leaves.items()}
        for leaves in (arrays, expected)
    )
    if shapes != expected_shapes:
        names = sorted({name for name, _ in shapes.items() ^ expected_shapes.items()})
        raise ConfigError(
            f"the checkpoint {str(path)!r} does not fit this run, in "
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}; the code that defines the "
            "model or the optimizer may have changed"
        )
    leaves = [parallel.put(arrays[name], leaf.sharding) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _read_model(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the parameters (averaged ones, where there are) and statistics by name."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in _read_arrays(path).items():
        part, _, name_in_model = name.partition(".")
        parts.setdefault(part, {})[name_in_model] = array
    return parts.get("ema", parts.get("params", {})) | parts.get("stats", {})


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with errors.reading(f"the checkpoint {str(path)!r}"):
        return array_files.read(path / "state")


def _check_registered(config: ConfigDict, config_file: str | None) -> None:
    """Checks that the config's model is known here."""
    name, source = config.model.name, config.config_file
    if name in models.MODELS:
        return
    if config_file:
        raise ConfigError(f"config_file={config_file!r} does not register the run's model {name!r}")
    if not source:
        raise ConfigError(f"unknown model {name!r}: register it before loading, as the run did")
    raise ConfigError(
        f"unknown model {name!r}: the run's config file {source!r} registers it; pass that, too "
        f"(in Python: config_file={source!r}; to a command: --config={source})"
    )


def _check_fits(
    model: nnx.Module, leaves: dict[str, np.ndarray], config: ConfigDict, path: pathlib.Path
) -> None:
    """Checks that an abstract model has the parameters and statistics of a checkpoint."""
    state = functional.flatten(nnx.to_pure_dict(nnx.state(model)))
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    expected = functional.shapes(model)
    wrong = [name for name, shape in expected.items() if shapes.get(name) != shape]
    wrong += [name for name in shapes if name not in state]
    if wrong:
        raise ConfigError(
            f"the checkpoint {str(path)!r} does not fit the model {config.model.name!r}, in "
            f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}; the code that defines "
            "the model may have changed"
        )


def _find(checkpoints: pathlib.Path, which: str | int) -> pathlib.Path:
    """Returns the directory of the checkpoint that `load_model` is to load."""
    saved = {kind: checkpoint_files.steps(checkpoints / kind) for kind in ("best", "last")}
    if which == "last" and saved["last"]:
        return checkpoint_files.find_newest(checkpoints / "last")
    if which == "best" and saved["best"]:
        candidates = [checkpoints / "best" / str(saved["best"][0])]  # no other is the best
    else:
        candidates = [
            checkpoints / kind / str(which) for kind in saved if str(which) in map(str, saved[kind])
        ]
    for path in candidates:
        if manifest.check(path) == "intact":
            return path
    if candidates:
        raise ConfigError(
            f"the checkpoint {str(candidates[0])!r} is damaged; choose another, or resume the run, "
            "which restores its best if it can"
        )
    steps = sorted({step for kind in saved for step in saved[kind]})
    available = [kind for kind in saved if saved[kind]]
    raise ConfigError(
        f"{str(checkpoints)!r} has no checkpoint {which!r}; "
        + (f"available: {', '.join(available)}, steps {steps}" if steps else "there is none yet")
    )
