"""Image folders: any images, in one folder per class, as 32×32 arrays.

Decoding takes much longer than anything else at the start of a run, so the arrays are cached.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import stat

import numpy as np
from PIL import Image, ImageOps

from jaxcifar import cache
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.progress_bar import ProgressBar
from jaxcifar.spec import ConfigError

_IMAGE_SIZE = 32
_CHUNK = 100  # images that a thread decodes between two updates of the progress bar
_ANNOUNCE_ABOVE = 2000  # fewer decode in under a second

# For every file, whatever its extension: Pillow would start Ghostscript for a .jpg that holds
# PostScript.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")


def load(root: str) -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of a folder laid out as `{train,test}/<class>/<image>`.

    Images of any size and mode become RGB 32×32: rotated per EXIF, cropped to the central square,
    then resized with an antialiased bilinear filter; a 32×32 image is not resampled. Classes are
    train's subfolders in alphabetical order. Hidden files and files without an image extension are
    ignored. The decoded arrays are cached (see `cache`), keyed by the names, sizes and modification
    times of all files.

    Raises:
        ConfigError: a folder is missing, train has fewer than two classes, test has classes that
            train lacks, a class is empty, or files cannot be decoded.
    """
    base = pathlib.Path(root).expanduser()
    splits = [base / "train", base / "test"]
    class_names = _class_names(root, base, splits)
    entries = [
        (label, entry)
        for split in splits
        for label, name in enumerate(class_names)
        for entry in _image_files(split / name)
    ]
    key = hashlib.blake2b(digest_size=16)
    for _, entry in entries:
        status = entry.stat()
        key.update(os.fsencode(f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    # The first digest names the folder, the second its contents: a changed folder replaces its own
    # cache file.
    stem = hashlib.blake2b(os.fsencode(base.resolve()), digest_size=8).hexdigest()
    images = cache.load_or_make(
        cache.directory() / f"folder-{stem}-{key.hexdigest()}.npy",
        lambda: decode_all([entry.path for _, entry in entries]),
        stale=f"folder-{stem}-*.npy",
    )
    labels = np.array([label for label, _ in entries], np.int32)
    num_train = sum(entry.path.startswith(f"{splits[0]}{os.sep}") for _, entry in entries)
    return (
        Dataset(images[:num_train], labels[:num_train], class_names),
        Dataset(images[num_train:], labels[num_train:], class_names),
    )


def _class_names(root: str, base: pathlib.Path, splits: list[pathlib.Path]) -> tuple[str, ...]:
    """Returns the class names, after checking the folders of both splits."""
    if not base.is_dir():
        raise ConfigError(f"config.data.dir={root!r} is not a folder")
    for split in splits:
        if not split.is_dir():
            raise ConfigError(
                f"config.data.dir={root!r} has no folder {split.name!r}; "
                "an image folder holds train/<class>/* and test/<class>/*"
            )
    train_names, test_names = ({e.name for e in _visible(s) if e.is_dir()} for s in splits)
    if len(train_names) < 2:
        raise ConfigError(
            f"config.data.dir={root!r}: train must have at least 2 class folders, but has "
            f"{len(train_names)}"
        )
    unknown_classes = sorted(test_names - train_names)
    if unknown_classes:
        raise ConfigError(
            f"config.data.dir={root!r}: test has classes that train lacks: "
            f"{', '.join(unknown_classes[:5])}"
        )
    return tuple(sorted(train_names))


def _visible(folder: str | os.PathLike) -> list[os.DirEntry]:
    return sorted((e for e in os.scandir(folder) if e.name[0] != "."), key=lambda e: e.name)


def _image_files(folder: pathlib.Path) -> list[os.DirEntry]:
    files = _images(folder) if folder.is_dir() else []
    if not files:
        raise ConfigError(f"the class folder {str(folder)!r} holds no image files")
    _check_readable([entry.path for entry in files if not _is_regular(entry)])
    return files


def _images(folder: str | os.PathLike) -> list[os.DirEntry]:
    """Returns the visible entries of a folder that have an image's extension."""
    formats = Image.registered_extensions()
    extensions = {extension for extension, format in formats.items() if format in _FORMATS}
    return [e for e in _visible(folder) if os.path.splitext(e.name)[1].lower() in extensions]


def _is_regular(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a file, and not a folder, a pipe or a dangling or cyclic link."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False


def _check_readable(unreadable: list[str]) -> None:
    """Raises ConfigError if there are unreadable files, naming some."""
    if unreadable:
        count = len(unreadable)
        more = f" and {count - 3} more" if count > 3 else ""
        raise ConfigError(
            f"{count} image file{'s' * (count > 1)} cannot be read: "
            f"{', '.join(sorted(unreadable)[:3])}{more}; repair or remove "
            f"{'them' if count > 1 else 'it'}"
        )


def find_images(root: str) -> list[str]:
    """Returns the paths of all image files in a folder and its subfolders, sorted; hidden files are
    ignored.

    Raises:
        ConfigError: there is no such folder, it holds no image, or some cannot be read.
    """
    if not pathlib.Path(root).is_dir():
        raise ConfigError(f"{root!r} is not a folder")
    entries = []
    for folder, subfolders, _ in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        entries += _images(folder)
    if not entries:
        raise ConfigError(f"the folder {root!r} holds no image files")
    _check_readable([entry.path for entry in entries if not _is_regular(entry)])
    return sorted(entry.path for entry in entries)


def decode_all(paths: list[str]) -> np.ndarray:
    """Returns the images in files, uint8 [N, 32, 32, 3], as `load` does.

    Raises:
        ConfigError: some cannot be decoded.
    """
    images = np.empty((len(paths), _IMAGE_SIZE, _IMAGE_SIZE, 3), np.uint8)
    unreadable = []

    def decode(rows: range) -> int:
        for row in rows:
            try:
                images[row] = _decode(paths[row])
            except Exception:  # Pillow's decoders document few of theirs
                unreadable.append(paths[row])
        return rows.stop

    if len(paths) > _ANNOUNCE_ABOVE:
        print(f"Decoding {len(paths):,} images; later runs read them from the cache.")
    # Pillow releases the GIL while it decodes, so threads are enough.
    chunks = [range(low, min(low + _CHUNK, len(paths))) for low in range(0, len(paths), _CHUNK)]
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        ProgressBar("Decoding", len(paths)) as bar,
    ):
        for completed in pool.map(decode, chunks):
            bar.update(completed)
    _check_readable(unreadable)
    return images


def _decode(path: str) -> np.ndarray:
    """Returns the file's image, uint8 [32, 32, 3]."""
    with Image.open(path, formats=_FORMATS) as image:
        return fit(image)


def fit(image: Image.Image) -> np.ndarray:
    """Returns an image of any size and mode as `load` does, uint8 [32, 32, 3]."""
    if image.mode.startswith("I"):  # 16-bit grayscale, which convert() would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = ImageOps.exif_transpose(image).convert("RGB")
    size = (_IMAGE_SIZE, _IMAGE_SIZE)
    if image.size != size:
        image = ImageOps.fit(image, size, method=Image.Resampling.BILINEAR)
    return np.asarray(image)
