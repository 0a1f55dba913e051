"""Data sets as arrays: load, split, and the image folder with its cache.

A data set is small enough to be one array in memory, so there is no input pipeline: the training
loop puts the arrays on the device once and every step gathers its batch there.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageOps

from jaxcifar import cache, cifar, cifar_archive, parallel, synthetic
from jaxcifar.config import ConfigError
from jaxcifar.rng import Stream, stream

IMAGE_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images: `images` uint8 [N, H, W, 3], `labels` int32 [N], one name per class.

    Where classes are grouped (CIFAR-100), `superclass_names` names the groups and `superclasses`,
    int32 [number of classes], gives each class's.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    superclass_names: tuple[str, ...] = ()
    superclasses: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray | slice) -> "Dataset":
        """Returns the Dataset of the given rows (int [M], or a slice), in their order."""
        return dataclasses.replace(self, images=self.images[rows], labels=self.labels[rows])

    def fingerprint(self) -> str:
        """Returns a hex digest of the images and labels, in their order."""
        digest = hashlib.blake2b(self.labels.tobytes(), digest_size=16)
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()


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
        ConfigError: the data is not there, cannot be read, or is too small to be split.
    """
    parallel.setup(config)
    if config.data.name == "synthetic100":
        train, test = (
            Dataset(images, labels, synthetic.CLASS_NAMES)
            for images, labels in synthetic.synthetic100(config.data.synthetic_size)
        )
    elif config.data.name == "folder":
        train, test = load_folder(config.data.dir)
    else:
        train, test = load_cifar(config.data.name, config.data.dir, config.data.archive)
    num_train = int((1 - config.data.val_fraction) * len(train))
    if not 0 < num_train < len(train):
        raise ConfigError(
            f"config.data.val_fraction={config.data.val_fraction} leaves nothing to "
            f"{'validate on' if num_train else 'train on'}: there are {len(train)} images"
        )
    rows = _permutation(config.seed, Stream.SPLIT, len(train))
    train, val = train.take(rows[:num_train]), train.take(rows[num_train:])
    if config.data.limit > len(train):
        raise ConfigError(
            f"config.data.limit={config.data.limit} is more than the {len(train)} training images"
        )
    if config.data.limit:
        train = train.take(_permutation(config.seed, Stream.LIMIT, len(train))[: config.data.limit])
    return Splits(train, val, test)


def load_cifar(name: str, data_dir: str = "", archive: str = "") -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of 'cifar10' or 'cifar100', in the official order.

    Arguments and errors are those of `jaxcifar.cifar.load_records`.
    """
    records = cifar.load_records(name, data_dir, archive)
    groups = {}
    if name == "cifar100":
        groups["superclass_names"] = tuple(cifar_archive.CIFAR100_SUPERCLASSES)
        groups["superclasses"] = cifar_archive.FINE_TO_COARSE
    num_labels = cifar_archive.num_labels(name)
    whole = Dataset(
        records[:, num_labels:].reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3),
        records[:, 0].astype(np.int32),
        tuple(cifar_archive.class_names(name)),
        **groups,
    )
    num_train = cifar_archive.SIZES["train"]
    return whole.take(slice(num_train)), whole.take(slice(num_train, None))


def load_folder(root: str) -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of a folder laid out as `{train,test}/<class>/<image>`.

    Images of any size and mode become RGB 32×32: turned upright by their EXIF tag, centre-cropped
    to a square, then resized with an antialiased bilinear filter; a 32×32 image is left as it is.
    Classes are train's subfolders in alphabetical order. Hidden files and files without an image's
    extension are passed over. The decoded arrays are cached (see `cache`) under the names,
    sizes and modification times of all files.

    Raises:
        ConfigError: a folder is missing, a class is empty, or files cannot be decoded.
    """
    base = pathlib.Path(root).expanduser()
    if not base.is_dir():
        raise ConfigError(f"config.data.dir={root!r} is not a folder")
    splits = [base / "train", base / "test"]
    for split in splits:
        if not split.is_dir():
            raise ConfigError(
                f"config.data.dir={root!r} has no folder {split.name!r}; "
                "an image folder holds train/<class>/* and test/<class>/*"
            )
    class_names = tuple(sorted(e.name for e in _visible(splits[0]) if e.is_dir()))
    strangers = sorted({e.name for e in _visible(splits[1]) if e.is_dir()} - set(class_names))
    if len(class_names) < 2 or strangers:
        problem = (
            f"test has classes that train lacks: {', '.join(strangers[:5])}"
            if strangers
            else f"train has {len(class_names)} class folders; at least 2 are needed"
        )
        raise ConfigError(f"config.data.dir={root!r}: {problem}")
    entries = [
        (label, entry)
        for split in splits
        for label, name in enumerate(class_names)
        for entry in _image_files(split / name)
    ]
    key = hashlib.blake2b(digest_size=16)
    for _, entry in entries:
        stat = entry.stat()
        key.update(f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    # Both halves of the name are digests, so a changed folder replaces its own stale cache.
    stem = hashlib.blake2b(str(base.resolve()).encode(), digest_size=8).hexdigest()
    images = cache.load_or_make(
        cache.directory() / f"folder-{stem}-{key.hexdigest()}.npy",
        lambda: _decode_all([entry.path for _, entry in entries]),
        stale=f"folder-{stem}-*.npy",
    )
    labels = np.array([label for label, _ in entries], np.int32)
    num_train = sum(entry.path.startswith(f"{splits[0]}{os.sep}") for _, entry in entries)
    return (
        Dataset(images[:num_train], labels[:num_train], class_names),
        Dataset(images[num_train:], labels[num_train:], class_names),
    )


def _permutation(seed: int, which: Stream, count: int) -> np.ndarray:
    return np.asarray(jax.random.permutation(stream(seed, which), count))


def _visible(folder: pathlib.Path) -> list[os.DirEntry]:
    return sorted((e for e in os.scandir(folder) if e.name[0] != "."), key=lambda e: e.name)


def _image_files(folder: pathlib.Path) -> list[os.DirEntry]:
    extensions = Image.registered_extensions()
    files = []
    if folder.is_dir():
        files = [e for e in _visible(folder) if os.path.splitext(e.name)[1].lower() in extensions]
    if not files:
        raise ConfigError(f"the class folder {str(folder)!r} holds no image files")
    return files


def _decode_all(paths: list[str]) -> np.ndarray:
    images = np.empty((len(paths), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    errors = []

    def decode(rows: range) -> None:
        for row in rows:
            try:
                images[row] = _decode(paths[row])
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                errors.append(paths[row])

    # Pillow decodes without holding the interpreter's lock, so threads are enough.
    chunks = [range(low, min(low + 500, len(paths))) for low in range(0, len(paths), 500)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, chunks))
    if errors:
        more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
        raise ConfigError(
            f"{len(errors)} image files cannot be read: {', '.join(sorted(errors)[:3])}{more}; "
            "repair or remove them"
        )
    return images


def _decode(path: str) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode.startswith("I"):  # 16-bit greyscale, which convert() would clip at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = ImageOps.exif_transpose(image).convert("RGB")
        size = (IMAGE_SIZE, IMAGE_SIZE)
        if image.size != size:
            image = ImageOps.fit(image, size, method=Image.Resampling.BILINEAR)
        return np.asarray(image)
