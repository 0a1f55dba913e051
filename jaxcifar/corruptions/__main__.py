"""Writes the corruption benchmark for a config's test images, as CIFAR-10-C was released.

python -m jaxcifar.corruptions --config=configs/part1.py --output=DIR [--config.KEY=VALUE ...]

<name>.npy holds all test images at severity 1, then at 2, ..., 5. evaluate scores a run on the
directory with --ood_dir=DIR. An interrupted command continues after the files already there. Frost
needs photographs of another package, pip install --no-deps imagecorruptions, and is left out
without it.
"""

import pathlib

from absl import flags
from ml_collections import ConfigDict

from jaxcifar import cli, corruptions, data, optional
from jaxcifar import config as config_lib
from jaxcifar.corruptions import files
from jaxcifar.spec import ConfigError

_OUTPUT = flags.DEFINE_string("output", None, "the directory to write")


def main(config: ConfigDict) -> int:
    """Writes the files; returns the exit code."""
    if not _OUTPUT.value:
        raise ConfigError("--output is missing: name a directory to write")
    config_lib.validate(config)
    test = data.load(config).test
    names = files.write(test, config.seed, pathlib.Path(_OUTPUT.value))
    for name in corruptions.STANDARD + corruptions.EXTRA:
        if name not in names:
            print(f"left out: {name} ({optional.install('imagecorruptions')})")
    print(f"{len(names)} corruptions of {len(test):,} images: {_OUTPUT.value}")
    return 0


def launch() -> None:
    """Runs the command and exits."""
    cli.launch(main, __doc__, (cli.CONFIG, _OUTPUT), takes_config=True)


if __name__ == "__main__":
    launch()
