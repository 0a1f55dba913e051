"""The registered datasets by name, and `load`, which reads and splits what a config names.

A dataset is small enough to be one array in memory, so there is no input pipeline: the training
loop puts the arrays on the device once and every step gathers its batch there. Each dataset's
reader is its own module, imported on use: importing this package needs neither JAX nor Pillow.
"""

import dataclasses
from typing import Annotated

from ml_collections import ConfigDict

from jaxcifar import spec
from jaxcifar.data import splits
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.data.splits import Parts, Splits
from jaxcifar.registry import Entry, Registry
from jaxcifar.spec import ConfigError

# CIFAR-100's by channel, over images in [0, 1], as the study rounds them; for every dataset
CIFAR_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR_STD = (0.2675, 0.2565, 0.2761)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetEntry(Entry):
    """A registered dataset: a function that returns the Datasets (train, test), or `Parts` if there
    is a validation set or no test set.

    If it has a parameter `image_size`, it is passed the side of the images in pixels.
    `stratified` says how a validation set is split off unless the config does.
    """

    stratified: bool = False


DATASETS = Registry(
    "dataset",
    reserved=("image_size",),
    taken=("name", "image_size", "val_fraction", "split", "mean", "std", "limit"),
    entry_type=DatasetEntry,
)
dataset = DATASETS.register


def load(config: ConfigDict) -> Splits:
    """Returns the dataset that the config names, with a validation set; see `read` and `split`, and
    their errors.
    """
    return split(config, read(config))


def read(config: ConfigDict) -> Parts:
    """Returns the dataset that the config names, as it is before a validation set is split off.

    Raises:
        ConfigError: there is no such dataset, it cannot be read, or its images have another size
            than `config.data.image_size`.
    """
    size = config.data.image_size
    parts = Parts(*DATASETS[config.data.name].call(config.data, image_size=size))
    for part in parts:
        if part is None:
            continue
        height, width = part.images.shape[1:3]
        if (height, width) != (size, size):
            raise ConfigError(
                f"config.data.image_size={size}, but the images of {config.data.name!r} have "
                f"{height}×{width} pixels"
                + (f": set it to {height}" if height == width else ": they must be square")
            )
    return parts


def split(config: ConfigDict, parts: Parts) -> Splits:
    """Returns the dataset with a validation set, split off the training images where there is none
    (`config.data.val_fraction`, `config.seed`), and with `config.data.limit` training images drawn
    from them, if that is set.

    Raises:
        ConfigError: there are too few images to be split, or data.limit exceeds their number.
    """
    from jaxcifar import parallel  # lazy: config imports this module without JAX
    from jaxcifar.rng import Stream

    parallel.setup(config)  # a notebook's first use of JAX may be this one
    how = config.data.split
    if how == "auto":
        how = "stratified" if DATASETS[config.data.name].stratified else "random"
    train, val, test = splits.split(
        parts,
        val_fraction=config.data.val_fraction,
        stratified=how == "stratified",
        seed=config.seed,
    )
    limit = config.data.limit
    if limit > len(train):
        valid = f"at most the number of training images, {len(train)}"
        raise ConfigError(spec.invalid("config.data.limit", limit, valid))
    if limit:
        rows = splits.permutation(config.seed, Stream.LIMIT, len(train))
        train = train.take(rows[:limit])
    return Splits(train, val, test)


# --- the datasets, by name ------------------------------------------------------------------------


@dataset
def cifar100(*, dir: str = "", archive: str = "") -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of CIFAR-100, with its 20 superclasses.

    Args:
        dir: tfds's data directory ('': $TFDS_DATA_DIR, else ~/tensorflow_datasets).
        archive: an official CIFAR tar.gz (binary or python version) or its extracted folder
            ('': download).
    """
    from jaxcifar.data import cifar

    return cifar.load("cifar100", dir, archive)


@dataset
def cifar10(*, dir: str = "", archive: str = "") -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of CIFAR-10.

    Args:
        dir: tfds's data directory ('': $TFDS_DATA_DIR, else ~/tensorflow_datasets).
        archive: an official CIFAR tar.gz (binary or python version) or its extracted folder
            ('': download).
    """
    from jaxcifar.data import cifar

    return cifar.load("cifar10", dir, archive)


@dataset
def synthetic100(
    *, image_size: int = 32, synthetic_size: Annotated[int, spec.between(0, 1_000_000)] = 0
) -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of a hundred synthetic classes, which need no download.

    Args:
        synthetic_size: N training and N/5 test images (0: 50,000 + 10,000).
    """
    from jaxcifar.data import synthetic

    return synthetic.load(synthetic_size, image_size)


@dataset("folder", stratified=True)  # a function of this name would hide the module
def image_folder(
    *, image_size: int = 32, dir: Annotated[str, spec.described("the path of a folder", bool)]
) -> Parts:
    """Returns the images of a folder on disk.

    Args:
        dir: the root of train/<class>/* and test/<class>/*, val/<class>/* or both; or of
            <class>/*, to be split.
    """
    from jaxcifar.data import folder

    return folder.load(dir, image_size)
