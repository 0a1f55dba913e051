"""A smoke run: everything that a config's run does, on a few images, before that costs hours."""

import json
import pathlib
import shutil
import time

from ml_collections import ConfigDict

from jaxcifar import checkpoint_files, data, seeds
from jaxcifar.data import Parts
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError

NUM_EVALUATED = 64  # validation and test images
_FULL_STEPS = 2


def smoke(config: ConfigDict, workdir: str | pathlib.Path) -> str:
    """Runs the config's model, batches, augmentation and weights for an epoch of two full batches
    and a short one; saves, resumes, tests and reports. Returns what was done, in a sentence.

    Args:
        config: the run's.
        workdir: the run's work directory; the smoke run's is `<workdir>-smoke`, replaced each time.

    Raises:
        ConfigError: as the run itself.
    """
    from jaxcifar.train import train_run  # lazy: errors in the config should not wait for JAX

    started = time.monotonic()
    config = _shorten(config)
    directory = pathlib.Path(f"{workdir}-smoke")
    with Run.claim(config, directory, fresh=True) as run:
        if run.moved_to:
            shutil.rmtree(run.moved_to, ignore_errors=True)
        print(f"smoke run in {directory}: {_FULL_STEPS} full steps and a short one; compiling")
        shared = seeds.Shared(images=_shorten_data(config))
        train_run(run, shared=shared)
        first = _losses(directory)
        for kind in ("best", "last"):
            folder = directory / "checkpoints" / kind
            for step in checkpoint_files.steps(folder):
                if step > _FULL_STEPS:
                    checkpoint_files.remove(folder / str(step))
    print(f"interrupted: resuming after step {_FULL_STEPS}")
    with Run.claim(config, directory) as run:
        train_run(run, shared=shared)
    is_same = "the same" if _losses(directory) == first else "other"
    return (
        f"smoke run passed in {time.monotonic() - started:.0f} s: trained, saved, resumed to "
        f"{is_same} losses, tested, reported in {directory}/"
    )


def _shorten(config: ConfigDict) -> ConfigDict:
    """Returns the config of a smoke run."""
    if config.parallel.distributed or config.parallel.coordinator:
        raise ConfigError(
            "--smoke runs in one process: leave out config.parallel.distributed and "
            "config.parallel.coordinator"
        )
    config = config.copy_and_resolve_references()
    config.num_epochs = config.num_seeds = 1
    config.checkpoint.every_steps, config.checkpoint.keep = _FULL_STEPS, 2
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


def _losses(directory: pathlib.Path) -> list[float]:
    """Returns the losses in a run's records."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)[key] for line in lines for key in ("train_loss", "val_loss")]
