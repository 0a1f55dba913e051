"""A smoke run: everything that a config's run does, on a few images, before that costs hours."""

import pathlib
import shutil
import signal
import time

from ml_collections import ConfigDict

from jaxcifar import data, seeds
from jaxcifar.data import Parts
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError

NUM_EVALUATED = 64  # validation and test images
_FULL_STEPS = 2


def smoke(config: ConfigDict, workdir: str | pathlib.Path) -> str:
    """Runs the config's model, batches, augmentation and weights for an epoch of two full batches
    and a short one; is interrupted between them, resumes, tests and reports. Returns a sentence
    about that.

    Args:
        config: the run's.
        workdir: the run's work directory; the smoke run's is `<workdir>-smoke`, replaced each time.

    Raises:
        ConfigError: as the run itself.
    """
    # lazy: errors in the config should not wait for JAX
    from jaxcifar.profiling import StepProfile
    from jaxcifar.train import train_run

    class Interruption(StepProfile):
        """Asks the run to stop once its full steps are done, as a job scheduler would."""

        steps_left, is_due = _FULL_STEPS, False

        def count(self, num_steps: int, result: object) -> None:
            self.steps_left -= num_steps
            if self.steps_left <= 0 and not self.is_due:
                self.is_due = True
                signal.raise_signal(signal.SIGTERM)

    started = time.monotonic()
    config = _shorten(config)
    directory = pathlib.Path(f"{workdir}-smoke")
    with Run.claim(config, directory, fresh=True) as run:
        if run.moved_to:
            shutil.rmtree(run.moved_to, ignore_errors=True)
        print(
            f"smoke run in {directory}: {_FULL_STEPS} full steps, an interruption, a short step; "
            "compiling takes longest"
        )
        shared, interruption = seeds.Shared(images=_shorten_data(config)), Interruption(None)
        interruption.steps_left = min(_FULL_STEPS, len(shared.images.train) // config.batch_size)
        done = "trained"
        try:
            train_run(run, interruption, shared)
        except SystemExit:
            if not interruption.is_due:  # someone else's signal
                raise
            done = "trained, interrupted, resumed"
    if done != "trained":
        with Run.claim(config, directory) as run:
            train_run(run, shared=shared)
    seconds = time.monotonic() - started
    return f"smoke run passed in {seconds:.0f} s: {done}, tested, reported in {directory}/"


def _shorten(config: ConfigDict) -> ConfigDict:
    """Returns the config of a smoke run."""
    if config.parallel.distributed or config.parallel.coordinator:
        raise ConfigError(
            "--smoke runs in one process: leave out config.parallel.distributed and "
            "config.parallel.coordinator"
        )
    config = config.copy_and_resolve_references()
    config.num_epochs = config.num_seeds = 1
    config.data.limit = 0
    config.eval.ood_dir = ""
    config.wandb.mode, config.tensorboard = "disabled", False
    return config


def _shorten_data(config: ConfigDict) -> Parts:
    """Returns the first images of each part of the config's dataset; prints what is too small."""
    parts = data.read(config)
    train, val, test = splits = data.split(config, parts)
    for note in data.splits.notes(splits, parts, config.batch_size):
        print(note)
    steps = _FULL_STEPS * config.batch_size + max(1, config.batch_size // 2)
    return Parts(
        train.take(slice(steps)), test.take(slice(NUM_EVALUATED)), val.take(slice(NUM_EVALUATED))
    )
