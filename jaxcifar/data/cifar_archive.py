"""The official CIFAR archives, binary and python version: checked, and decoded to records.

records: uint8 [60000, K + 3072], the 50,000 training images first. The first K columns are the
labels (CIFAR-10: the class; CIFAR-100: the class, then the superclass), the others the image's
32×32×3 values, row by row.
"""

import codecs
import hashlib
import io
import pathlib
import pickle
import tarfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxcifar import cache, errors
from jaxcifar.spec import ConfigError

SIZES = {"train": 50_000, "test": 10_000}
PIXELS = 32 * 32 * 3

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
CIFAR10_CLASSES += ["dog", "frog", "horse", "ship", "truck"]

# The superclasses and their classes; both are numbered in alphabetical order.
CIFAR100_SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
CIFAR100_CLASSES = sorted(" ".join(CIFAR100_SUPERCLASSES.values()).split())
# int32 [100]: the superclass of each class
FINE_TO_COARSE = np.array(
    [
        next(i for i, names in enumerate(CIFAR100_SUPERCLASSES.values()) if name in names.split())
        for name in CIFAR100_CLASSES
    ],
    np.int32,
)

# md5 of the original host's archives
_OFFICIAL_MD5 = {
    "c58f30108f718f92721af3b95e74349a": "cifar-10-python.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530": "cifar-10-binary.tar.gz",
    "eb9058c3a382ffc7106e4002c42a8d85": "cifar-100-python.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8": "cifar-100-binary.tar.gz",
}


_MAX_FILE_BYTES = 500_000_000  # the largest official one has 153,700,000


class _Layout(NamedTuple):
    """One version of an archive: its folder and the files in it."""

    version: str  # "python" or "binary"
    folder: str
    train: list[str]
    test: list[str]
    meta: list[str]  # class names

    @property
    def files(self) -> list[str]:
        return [*self.train, *self.test, *self.meta]


_BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
_LAYOUTS = {
    "cifar10": (
        _Layout("python", "cifar-10-batches-py", _BATCHES, ["test_batch"], ["batches.meta"]),
        _Layout(
            "binary",
            "cifar-10-batches-bin",
            [f"{batch}.bin" for batch in _BATCHES],
            ["test_batch.bin"],
            ["batches.meta.txt"],
        ),
    ),
    "cifar100": (
        _Layout("python", "cifar-100-python", ["train"], ["test"], ["meta"]),
        _Layout(
            "binary",
            "cifar-100-binary",
            ["train.bin"],
            ["test.bin"],
            ["fine_label_names.txt", "coarse_label_names.txt"],
        ),
    ),
}


def class_names(name: str) -> list[str]:
    """Returns the names of the classes of 'cifar10' or 'cifar100', in the labels' order."""
    return list(CIFAR10_CLASSES if name == "cifar10" else CIFAR100_CLASSES)


def load(name: str, path: pathlib.Path) -> np.ndarray:
    """Returns the records in an official tar.gz or its extracted folder, for 'cifar10' or
    'cifar100'. The decoded records of a tar.gz are cached, keyed by its path, size and modification
    time.

    Raises:
        ConfigError: a file is missing or damaged, or has wrong counts, labels or class names.
    """
    if path.is_dir():
        contents = {file.name: file for file in path.iterdir() if file.is_file()}
        layout = _find_layout(name, path, list(contents))
        return _parse(name, path, layout, lambda file: contents[file].read_bytes())
    stat = path.stat()
    key = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{name}"
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return cache.load_or_make(
        cache.directory() / f"archive-{digest}.npy", lambda: _load_tar(name, path)
    )


