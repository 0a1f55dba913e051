"""What the processes of a run have other than process 0, which alone has the work directory.

Stand-ins for `Run` and `Checkpoints` that take part in everything that is decided or computed
together, and read, write and print nothing.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar import distributed
from jaxcifar.data import Splits
from jaxcifar.progress import Progress
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError

if TYPE_CHECKING:
    from jaxcifar.checkpoint import Checkpoints

# Keys in which the processes may differ: places on their own machines, who they are, and what only
# process 0 does.
_OWN_KEYS = ("config_file", "data.dir", "data.archive", "parallel.coordinator")
_OWN_KEYS += ("parallel.process_id", "wandb.mode", "tensorboard", "eval.ood_dir")


class FollowerRun(Run):
    """Process 0's run, as the others see it; entering it silences standard output."""

    is_main = False

    def __init__(
        self,
        config: ConfigDict,
        directory: pathlib.Path,
        progress: Progress | None,
        summary: dict[str, Any] | None,
    ):
        """Checks nothing; use `claim`."""
        config = config.copy_and_resolve_references()
        config.wandb.mode, config.tensorboard, config.eval.ood_dir = "disabled", False, ""
        super().__init__(config, directory, lock=None)
        self.progress, self._summary = progress, summary
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> "FollowerRun":
        output = self._exit.enter_context(open(os.devnull, "w", encoding="utf-8"))
        self._exit.enter_context(contextlib.redirect_stdout(output))
        return self

    def __exit__(self, *exception: Any) -> None:
        self._exit.close()

    def finished_summary(self) -> dict[str, Any] | None:
        """Returns the summary that process 0 has found."""
        return self._summary

    def write_copies(self, progress: Progress) -> None:
        """Process 0 does that."""

    def remove_summary(self) -> None:
        """Process 0 does that."""

    def add_record(self, record: dict[str, float]) -> None:
        """Process 0 does that."""


class FollowerCheckpoints(contextlib.AbstractContextManager):
    """Checkpoints that process 0 writes and reads."""

    def save(self, step: int, state: Any, progress: Progress) -> None:
        """Process 0 does that."""

    def keep_best(self, step: int, model: Any) -> None:
        """Process 0 does that."""

    def restore_last(self, path: pathlib.Path | None, template: Any, progress: Progress) -> Any:
        """Returns zeros in place of what process 0 reads, to be replaced by that."""
        import jax
        import numpy as np

        from jaxcifar import parallel

        return jax.tree.map(
            lambda x: parallel.put(np.zeros(x.shape, x.dtype), x.sharding), template
        )

    def __exit__(self, *exception: Any) -> None:
        """There is nothing to wait for."""


def claim(config: ConfigDict, workdir: str | pathlib.Path, *, fresh: bool = False) -> Run:
    """Returns `Run.claim` of process 0, and in the others what they have in place of it. With
    `parallel.distributed` this is where the processes find each other.

    Raises:
        ConfigError: as `Run.claim`, in all processes; the processes cannot be connected, or have
            different configs.
    """
    if not (isinstance(config, ConfigDict) and config.get("parallel", {}).get("distributed")):
        return Run.claim(config, workdir, fresh=fresh)
    config_lib.validate(config)
    distributed.initialize(config.parallel)
    from jaxcifar import parallel

    parallel.setup(config)
    _check_same_config(config)
    run = None
    try:
        with distributed.together():
            if distributed.is_main():
                run = Run.claim(config, workdir, fresh=fresh)
        found = None
        if run:
            progress = run.progress and run.progress.to_json()
            found = {"progress": progress, "summary": run.finished_summary()}
            found["pretrained"] = run.config.model.pretrained, run.config.pretrained_sha256
        found = distributed.share_json(found)
    except BaseException:
        if run:
            run.lock.release()
        raise
    progress = found["progress"] and Progress.from_json(found["progress"])
    if run:
        return run
    run = FollowerRun(config, pathlib.Path(workdir), progress, found["summary"])
    run.config.model.pretrained, run.config.pretrained_sha256 = found["pretrained"]
    return run


def open_checkpoints(run: Run) -> "Checkpoints | FollowerCheckpoints":
    """Returns a run's checkpoints."""
    if not run.is_main:
        return FollowerCheckpoints()
    from jaxcifar.checkpoint import Checkpoints  # lazy: it imports JAX

    return Checkpoints(run.directory / "checkpoints", run.config.checkpoint.keep, run.lock.check)


def check_same_data(splits: Splits) -> None:
    """Checks that all processes train and validate on the same images.

    Raises:
        ConfigError: they do not.
    """
    if distributed.num_processes() > 1:
        fingerprint = splits.train.fingerprint() + splits.val.fingerprint()
        distributed.check_same(
            fingerprint, "its images differ from those of process 0: give all the same data"
        )


def _check_same_config(config: ConfigDict) -> None:
    """Checks that the config is process 0's in all that may differ between processes."""
    own = json.loads(config_lib.to_json(config))
    expected = distributed.share_json(own)
    with distributed.together():
        before, after = _flatten(expected), _flatten(own)
        lines = [
            f"{name}: process 0 has {before.get(name)!r}, this one {after.get(name)!r}"
            for name in before | after
            if before.get(name) != after.get(name) and name not in _OWN_KEYS
        ]
        if lines:
            raise ConfigError("its config is not that of process 0:\n  " + "\n  ".join(lines))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
