"""Writing the benchmark's files for a data set, laid out as the released ones.

<name>.npy          uint8 [5·N, H, W, 3]: the N images at severity 1, then at 2, ..., 5
labels.npy          integers [5·N]
corruptions.json    whose corruptions these are: the digest of the images and the seed
"""

import json
import pathlib

import numpy as np

from jaxcifar import errors, manifest
from jaxcifar.corruptions.apply import available, generate
from jaxcifar.corruptions.registry import NUM_SEVERITIES
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.progress_bar import ProgressBar
from jaxcifar.spec import ConfigError


def write(dataset: Dataset, seed: int, directory: pathlib.Path) -> list[str]:
    """Writes the files of all `available` corruptions to a directory and returns their names.

    One image array at one severity is in memory at a time. Files appear under their names when they
    are complete; those that are there already, from an interrupted call, are kept.

    Args:
        dataset: images uint8 [N, H, W, 3] and their labels.
        seed: see `generate`.
        directory: a new or empty one, or that of an earlier call with the same images and seed.

    Raises:
        ConfigError: the directory holds other files, or the images cannot be corrupted.
        OSError: it cannot be written.
    """
    _claim(directory, {"images": dataset.fingerprint(), "seed": seed})
    with (
        manifest.replacing(directory / "labels.npy") as temporary,
        open(temporary, "wb") as file,
    ):
        np.save(file, np.tile(dataset.labels, NUM_SEVERITIES).astype(np.int64))
    names = available()
    missing = [name for name in names if not (directory / f"{name}.npy").exists()]
    shape = (NUM_SEVERITIES * len(dataset), *dataset.images.shape[1:])
    done = (len(names) - len(missing)) * shape[0]
    with ProgressBar("corrupting", len(names) * shape[0]) as bar:
        for name in missing:
            # written in order, not mapped: where the disk is full, a store would end the process
            with (
                manifest.replacing(directory / f"{name}.npy") as temporary,
                open(temporary, "wb") as file,
            ):
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for _, _, images in generate(dataset.images, seed, [name]):
                    file.write(np.ascontiguousarray(images).data)
                    done += len(images)
                    bar.update(done, name)
    return names


def _claim(directory: pathlib.Path, identity: dict[str, str | int]) -> None:
    """Makes the directory this data set's, or checks that it is."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "corruptions.json"
    if not path.exists():
        if any(directory.glob("*.npy")):
            raise ConfigError(
                f"output={str(directory)!r} holds files that were not written by this command; "
                "name a new directory"
            )
        manifest.write_json(path, identity)
    with errors.reading(f"the file {str(path)!r}", "name a new directory"):
        found = json.loads(path.read_bytes())
    if found != identity:
        raise ConfigError(
            f"output={str(directory)!r} holds corruptions of other images or of another seed; "
            "name a new directory"
        )
