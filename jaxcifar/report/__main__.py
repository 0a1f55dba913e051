"""Reports on runs.

python -m jaxcifar.report RUN [--output=FILE.html]
python -m jaxcifar.report RUN RUN [RUN ...] [--output=FILE.html]

The report of one run is written to <RUN>/report.html, from the files in its work directory alone;
for the work directory of several seeds it compares their runs. A report on several runs compares
them, in comparison.html: runs that differ only by seed count as one, with their mean and spread.
Runs may be running or interrupted. The files load nothing from elsewhere.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from jaxcifar import cli
from jaxcifar.run import seed_directories
from jaxcifar.spec import ConfigError

_OUTPUT = flags.DEFINE_string("output", None, "the .html file to write")


def main(workdirs: Sequence[str]) -> int:
    """Writes the report; returns the exit code."""
    if not workdirs:
        raise ConfigError("no run is named: write the work directory of one or several")
    output = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
    if output and output.suffix != ".html":
        raise ConfigError(f"--output={str(output)!r} must be a file named *.html")
    runs = seed_directories(pathlib.Path(workdirs[0])) if len(workdirs) == 1 else []
    if runs:
        output, workdirs = output or pathlib.Path(workdirs[0], "report.html"), runs
    if len(workdirs) == 1 and not runs:
        from jaxcifar.report import page  # lazy: --help should not wait for them

        print(page.write(workdirs[0], output))
    else:
        from jaxcifar.report import comparison

        print(comparison.write(workdirs, output or pathlib.Path("comparison.html")))
    return 0


def launch() -> None:
    """Runs the command and exits."""
    cli.launch(main, __doc__, (_OUTPUT,), takes_arguments=True)


if __name__ == "__main__":
    launch()
