"""Orbax checkpoints of a run: `last` holds all of its state, `best` the model that scored best.
`load_model` makes a network of either.

checkpoints/last/<step>/{state,progress}     the last few, for resuming
checkpoints/best/<step>/{state,progress}     one, for scoring and use
"""

import dataclasses
import os
import pathlib
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar import models
from jaxcifar.models import functional
from jaxcifar.progress import Progress
from jaxcifar.run import read_config
from jaxcifar.spec import ConfigError

State = TypeVar("State")


class Checkpoints:
    """The checkpoints in one directory. Saving to `last` goes on in the background."""

    def __init__(self, directory: pathlib.Path, keep: int):
        self._managers = {
            which: ocp.CheckpointManager(
                directory.absolute() / which,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=count, cleanup_tmp_directories=True
                ),
            )
            for which, count in (("last", keep), ("best", 1))
        }

    def save_last(self, step: int, state: Any, progress: Progress) -> None:
        """Saves all of a run's state, a pytree of arrays, and its progress."""
        self._save("last", step, state, progress)

    def save_best(self, step: int, model_state: Any, progress: Progress) -> None:
        """Saves the best model so far and returns when it is on disk, so that a `last` saved
        after it never speaks of a best that is not there.
        """
        self._save("best", step, model_state, progress)
        self._managers["best"].wait_until_finished()

    def restore_last(self, like: State) -> tuple[State, Progress] | None:
        """Returns the newest state that can be read, or None if none was saved.

        Args:
            like: arrays or `jax.ShapeDtypeStruct`s with the shapes and shardings to restore to.

        Raises:
            ConfigError: states were saved, and none can be read.
        """
        steps = sorted(self._managers["last"].all_steps(), reverse=True)
        for step in steps:
            try:
                return self._restore("last", step, like)
            except (OSError, ValueError, KeyError) as error:
                reason = str(error).splitlines()[0]
                print(
                    f"The checkpoint of step {step} cannot be read ({reason}); trying older ones."
                )
        if steps:
            raise ConfigError(
                "none of the run's last checkpoints can be read; restore them from a backup",
                command_hint="--fresh moves the run aside and starts over",
            )
        return None

    def restore_best(self, like: State) -> tuple[State, Progress]:
        """Returns the best model's state; see `restore_last`."""
        return self._restore("best", self._managers["best"].latest_step(), like)

    def close(self) -> None:
        """Waits until everything is on disk."""
        for manager in self._managers.values():
            manager.close()

    def _save(self, which: str, step: int, state: Any, progress: Progress) -> None:
        manager = self._managers[which]
        if step in manager.all_steps():
            manager.delete(step)  # a resumed run has come here again
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
            ),
        )

    def _restore(self, which: str, step: int, like: State) -> tuple[State, Progress]:
        restored = self._managers[which].restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore()
            ),
        )
        return restored.state, Progress(**restored.progress)


def load_model(
    workdir: str | os.PathLike,
    which: str | int = "best",
    config_file: str | None = None,
) -> tuple[nnx.Module, ConfigDict]:
    """Returns a run's model, ready to score images (in evaluation mode), and its config.

    It needs neither the run's data nor its devices, and may be called while the run goes on.
    Nothing in the work directory is executed.

    Args:
        workdir: the run's work directory.
        which: 'best', 'last', or the step of a checkpoint.
        config_file: the run's config file, where that registers the model; it is run as Python.

    Raises:
        ConfigError: there is no such run or checkpoint, it cannot be read, or its model is not
            registered.
    """
    if config_file:
        config_lib.load(config_file)
    workdir = pathlib.Path(workdir)
    config = read_config(workdir)
    _check_registered(config)
    path = _find(workdir / "checkpoints", which)
    try:
        tree = read_arrays(path / "state", ("params", "stats"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the checkpoint {str(path)!r} cannot be read ({reason})") from error
    leaves = {n: leaf for part in tree.values() for n, leaf in functional.flatten(part).items()}

    def create(num_classes: int) -> nnx.Module:
        return models.from_config(config, num_classes=num_classes, rngs=nnx.Rngs(0))

    # The number of classes is the data's, not the config's: the one bias that has another length
    # in a network of a single class has it.
    _, params, _ = functional.split(nnx.eval_shape(lambda: create(1)))
    num_classes = 1
    for name, leaf in functional.flatten(params).items():
        if leaf.ndim == 1 and leaf.shape != leaves[name].shape:
            (num_classes,) = leaves[name].shape
    model = nnx.eval_shape(lambda: create(num_classes))
    nnx.update(model, functional.insert(leaves, nnx.to_pure_dict(nnx.state(model))))
    model.eval()
    return model, config


def _check_registered(config: ConfigDict) -> None:
    """Checks that the config's model is known here."""
    if config.model.name not in models.MODELS:
        raise ConfigError(
            f"there is no model {config.model.name!r} here; the run's config file "
            f"{config.config_file!r} registers it: pass it as config_file",
            command_hint=f"--config={config.config_file}",
        )


def read_arrays(directory: pathlib.Path, parts: tuple[str, ...] = ()) -> functional.Arrays:
    """Returns the tree in one item of a checkpoint, or these parts of it, as NumPy arrays: the
    devices here need not be those that saved it. Indices in its paths come back as strings.
    """
    handler = ocp.PyTreeCheckpointHandler()
    directory = directory.absolute()
    saved = dict(handler.metadata(directory).tree)
    saved = {part: saved[part] for part in parts or saved}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
    args = ocp.args.PyTreeRestore(saved, as_numpy, partial_restore=True)
    return handler.restore(directory, args=args)


def _find(checkpoints: pathlib.Path, which: str | int) -> pathlib.Path:
    """Returns the directory of the checkpoint that `load_model` is to load."""
    steps = {
        kind: sorted(int(p.name) for p in (checkpoints / kind).glob("*") if p.name.isdecimal())
        for kind in ("best", "last")
    }
    if steps.get(which):
        return checkpoints / which / str(steps[which][-1])
    for kind in steps:
        if str(which) in map(str, steps[kind]):
            return checkpoints / kind / str(which)
    available = sorted({step for kind in steps for step in steps[kind]})
    raise ConfigError(
        f"{str(checkpoints)!r} has no checkpoint {which!r}; "
        + (f"there are best, last and the steps {available}" if available else "there is none yet")
    )
