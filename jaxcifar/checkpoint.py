"""Orbax checkpoints of a run: `last` holds all of its state, `best` the model that scored best.

checkpoints/last/<step>/{state,progress}     the last few, for resuming
checkpoints/best/<step>/{state,progress}     one, for scoring and use
"""

import pathlib
from typing import Any, TypeVar

import orbax.checkpoint as ocp

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

    def save_last(self, step: int, state: Any, progress: dict) -> None:
        """Saves all of a run's state: a pytree of arrays, and what JSON can hold."""
        self._save("last", step, state, progress)

    def save_best(self, step: int, model_state: Any, progress: dict) -> None:
        """Saves the best model so far and returns when it is on disk, so that a `last` saved
        after it never speaks of a best that is not there.
        """
        self._save("best", step, model_state, progress)
        self._managers["best"].wait_until_finished()

    def restore_last(self, like: State) -> tuple[State, dict] | None:
        """Returns the newest state that can be read, or None if there is none.

        Args:
            like: arrays or `jax.ShapeDtypeStruct`s with the shapes and shardings to restore to.
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
        return None

    def restore_best(self, like: State) -> tuple[State, dict]:
        """Returns the best model's state; see `restore_last`."""
        return self._restore("best", self._managers["best"].latest_step(), like)

    def close(self) -> None:
        """Waits until everything is on disk."""
        for manager in self._managers.values():
            manager.close()

    def _save(self, which: str, step: int, state: Any, progress: dict) -> None:
        manager = self._managers[which]
        if step in manager.all_steps():
            manager.delete(step)  # a resumed run has come here again
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
            ),
        )

    def _restore(self, which: str, step: int, like: State) -> tuple[State, dict]:
        restored = self._managers[which].restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore()
            ),
        )
        return restored.state, restored.progress
