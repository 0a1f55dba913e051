"""Data sets as arrays: their rows, `load`, and the split into training, validation and test.

A data set is small enough to be one array in memory, so there is no input pipeline: the training
loop puts the arrays on the device once and every step gathers its batch there. How each data set
is read stands in a module of its own, which is imported when it is loaded: importing this needs
neither JAX nor Pillow.
"""

from typing import Annotated, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxcifar import spec
from jaxcifar.data.dataset import Dataset
from jaxcifar.registry import Registry
from jaxcifar.spec import ConfigError, NonNegativeInt

# CIFAR-100's by channel, over images in [0, 1], as the study rounds them; for every data set
CIFAR_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR_STD = (0.2675, 0.2565, 0.2761)

DATASETS = Registry("data set")


class Splits(NamedTuple):
    """The three disjoint parts of a data set."""

    train: Dataset
    val: Dataset
    test: Dataset


def load(config: ConfigDict) -> Splits:
    """Loads the data set that the config names and splits a validation set off its training set.

    The split is a random draw by `config.seed` that does not look at the labels, sized as
    PyTorch's `random_split` does: `int((1 - val_fraction) * N)` train, the rest validate.

    Raises:
        ConfigError: there is no such data set, it cannot be read, or it is too small to be split.
    """
    entry = DATASETS[config.data.name]
    train, test = entry.function(**entry.arguments(config.data))
    num_train = int((1 - config.data.val_fraction) * len(train))
    if not 0 < num_train < len(train):
        raise ConfigError(
            f"config.data.val_fraction={config.data.val_fraction} leaves nothing to "
            f"{'validate on' if num_train else 'train on'}; number of images: {len(train)}"
        )

    import jax  # here, as everything that needs JAX: the config imports this module for its rows

    from jaxcifar.rng import Stream, stream

    def permutation(which: Stream, count: int) -> np.ndarray:
        return np.asarray(jax.random.permutation(stream(config.seed, which), count))

    rows = permutation(Stream.SPLIT, len(train))
    train, val = train.take(rows[:num_train]), train.take(rows[num_train:])
    limit = config.data.limit
    if limit > len(train):
        raise ConfigError(
            f"config.data.limit={limit} is not valid: it must be at most the number of training "
            f"images, {len(train)}"
        )
    if limit:
        train = train.take(permutation(Stream.LIMIT, len(train))[:limit])
    return Splits(train, val, test)


# --- the data sets, by name -----------------------------------------------------------------------


@DATASETS.register
def cifar100(*, dir: str = "", archive: str = "") -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of CIFAR-100, with its 20 superclasses.

    Args:
        dir: tfds's data directory ('': $TFDS_DATA_DIR, else ~/tensorflow_datasets).
        archive: a CIFAR tar.gz on disk, '-binary' or '-python' form, or its folder ('': download).
    """
    from jaxcifar.data import cifar

    return cifar.load("cifar100", dir, archive)


@DATASETS.register
def cifar10(*, dir: str = "", archive: str = "") -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of CIFAR-10.

    Args:
        dir: tfds's data directory ('': $TFDS_DATA_DIR, else ~/tensorflow_datasets).
        archive: a CIFAR tar.gz on disk, '-binary' or '-python' form, or its folder ('': download).
    """
    from jaxcifar.data import cifar

    return cifar.load("cifar10", dir, archive)


@DATASETS.register
def synthetic100(*, synthetic_size: NonNegativeInt = 0) -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of a hundred drawn classes, which need no download.

    Args:
        synthetic_size: N training and N/5 test images (0: 50,000 + 10,000).
    """
    from jaxcifar.data import synthetic

    return synthetic.load(synthetic_size)


@DATASETS.register("folder")  # a function of this name would hide the module
def image_folder(
    *, dir: Annotated[str, spec.described("the path of a folder", bool)]
) -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of a folder on disk.

    Args:
        dir: the root of train/<class>/*, test/<class>/*.
    """
    from jaxcifar.data import folder

    return folder.load(dir)
