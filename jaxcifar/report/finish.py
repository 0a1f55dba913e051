"""What a run, or the runs of several seeds, do at the end so that the report shows everything."""

import contextlib
import pathlib

from jax.sharding import Mesh

from jaxcifar import picture
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.report import comparison, page
from jaxcifar.run import Run
from jaxcifar.spec import first_line


def write_for_run(run: Run, train: Dataset, mesh: Mesh) -> str:
    """Writes a run's augmentation preview and its report, and returns a line that says where it
    is, or why there is none: whatever goes wrong, the run is finished and saved.
    """
    try:
        with contextlib.suppress(Exception):  # the report says that it is missing
            if run.config.augment:
                picture.write_samples(run.config, train, mesh, run.directory / "preview.png")
        return f"report: {page.write(run.directory)}"
    except Exception as error:
        return f"no report: {first_line(error)}"


def write_for_seeds(parent: pathlib.Path, workdirs: list[pathlib.Path]) -> str:
    """Writes the report that compares the runs of several seeds, and returns such a line, too."""
    try:
        return f"report: {comparison.write(workdirs, parent / 'report.html')}"
    except Exception as error:
        return f"no report: {first_line(error)}"
