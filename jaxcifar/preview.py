"""Draws what augmentations and corruptions do to a config's training images, as one labeled PNG.

python -m jaxcifar.preview --config=configs/part3.py --output=aug.png [--config.KEY=VALUE ...]

The first row shows original images, the next rows show samples of the config's `augment`, then
every registered transform has its own row, and every corruption one with its severities.
"""

from absl import flags
from ml_collections import ConfigDict

from jaxcifar import cli
from jaxcifar import config as config_lib
from jaxcifar.spec import ConfigError

_OUTPUT = flags.DEFINE_string("output", None, "the .png file to write")


def main(config: ConfigDict) -> int:
    """Writes the picture; returns the exit code."""
    if not _OUTPUT.value:
        raise ConfigError("--output is missing: name a file to write, such as aug.png")
    config_lib.validate(config)

    from jaxcifar import picture  # lazy: --help and errors should not wait for JAX

    print(picture.write(config, _OUTPUT.value))
    return 0


def launch() -> None:
    """Runs the command and exits."""
    cli.launch(main, __doc__, (cli.CONFIG, _OUTPUT), takes_config=True)


if __name__ == "__main__":
    launch()
