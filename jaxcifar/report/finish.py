"""What a run does at its end so that its report shows everything."""

import contextlib

from jax.sharding import Mesh

from jaxcifar import preview
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.report import page
from jaxcifar.run import Run
from jaxcifar.spec import first_line


def write_for_run(run: Run, train: Dataset, mesh: Mesh) -> str:
    """Writes a run's augmentation preview and its report, and returns a line that says where it
    is, or why there is none: whatever goes wrong, the run is finished and saved.
    """
    try:
        with contextlib.suppress(Exception):  # the report says that it is missing
            if run.config.augment:
                preview.write_samples(run.config, train, mesh, run.directory / "preview.png")
        return f"report: {page.write(run.directory)}"
    except Exception as error:
        return f"no report: {first_line(error)}"
