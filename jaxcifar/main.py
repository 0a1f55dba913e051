"""The training command: flags, then one call.

python -m jaxcifar.main --config=configs/part1.py [--workdir=runs/part1] [--fresh]
                        [--config.KEY=VALUE ...]
"""

import pathlib
import sys

from absl import flags

from jaxcifar import cli
from jaxcifar import config as config_lib
from jaxcifar.config import ConfigError

_CONFIG = flags.DEFINE_string("config", None, "the experiment's file, such as configs/part1.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "where results go (default: runs/<config's name>)")
_FRESH = flags.DEFINE_bool("fresh", False, "move an old work directory aside and start over")


def main(overrides: list[str]) -> int:
    """Trains and evaluates; returns the exit code."""
    if _CONFIG.value is None:
        raise ConfigError("--config is missing: name an experiment, such as configs/quickstart.py")
    config = config_lib.load(_CONFIG.value)
    for flag in overrides:
        name, _, text = flag.removeprefix("--config.").partition("=")
        config_lib.override(config, name, text)
    config_lib.validate(config)
    directory = pathlib.Path(_WORKDIR.value or f"runs/{pathlib.Path(_CONFIG.value).stem}")

    from jaxcifar import train, workdir  # here: --help and errors need not wait for JAX

    if _FRESH.value and (aside := workdir.move_aside(directory)):
        print(f"the old run is now in {aside}")
    finished = directory.exists() and workdir.finished_summary(config, directory)
    try:
        summary = train.train_and_evaluate(config, directory)
    except train.DivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    if finished:
        print("this run is finished; --fresh starts it over")
    print(
        f"test accuracy {summary['test_acc']:.2f} %  loss {summary['test_loss']:.4f}  "
        f"(epoch {summary['best_epoch']}, validation accuracy {summary['best_val_acc']:.2f} %)\n"
        f"results are in {directory}/"
    )
    return 0


if __name__ == "__main__":
    cli.launch(main, __doc__, (_CONFIG, _WORKDIR, _FRESH), keys=config_lib.describe())