def _load_tar(name: str, path: pathlib.Path) -> np.ndarray:
    print(f"Decoding {path.name}; later runs read its images from the cache.")
    with open(path, "rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    official = _OFFICIAL_MD5.get(md5)
    print(
        f"{path.name}: md5 {md5}, " + (f"the official {official}" if official else "not official")
    )
    contents: dict[str, bytes] = {}
    folders = {layout.folder for layout in _LAYOUTS[name]}
    member_names = []
    # Nothing is extracted to disk.
    with (
        errors.reading(f"config.data.archive={str(path)!r}", "download it again"),
        tarfile.open(path) as tar,
    ):
        for member in tar:
            parent, _, file = member.name.removeprefix("./").rpartition("/")
            member_names.append(member.name)
            if member.isfile() and parent in folders:
                if member.size > _MAX_FILE_BYTES:
                    raise ValueError(f"{member.name} has {member.size:,} bytes")
                contents[file] = tar.extractfile(member).read()
    layout = _find_layout(name, path, list(contents) or member_names)
    return _parse(name, path, layout, contents.__getitem__)


def _find_layout(name: str, path: pathlib.Path, files: list[str]) -> _Layout:
    for layout in _LAYOUTS[name]:
        if set(layout.files) <= set(files):
            return layout
    expected = " or ".join(f"{x.folder}/{{{','.join(x.files)}}}" for x in _LAYOUTS[name])
    raise ConfigError(
        f"config.data.archive={str(path)!r} is not {name}: it must hold {expected}; "
        f"it holds {', '.join(files[:6]) or 'nothing'}{', ...' if len(files) > 6 else ''}"
    )


def _parse(
    name: str, path: pathlib.Path, layout: _Layout, read: Callable[[str], bytes]
) -> np.ndarray:
    """Returns the records in an archive's files, read by `read(name)`."""
    decode = read_python if layout.version == "python" else read_binary
    expected = [class_names(name)] + [list(CIFAR100_SUPERCLASSES)] * (name == "cifar100")
    parts = []
    try:
        for file in (*layout.train, *layout.test):
            is_train = file in layout.train
            size = SIZES["train"] // len(layout.train) if is_train else SIZES["test"]
            records = decode(name, read(file))
            if len(records) != size:
                raise ValueError(f"must hold {size:,} images, but holds {len(records):,}")
            check_labels(name, records)
            parts.append(records)
        file = layout.meta[0]
        if _read_names([read(file) for file in layout.meta], layout.version) != expected:
            raise ValueError("does not name the official classes in their order")
    except ValueError as error:
        raise ConfigError(
            f"config.data.archive={str(path)!r}: {layout.folder}/{file} {error}"
        ) from error
    return np.concatenate(parts)


def num_labels(name: str) -> int:
    """Returns how many labels a record of the dataset begins with."""
    return 1 if name == "cifar10" else 2


def check_labels(name: str, records: np.ndarray) -> None:
    """Raises ValueError unless all labels are valid for the dataset."""
    for column, count in enumerate((10,) if name == "cifar10" else (100, 20)):
        largest = records[:, column].max(initial=0)
        if largest >= count:
            raise ValueError(f"has a label {largest}; valid are 0 to {count - 1}")
    if name == "cifar100" and (FINE_TO_COARSE[records[:, 0]] != records[:, 1]).any():
        raise ValueError("has a class label that does not belong to its superclass label")


def read_binary(name: str, content: bytes) -> np.ndarray:
    """Returns the records in a file of the binary version.

    Raises:
        ValueError: its size is wrong.
    """
    width = num_labels(name) + PIXELS
    if len(content) % width:
        raise ValueError(f"has {len(content):,} bytes, not a multiple of a record's {width:,}")
    raw = np.frombuffer(content, np.uint8).reshape(-1, width)
    labels = raw[:, : num_labels(name)][:, ::-1]  # the file has the superclass first
    return _records(labels, raw[:, num_labels(name) :])


def read_python(name: str, content: bytes) -> np.ndarray:
    """Returns the records in a file of the python version, a pickled dictionary.

    Raises:
        ValueError: it is damaged, would run code, or holds something else.
    """
    batch = _unpickle(content)
    keys = ["labels"] if name == "cifar10" else ["fine_labels", "coarse_labels"]
    if not isinstance(batch, dict) or not {"data", *keys} <= set(batch):
        raise ValueError(f"lacks some of the entries {', '.join(['data', *keys])}")
    pixels = batch["data"]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ValueError("has data that is not a two-dimensional uint8 array")
    if pixels.shape[1] != PIXELS:
        raise ValueError(f"has images of {pixels.shape[1]} values, not {PIXELS}")
    columns = [batch[key] for key in keys]
    for labels in columns:
        if (
            not isinstance(labels, list)
            or len(labels) != len(pixels)
            or not all(isinstance(label, int) and 0 <= label < 256 for label in labels)
        ):
            raise ValueError("has labels that are not one integer from 0 to 255 for each image")
    return _records(np.array(columns, np.uint8).T, pixels)


def _read_names(contents: list[bytes], version: str) -> list[list[str]]:
    if version == "binary":
        return [content.decode("ascii", "replace").split() for content in contents]
    meta = _unpickle(contents[0])
    keys = ["label_names"] if "label_names" in meta else ["fine_label_names", "coarse_label_names"]
    return [meta.get(key) for key in keys]


def _records(labels: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Joins labels [N, K] and images stored as color planes, [N, 3 · 32 · 32]."""
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).reshape(-1, PIXELS)
    return np.concatenate([labels, images], axis=1)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays, lists, strings and numbers; rejects every other object before creating it."""

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        ):
            return np._core.multiarray._reconstruct
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in old protocols
            return lambda string, _: codecs.encode(string, "latin1")
        raise pickle.UnpicklingError(f"it references {module}.{name}")


def _unpickle(content: bytes) -> dict:
    """Returns the dictionary that Python 2 pickled, its strings as str.

    Raises:
        ValueError: it is damaged, or would run code.
    """
    try:
        # NumPy needs latin1 to read arrays that Python 2 pickled
        value = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(
            f"is not a pickle of arrays and labels ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(value, dict):
        raise ValueError("is not a pickled dictionary")
    return {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in value.items()}
