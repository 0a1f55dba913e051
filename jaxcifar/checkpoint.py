"""Orbax checkpoints of a run: `last` holds all of its state, `best` the model that scored best.
`load_model` loads a network from either.

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
from jaxcifar.spec import ConfigError, first_line

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
        after it never refers to a missing best.
        """
        self._save("best", step, model_state, progress)
        self._managers["best"].wait_until_finished()

    def restore_last(self, template: State) -> tuple[State, Progress] | None:
        """Returns the newest state that can be read, or None if none was saved.

        Args:
            template: arrays or `jax.ShapeDtypeStruct`s with the shapes and shardings to restore to.

        Raises:
            ConfigError: states were saved, and none can be read.
        """
        steps = sorted(self._managers["last"].all_steps(), reverse=True)
        for step in steps:
            try:
                return self._restore("last", step, template)
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(
                    f"The checkpoint of step {step} cannot be read ({first_line(error)}); trying "
                    "an older one."
                )
        if steps:
            raise ConfigError(
                "no `last` checkpoint of the run can be read; restore them from a backup",
                command_hint="--fresh moves the run aside and starts over",
            )
        return None

    def restore_best(self, template: State) -> tuple[State, Progress]:
        """Returns the best model's state, and the progress when it was saved.

        Args:
            template: as `restore_last`'s.
        """
        return self._restore("best", self._managers["best"].latest_step(), template)

    def close(self) -> None:
        """Waits until everything is on disk."""
        for manager in self._managers.values():
            manager.close()

    def _save(self, which: str, step: int, state: Any, progress: Progress) -> None:
        manager = self._managers[which]
        if step in manager.all_steps():
            manager.delete(step)  # saved before the run was resumed
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
            ),
        )

    def _restore(self, which: str, step: int, template: State) -> tuple[State, Progress]:
        restored = self._managers[which].restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(template), progress=ocp.args.JsonRestore()
            ),
        )
        return restored.state, Progress(**restored.progress)


def load_model(
    workdir: str | os.PathLike,
    which: str | int = "best",
    config_file: str | None = None,
) -> tuple[nnx.Module, ConfigDict]:
    """Returns a run's model, ready to score images (in evaluation mode), and its config.

    It needs neither the run's data nor its devices, and may be called while it is running.
    Nothing in the work directory is executed.

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
    workdir = pathlib.Path(workdir)
    config = read_config(workdir)
    _check_registered(config, config_file)
    path = _find(workdir / "checkpoints", which)
    try:
        tree = read_arrays(path / "state", ("params", "stats"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the checkpoint {str(path)!r} cannot be read ({first_line(error)})"
        ) from error
    leaves = {n: leaf for part in tree.values() for n, leaf in functional.flatten(part).items()}

    def create(num_classes: int) -> nnx.Module:
        return models.from_config(config, num_classes=num_classes, rngs=nnx.Rngs(0))

    # The config does not hold the number of classes: it is the length of the bias that has another
    # length in a network of one class.
    _, params, _ = functional.split(nnx.eval_shape(lambda: create(1)))
    num_classes = 1
    for name, leaf in functional.flatten(params).items():
        if leaf.ndim == 1 and name in leaves and leaf.shape != leaves[name].shape:
            (num_classes,) = leaves[name].shape
    model = nnx.eval_shape(lambda: create(num_classes))
    _check_fits(model, leaves, config, path)
    nnx.update(model, functional.insert(leaves, nnx.to_pure_dict(nnx.state(model))))
    model.eval()
    return model, config


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
        f"unknown model {name!r}: the run's config file {source!r} registers it; pass it as "
        "config_file",
        command_hint=f"--config={source}",
    )


def _check_fits(
    model: nnx.Module, leaves: dict[str, np.ndarray], config: ConfigDict, path: pathlib.Path
) -> None:
    """Checks that an abstract model has the parameters and statistics of a checkpoint."""
    state = functional.flatten(nnx.to_pure_dict(nnx.state(model)))
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    expected = {
        name: leaf.shape
        for name, leaf in state.items()
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # a module's own generator
    }
    wrong = [name for name, shape in expected.items() if shapes.get(name) != shape]
    wrong += [name for name in shapes if name not in state]
    if wrong:
        raise ConfigError(
            f"the checkpoint {str(path)!r} does not fit the model {config.model.name!r}, in "
            f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}; the code that defines "
            "the model may have changed"
        )


def read_arrays(directory: pathlib.Path, parts: tuple[str, ...] = ()) -> functional.Arrays:
    """Returns the tree of a checkpoint's item, or some of its parts, as NumPy arrays, whatever
    devices saved it. Indices in its paths become strings.
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
        + (f"available: best, last, steps {available}" if available else "there is none yet")
    )
