"""What a run does at its end so that its report shows everything."""

import pathlib

from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import preview
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.report import page
from jaxcifar.spec import ConfigError


def write_for_run(config: ConfigDict, train: Dataset, mesh: Mesh, directory: pathlib.Path) -> str:
    """Writes a run's augmentation preview and its report, and returns a line that says where it
    is, or why there is none: a run does not fail for lack of a report.
    """
    try:
        if config.augment:
            preview.write_samples(config, train, mesh, directory / "preview.png")
        return f"report: {page.write(directory)}"
    except (ConfigError, OSError) as error:
        return f"no report: {error}"
