"""The registered datasets, `load`, and the split into training, validation and test images.

A dataset is small enough to be one array in memory, so there is no input pipeline: the training
loop puts the arrays on the device once and every step gathers its batch there. Each dataset's
reader is its own module, imported on use: importing this package needs neither JAX nor Pillow.
"""

from typing import Annotated, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxcifar import spec
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.registry import Registry
from jaxcifar.spec import ConfigError

# CIFAR-100's by channel, over images in [0, 1], as the study rounds them; for every dataset
CIFAR_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR_STD = (0.2675, 0.2565, 0.2761)

DATASETS = Registry("dataset", taken=("name", "val_fraction", "mean", "std", "limit"))
dataset = DATASETS.register


class Splits(NamedTuple):
    """The three disjoint parts of a dataset."""

    train: Dataset
    val: Dataset
    test: Dataset


def load(config: ConfigDict) -> Splits:
    """Loads the dataset that the config names and splits a validation set off its training set;
    see `read` and `split`.
    """
    return split(config, *read(config))


def read(config: ConfigDict) -> tuple[Dataset, Dataset]:
    """Reads the dataset that the config names; returns its training and its test images.

    Raises:
        ConfigError: there is no such dataset, or it cannot be read.
    """
    entry = DATASETS[config.data.name]
    return entry.function(**entry.arguments(config.data))


def split(config: ConfigDict, train: Dataset, test: Dataset) -> Splits:
    """Splits a validation set off the training images.

    The split is random, seeded by `config.seed` and not stratified by label, with sizes as in
    PyTorch's `random_split`: `int((1 - val_fraction) * N)` train, the rest validate.

    Raises:
        ConfigError: there are too few images to be split, or data.limit exceeds their number.
    """
    num_train = int((1 - config.data.val_fraction) * len(train))
    if not 0 < num_train < len(train):
        raise ConfigError(
            f"config.data.val_fraction={config.data.val_fraction} leaves nothing to "
            f"{'validate on' if num_train else 'train on'} (of {len(train)} images)"
        )

    import jax  # lazy: config imports this module without JAX

    from jaxcifar import parallel
    from jaxcifar.rng import Stream, stream

    parallel.setup(config)  # a notebook's first use of JAX may be this one

    def permutation(which: Stream, count: int) -> np.ndarray:
        return np.asarray(jax.random.permutation(stream(config.seed, which), count))

    rows = permutation(Stream.SPLIT, len(train))
    train, val = train.take(rows[:num_train]), train.take(rows[num_train:])
    limit = config.data.limit
    if limit > len(train):
        valid = f"at most the number of training images, {len(train)}"
        raise ConfigError(spec.invalid("config.data.limit", limit, valid))
    if limit:
        train = train.take(permutation(Stream.LIMIT, len(train))[:limit])
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
    *, synthetic_size: Annotated[int, spec.between(0, 1_000_000)] = 0
) -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of a hundred synthetic classes, which need no download.

    Args:
        synthetic_size: N training and N/5 test images (0: 50,000 + 10,000).
    """
    from jaxcifar.data import synthetic

    return synthetic.load(synthetic_size)


@dataset("folder")  # a function of this name would hide the module
def image_folder(
    *, dir: Annotated[str, spec.described("the path of a folder", bool)]
) -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of a folder on disk.

    Args:
        dir: the root of train/<class>/*, test/<class>/*.
    """
    from jaxcifar.data import folder

    return folder.load(dir)
