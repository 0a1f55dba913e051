"""Compares jaxcifar with the PyTorch and torchvision that are installed.

python -m jaxcifar.parity [--output=FILE.html]

Layers, networks, initial parameters, optimizers, schedules, augmentation and training steps are
computed on both sides from the same inputs. The page says for each the largest difference, the
tolerance and its reason: in the terminal, and in FILE.html (by default parity.html), which loads
nothing from elsewhere. It takes about a minute and a half on two cores. Exit code 1: a row
disagrees.
"""

import pathlib
import time

from absl import flags

from jaxcifar import cli, optional
from jaxcifar.spec import ConfigError

_OUTPUT = flags.DEFINE_string("output", "parity.html", "the .html file to write")


def main() -> int:
    """Shows and writes the page; returns the exit code."""
    output = pathlib.Path(_OUTPUT.value)
    if output.suffix != ".html":
        raise ConfigError(f"--output={str(output)!r} must be a file named *.html")

    # lazy: --help and errors should not wait for JAX and PyTorch
    from jaxcifar.torchvision_compat import import_torchvision

    try:
        import_torchvision()
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: {optional.install('torch')}") from None

    from jaxcifar.parity import page, run

    started = time.perf_counter()
    versions = run.versions()
    results = page.show(run.run_all(), versions)
    print(page.write(results, versions, time.perf_counter() - started, output))
    return 1 if page.failures(results) else 0


def launch() -> None:
    """Runs the command and exits."""
    cli.launch(main, __doc__, (_OUTPUT,))


if __name__ == "__main__":
    launch()
